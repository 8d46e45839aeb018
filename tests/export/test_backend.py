"""The Python backend's own file, run as the server runs it but for the server."""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from queue import Queue
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as schema

from homomorph.models.morph import MorphModel
from homomorph.training.strips import morph_pixels
from homomorph_export.ops.interpolate import load_operator
from homomorph_export.servable import JOINT_METHODS


class TritonError(Exception):
    INVALID_ARG, INTERNAL, UNAVAILABLE, CANCELLED = "invalid argument", "internal", "unavailable", "cancelled"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Tensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def to_dlpack(self) -> Any:
        return torch.utils.dlpack.to_dlpack(torch.from_numpy(self.array))


class MetricFamily:
    COUNTER = "counter"
    counted: ClassVar[dict[str, dict[str, float]]] = {}
    """By the family's name and the first label's value."""

    def __init__(self, name: str, description: str, kind: str) -> None:
        self.counted[name] = {}
        self.name = name

    def Metric(self, labels: dict[str, str]) -> Any:
        label, *_ = labels.values()
        return SimpleNamespace(increment=lambda value: self.count(label, value))

    def count(self, label: str, value: float) -> None:
        self.counted[self.name][label] = self.counted[self.name].get(label, 0) + value

    @classmethod
    def pictures(cls) -> dict[str, float]:
        """Return how many pictures were counted, once that is told."""
        before = None
        while before != (counted := dict(cls.counted["homomorph_pictures"])):
            before = counted
            time.sleep(0.5)
        return counted


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.output_tensors, self.error = output_tensors, error


class Request(dict[str, np.ndarray]):
    """A request's inputs; what the backend sends as its response, at once or later, comes to `response`."""

    def __init__(self, inputs: dict[str, np.ndarray], parameters: str = "", timeout_us: int = 0) -> None:
        super().__init__(inputs)
        self.sent: Queue[InferenceResponse] = Queue()
        self.parameters, self.timeout = lambda: parameters, lambda: timeout_us

    def get_response_sender(self) -> Any:
        return SimpleNamespace(send=lambda response, flags: self.sent.put(response))

    def response(self) -> InferenceResponse:
        return self.sent.get(timeout=60)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch):
    """Return a function that starts one exported model's backend and returns its `execute`."""
    server = ModuleType("triton_python_backend_utils")
    server.Tensor, server.TritonError, server.InferenceResponse = Tensor, TritonError, InferenceResponse
    server.MetricFamily, server.TRITONSERVER_RESPONSE_COMPLETE_FINAL = MetricFamily, 1
    server.get_input_tensor_by_name = lambda request, name: Tensor(name, request[name])
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", server)
    threads = torch.get_num_threads()
    started: list[Any] = []

    def start(repository: Path, name: str):
        folder = repository / name
        config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
        monkeypatch.syspath_prepend(folder / "1")  # as the server does
        settings = json_format.MessageToJson(config, preserving_proto_field_name=True)
        spec = importlib.util.spec_from_file_location("exported_backend", folder / "1" / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        instance = module.TritonPythonModel()
        arguments = {
            "model_config": settings,
            "model_repository": str(folder),
            "model_version": "1",
            "model_name": name,
        }
        instance.initialize(arguments | {"model_instance_kind": "CPU", "model_instance_device_id": "0"})
        started.append(instance)
        return SimpleNamespace(execute=instance.execute, module=module, instance=instance)

    yield start
    for instance in started:
        instance.finalize()
    torch.set_num_threads(threads)


def morph_request(pictures: np.ndarray, steps: int = 4, seed: int = 0, parameters: str = "") -> Request:
    strengths = np.random.default_rng(seed).random((1, steps, 3), dtype=np.float32)
    return Request({"SOURCE": pictures[:1], "TARGET": pictures[1:2], "STRENGTHS": strengths}, parameters)


def answered(served: Any, *requests: Request) -> list[InferenceResponse]:
    """Return what a joint model answers to requests that come together."""
    assert served.execute(list(requests)) is None
    return [request.response() for request in requests]


@pytest.fixture
def pictures() -> np.ndarray:
    """Four random pictures, uint8 [4, 32, 32, 3]."""
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def interpolator_request(steps: int = 4, batch: int = 1, height: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "SOURCE": random.standard_normal((batch, 16, height, 4), dtype=np.float32),
        "TARGET": random.standard_normal((batch, 16, height, 4), dtype=np.float32),
        "STRENGTHS": random.random((batch, steps, 3), dtype=np.float32) * 2,
    }


pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


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
    assert responses[1].error.code == TritonError.INVALID_ARG
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


@pytest.mark.parametrize("cache_mib", ["0", "1"])
@pytest.mark.parametrize(
    ("threads", "engine"),
    [(1, "torchscript"), (2, "torchscript"), (3, "torchscript"), (2, "onnxruntime")],
)
def test_a_joint_model_gives_the_frames_of_the_run(
    backend,
    repository: Path,
    model: MorphModel,
    pictures: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    cache_mib: str,
    threads: int,
    engine: str,
):
    monkeypatch.setenv("HOMOMORPH_ENGINE", engine)
    monkeypatch.setenv("HOMOMORPH_CACHE_MIB", cache_mib)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(threads)))
    served = backend(repository, "morpher")
    assert len(served.instance.morpher.scheduler._workers) == threads
    requests = [
        morph_request(pictures, seed=1),
        morph_request(pictures[2:], seed=2),
        morph_request(pictures[[3, 0]], steps=80),  # several pieces for each thread
        morph_request(pictures[[0, 1]], steps=1),
        Request(
            {
                "SOURCE": pictures[:3],
                "TARGET": pictures[1:],
                "STRENGTHS": np.random.default_rng(3).random((3, 4, 3), dtype=np.float32),
            }
        ),
    ]
    for request, response in zip(requests, answered(served, *requests), strict=True):
        expected = morph_pixels(
            model,
            *(torch.from_numpy(request[name]).permute(0, 3, 1, 2) for name in ("SOURCE", "TARGET")),
            torch.from_numpy(request["STRENGTHS"]),
        )
        frames = response.output_tensors[0].array
        assert np.abs(frames.astype(int) - expected.movedim(2, -1).numpy()).max() <= 1
        (alone,) = answered(served, request)
        assert np.abs(frames.astype(int) - alone.output_tensors[0].array).max() <= 1


def test_a_morph_that_fails_is_an_answer_too(backend, repository: Path, pictures: np.ndarray):
    served = backend(repository, "morpher")
    served.instance.morpher.module = SimpleNamespace(encode=lambda pictures: [][0])
    (response,) = answered(served, morph_request(pictures))
    assert (str(response.error), response.error.code) == ("list index out of range", TritonError.INTERNAL)
    wrong = morph_request(pictures)
    wrong["STRENGTHS"][:] = -1
    (response,) = answered(served, wrong)
    assert response.error.code == TritonError.INVALID_ARG
    late = Request(morph_request(pictures), timeout_us=1)
    (response,) = answered(served, late)
    assert (response.error.code, "timeout expired" in str(response.error)) == (TritonError.CANCELLED, True)


@pytest.mark.parametrize("urgent", ['"false"', "1", "null", "[]"])
def test_urgent_is_true_or_false(backend, repository: Path, pictures: np.ndarray, urgent: str):
    served = backend(repository, "morpher")
    (response,) = answered(served, morph_request(pictures, parameters=f'{{"urgent": {urgent}}}'))
    assert response.error.code == TritonError.INVALID_ARG
    assert "the parameter urgent must be true or false" in str(response.error)


@pytest.mark.parametrize("timeout_us", [2**64 - 1, 10**13])
def test_timeouts_that_were_negative_or_are_endless(backend, repository: Path, pictures: np.ndarray, timeout_us: int):
    served = backend(repository, "morpher")
    (response,) = answered(served, Request(morph_request(pictures), timeout_us=timeout_us))
    assert (response.error.code, "timeout must be from 0" in str(response.error)) == (TritonError.INVALID_ARG, True)


def test_no_picture_is_encoded_twice(backend, repository: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOMOMORPH_CACHE_MIB", "1")
    served = backend(repository, "morpher")
    answered(served, morph_request(pictures))
    answered(served, morph_request(pictures[1:]))
    assert MetricFamily.pictures() == {"yes": 1, "no": 3}, "the second's source is the first's target"
    answered(served, morph_request(pictures, seed=1))
    answered(served, morph_request(pictures[[3, 1]]), morph_request(pictures[[0, 1]], seed=2))
    assert MetricFamily.pictures() == {"yes": 6, "no": 4}
    # The same bytes in another shape are another picture.
    answered(served, morph_request(pictures.reshape(4, 16, 64, 3)))
    assert MetricFamily.pictures() == {"yes": 6, "no": 6}


def test_a_slider_that_moves_runs_no_branch_again(
    backend, repository: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    plain = backend(repository, "morpher")
    monkeypatch.setenv("HOMOMORPH_CACHE_MIB", "1")
    served = backend(repository, "morpher")
    module = served.instance.morpher.module
    runs: list[tuple[int, int]] = []

    def delta(difference: torch.Tensor, column: int) -> torch.Tensor:
        runs.append((column, len(difference)))
        return module.delta(difference, column)

    served.instance.morpher.module = SimpleNamespace(
        encode=module.encode, interpolate=module.interpolate, delta=delta, combine=module.combine, decode=module.decode
    )
    strengths = np.zeros((3, 1, 3), dtype=np.float32)
    for moved, expected in (
        ({0: 0.5}, []),  # the first request of these pictures: another one may never come
        ({0: 0.6}, [(0, 3)]),
        ({0: 0.7}, []),
        ({0: 0.7, 2: 1.0}, [(2, 3)]),
        ({0: 0.2, 2: 1.5}, []),
    ):
        runs.clear()
        for column, value in moved.items():
            strengths[:, :, column] = value
        request = Request({"SOURCE": pictures[:3], "TARGET": pictures[1:], "STRENGTHS": strengths.copy()})
        (response,), (right,) = answered(served, request), answered(plain, request)
        np.testing.assert_array_equal(response.output_tensors[0].array, right.output_tensors[0].array)
        assert runs == expected
    # New pictures beside known ones: the known pair's answers are taken, and nothing of the new one is kept.
    runs.clear()
    pairs = np.stack([pictures[0], 255 - pictures[0]]), pictures[1:3]
    request = Request({"SOURCE": pairs[0], "TARGET": pairs[1], "STRENGTHS": strengths[:2]})
    (response,), (right,) = answered(served, request), answered(plain, request)
    np.testing.assert_array_equal(response.output_tensors[0].array, right.output_tensors[0].array)
    assert runs == [(0, 1), (2, 1)]


def test_without_a_cache_nothing_is_kept(backend, repository: Path, pictures: np.ndarray):
    served = backend(repository, "morpher")
    for _ in range(2):
        answered(served, morph_request(pictures))
    assert served.instance.morpher.cache is None


def test_strengths_of_zero_run_no_branch(backend, repository: Path, pictures: np.ndarray):
    """Of a group that no request of a batch uses, T_i does not run: the frames do not need its weights."""
    served = backend(repository, "morpher")
    request = morph_request(pictures)
    request["STRENGTHS"][:] = 0
    networks = served.instance.module
    features = networks.encode(torch.from_numpy(np.concatenate([request["SOURCE"], request["TARGET"]])))

    def convolutions() -> int:
        with torch.profiler.profile() as profile:
            networks.interpolate(features[:1], features[1:], torch.from_numpy(request["STRENGTHS"]))
        return sum(event.count for event in profile.key_averages() if "convolution" in event.key)

    idle = convolutions()
    request["STRENGTHS"][:, :, 1] = 1
    assert convolutions() > idle
