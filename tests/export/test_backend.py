"""The Python backend's own file, run without a server: the models of single steps, and what all models share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from homomorph.models.morph import MorphModel
from homomorph.training.strips import morph_pixels
from homomorph_export.ops.interpolate import load_operator
from homomorph_export.servable import JOINT_METHODS

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


def interpolator_request(steps: int = 4, batch: int = 1, height: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "SOURCE": random.standard_normal((batch, 16, height, 4), dtype=np.float32),
        "TARGET": random.standard_normal((batch, 16, height, 4), dtype=np.float32),
        "STRENGTHS": random.random((batch, steps, 3), dtype=np.float32) * 2,
    }


def test_pictures_become_the_frames_of_the_run(backend, repository: Path, model: MorphModel):
    source, target = torch.randint(0, 256, (2, 1, 32, 48, 3), generator=torch.manual_seed(0)).to(torch.uint8)
    strengths = torch.rand(1, 5, 3)
    (encoded,) = backend(repository, "encoder_pair").execute([{"SOURCE": source.numpy(), "TARGET": target.numpy()}])
    features = {tensor.name: tensor.array for tensor in encoded.output_tensors}
    request = {
        "SOURCE": features["SOURCE_FEATURES"],
        "TARGET": features["TARGET_FEATURES"],
        "STRENGTHS": strengths.numpy(),
    }
    (mixed,) = backend(repository, "interpolator").execute([request])
    (frames,) = backend(repository, "decoder").execute([{"FEATURES": mixed.output_tensors[0].array}])
    result = frames.output_tensors[0]
    assert (result.name, result.array.dtype, result.array.shape) == ("FRAMES", np.uint8, (1, 5, 32, 48, 3))
    expected = morph_pixels(model, source.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2), strengths)
    assert np.abs(result.array.astype(int) - expected.movedim(2, -1).numpy()).max() <= 1


def test_a_bad_request_fails_alone(backend, repository: Path):
    good, other = interpolator_request(batch=2, seed=1), interpolator_request(seed=2)
    bad = interpolator_request()
    bad["STRENGTHS"][0, 0, 0] = np.nan
    execute = backend(repository, "interpolator").execute
    responses = execute([good, bad, other])
    assert responses[0].error is None
    assert "STRENGTHS: every value must be a number from 0 to 2, not nan" in str(responses[1].error)
    assert responses[1].error.code == "invalid argument"
    for request, response in ((good, responses[0]), (other, responses[2])):
        (alone,) = execute([request])
        np.testing.assert_allclose(response.output_tensors[0].array, alone.output_tensors[0].array, rtol=0, atol=1e-6)


def test_each_of_a_batch_of_pairs_gets_its_own_features(backend, repository: Path):
    pictures = torch.randint(0, 256, (4, 3, 32, 32, 3), generator=torch.manual_seed(0)).to(torch.uint8).numpy()
    encode = backend(repository, "encoder").execute
    pairs = [{"SOURCE": pictures[0, :1], "TARGET": pictures[1, :1]}, {"SOURCE": pictures[2], "TARGET": pictures[3]}]
    for request, response in zip(pairs, backend(repository, "encoder_pair").execute(pairs), strict=True):
        for name, features in zip(("SOURCE", "TARGET"), response.output_tensors, strict=True):
            (alone,) = encode([{"IMAGE": request[name]}])
            assert features.name == f"{name}_FEATURES"
            np.testing.assert_allclose(features.array, alone.output_tensors[0].array, rtol=0, atol=1e-5)


def test_a_batch_is_one_forward_pass(backend, repository: Path):
    served = backend(repository, "interpolator")
    module, batches = served.instance.module, []
    served.instance.module = lambda *tensors: (batches.append(len(tensors[0])), module(*tensors))[1]
    served.execute([interpolator_request(seed=1), interpolator_request(batch=2, seed=2)])
    assert batches == [3]


def test_only_bad_requests_need_no_forward_pass(backend, repository: Path):
    served = backend(repository, "interpolator")
    served.instance.module = None
    (response,) = served.execute([interpolator_request(steps=257)])
    assert "S must be from 1 to 256, not 257" in str(response.error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"STRENGTHS": np.full((1, 4, 3), 2.5, np.float32)}, "from 0 to 2, not 2.5"),
        ({"STRENGTHS": np.full((1, 4, 3), -0.5, np.float32)}, "from 0 to 2"),
        ({"STRENGTHS": np.full((1, 4, 3), np.inf, np.float32)}, "from 0 to 2, not inf"),
        ({"STRENGTHS": np.zeros((1, 0, 3), np.float32)}, "S must be from 1 to 256, not 0"),
        ({"TARGET": np.zeros((1, 16, 5, 4), np.float32)}, "TARGET: h must be 4 as in SOURCE, not 5"),
        (
            {
                "SOURCE": np.zeros((1, 16, 64, 64), np.float32),
                "TARGET": np.zeros((1, 16, 64, 64), np.float32),
                "STRENGTHS": np.zeros((1, 65, 3), np.float32),
            },
            "STRENGTHS: too many frames for their size: 65 of 512x512 pixels are 17039360 pixels, not at most 16777216",
        ),
        (
            {
                "SOURCE": np.zeros((8, 16, 64, 64), np.float32),
                "TARGET": np.zeros((8, 16, 64, 64), np.float32),
                "STRENGTHS": np.zeros((8, 9, 3), np.float32),
            },
            "STRENGTHS: too many frames for their size: 72 of 512x512 pixels are 18874368 pixels, not at most 16777216",
        ),
    ],
)
def test_refusals_say_what_is_wrong(backend, repository: Path, change: dict[str, np.ndarray], message: str):
    (response,) = backend(repository, "interpolator").execute([interpolator_request() | change])
    assert message in str(response.error)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 33, 32, 3), "IMAGE: H must be a multiple of 8 from 8 to 2048, not 33"),
        ((1, 32, 2056, 3), "IMAGE: W must be a multiple of 8 from 8 to 2048, not 2056"),
        ((1, 0, 32, 3), "IMAGE: H must be a multiple of 8 from 8 to 2048, not 0"),
        ((5, 2048, 2048, 3), "IMAGE: too many pictures for their size: 5 of 2048x2048 pixels are 20971520 pixels, not"),
    ],
)
def test_pictures_of_a_bad_size_are_refused(backend, repository: Path, shape: tuple[int, ...], message: str):
    (response,) = backend(repository, "encoder").execute([{"IMAGE": np.zeros(shape, np.uint8)}])
    assert message in str(response.error)


def test_threads_come_from_the_configuration(backend, repository: Path):
    module = backend(repository, "encoder").module
    cores = len(os.sched_getaffinity(0))
    assert [module.thread_count(setting) for setting in ("3", "all", "half")] == [3, cores, max(1, cores // 2)]


def test_freed_memory_is_kept_for_the_next_request(repository: Path):
    # In a process of its own: the setting is the process's, and what this one has freed already would hide it.
    script = """
import resource, sys, types
import torch
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
sys.path.insert(0, sys.argv[1])
import memory
def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(4 << 20)  # 16 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
memory.keep_freed_memory()
faults()
print(given_back, faults())
"""
    words = [sys.executable, "-c", script, str(repository / "morpher" / "1")]
    # Blocks of any size come from the system unless the process says otherwise.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    out = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    given_back, kept = map(int, out.split())
    assert kept < given_back / 10


def test_an_instance_computes_where_its_group_says(backend, repository: Path):
    module = backend(repository, "encoder").module
    assert module.torch_device("CPU", "0") == torch.device("cpu")
    assert module.torch_device("GPU", "1") == torch.device("cuda", 1)


def test_no_model_insists_on_the_cpu(repository: Path):
    """Weights move to a GPU when they are loaded; what a graph itself says of devices would not."""
    load_operator()
    for path in sorted(repository.glob("*/1/model.pt")):
        module = torch.jit.load(path)
        for name in JOINT_METHODS if path.parents[1].name == "morpher" else ("forward",):
            assert 'value="cpu"' not in str(getattr(module, name).inlined_graph), path


def test_backend_needs_nothing_of_homomorph(repository: Path):
    source = (repository / "encoder" / "1" / "model.py").read_text()
    assert "import homomorph" not in source
    assert "from homomorph" not in source


def test_checks_are_json_that_every_member_carries(repository: Path):
    for path in repository.glob("*/1/model.pt"):
        config = text_format.Parse((path.parents[1] / "config.pbtxt").read_text(), schema.ModelConfig())
        assert set(json.loads(config.parameters["checks"].string_value)) == {"dims", "axes", "ranges", "pixels"}
