"""One real server with one random model, and one with a model that only blends pixels, for all tests of this folder."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import torch
from tritonclient.grpc.service_pb2 import ModelInferRequest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from homomorph.models.config import CompactConfig, ModelConfig
from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MorphModel
from homomorph.runs.label_features import save_label_features
from homomorph.runs.run import save_model
from homomorph_bench.serving import process_usage
from homomorph_client import MorphClient
from homomorph_export.catalogue import morph_models
from homomorph_export.configuration import config_text, model_config
from homomorph_export.contract import MANIFEST_FILE, MAX_QUEUE
from homomorph_export.exporter import export_run
from homomorph_export.flavours import PYTHON
from homomorph_export.repository import write_description
from homomorph_export.serving.server import TritonServer


@dataclass(frozen=True)
class Served:
    """A running server, and in `model` what it should compute."""

    url: str
    metrics_port: int
    roots: frozenset[int]
    """Ids of the processes that the server was started with."""
    repository: Path
    model: MorphModel
    label_features: LabelFeatures

    def expected(
        self, source: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8], strengths: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        """Compute [B, H, W, 3], [B, H, W, 3] and [B, S, K] -> uint8 [B, S, H, W, 3] with eager PyTorch."""
        network = self.model.config.network
        mean = torch.tensor(network.picture_mean).view(3, 1, 1)
        std = torch.tensor(network.picture_std).view(3, 1, 1)
        a, b = ((torch.from_numpy(x).permute(0, 3, 1, 2) / 255 - mean) / std for x in (source, target))
        with torch.inference_mode():
            frames = self.model(a, b, torch.from_numpy(strengths)) * std + mean
        pixels: npt.NDArray[np.uint8] = (frames.clamp(0, 1) * 255).round().to(torch.uint8).movedim(2, -1).numpy()
        return pixels


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Export a small model with random weights and serve it with the real tritonserver."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    model = MorphModel(ModelConfig(groups={"hair": ("black", "blond"), "glasses": ("glasses",)})).eval()
    for name, weights in model.named_parameters():
        if name.startswith("branches") or not weights.any():  # what starts small or at zero should matter here
            torch.nn.init.normal_(weights, std=0.1)
    # With a last layer as large as this, frames fill the range from black to white.
    torch.nn.init.normal_([weights for weights in model.decoder.parameters() if weights.ndim == 4][-1], std=0.3)
    save_model(folder / "run", model)
    label_features = LabelFeatures(model.config)
    for values in label_features.buffers():
        torch.nn.init.normal_(values)
    save_label_features(folder / "run", label_features)
    export_run(folder / "run", folder / "triton_repo", onnx=False, threads=1)
    before = process_usage.children()
    with TritonServer(folder / "triton_repo", models=("morph", "morph_stream", "edit"), cache_mib=16) as server:
        roots = frozenset(process_usage.children() - before)
        yield Served(server.grpc_url, server.ports["metrics"], roots, folder / "triton_repo", model, label_features)


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[MorphClient]:
    """A client of the session's server."""
    with MorphClient(served.url) as client:
        yield client


@pytest.fixture
def pictures() -> npt.NDArray[np.uint8]:
    """Two smooth random pictures, uint8 [2, 64, 64, 3]."""
    return smooth_pictures(2, 64, 64)


def smooth_pictures(count: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return uint8 [count, height, width, 3]: coarse noise, enlarged."""
    coarse = torch.rand((count, 3, 6, 6), generator=torch.Generator().manual_seed(count * height + width))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    pixels: npt.NDArray[np.uint8] = (fine * 255).to(torch.uint8).movedim(1, -1).contiguous().numpy()
    return pixels


@pytest.fixture(scope="session")
def blender_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as an export writes it, but of `blender.py`: it starts at once, and a frame takes 20 ms."""
    repository = tmp_path_factory.mktemp("blender") / "triton_repo"
    here = Path(__file__).parent
    groups = {"hair_colour": ("black_hair",), "skin": ("pale_skin",)}
    config = ModelConfig(groups, picture_size=64, network=CompactConfig(feature_channels=3 * 8 * 8))
    for model in morph_models(config, labels=False):
        folder = repository / model.name
        write_description(folder, model, method="homomorph", onnx=False, threads=1)
        if not model.computation:
            continue
        shutil.copy(here / "blender.py", folder / "1" / "blender.py")
        (folder / "1" / PYTHON.model_file).rename(folder / "1" / "exported.py")
        own = "blender_morpher.py" if model.joint else "blender.py"
        shutil.copy(here / own, folder / "1" / PYTHON.model_file)
        settings = model_config(model, threads=1)
        settings.ClearField("model_warmup")
        settings.parameters["frame_ms"].string_value = "20"
        checks = model.checks()
        if checks["pixels"]:
            checks["pixels"]["maximum"] = 256 * 64 * 64  # as `blender.py` has it
        settings.parameters["checks"].string_value = json.dumps(checks)
        (folder / PYTHON.config_file).write_text(config_text(settings))
    (repository / MANIFEST_FILE).write_text('{"models": []}')  # without it, it would be without weights
    return repository


@pytest.fixture(scope="session")
def blender(blender_repository: Path) -> Iterator[TritonServer]:
    """A real server of `blender_repository`, which tests leave running."""
    with TritonServer(blender_repository, models=("morph", "morph_stream")) as server:
        yield server


@pytest.fixture
def short_queues(blender_repository: Path, tmp_path: Path) -> Path:
    """The blender's repository with queues of two requests."""
    shutil.copytree(blender_repository, tmp_path / "repository")
    for path in (tmp_path / "repository").glob("*/config.pbtxt"):
        path.write_text(path.read_text().replace(f"max_queue_size: {MAX_QUEUE}", "max_queue_size: 2"))
    morpher = tmp_path / "repository" / "morpher" / "config.pbtxt"
    morpher.write_text(morpher.read_text().replace(f'string_value: "{MAX_QUEUE}"', 'string_value: "2"'))
    return tmp_path / "repository"


@pytest.fixture
def blended(pictures: npt.NDArray[np.uint8]) -> Callable[[int], npt.NDArray[np.uint8]]:
    """Return what the blender says of the two pictures in so many steps."""

    def frames(steps: int) -> npt.NDArray[np.uint8]:
        source, target = pictures[:, None].astype(np.float32)
        ramp = np.linspace(0, 1, steps, dtype=np.float32)[:, None, None, None]
        blend: npt.NDArray[np.uint8] = np.rint(source + ramp * (target - source)).astype(np.uint8)
        return blend

    return frames


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, and the certificate and key of each side."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and what it vouches for: a server called morph.test and a client."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    for name in ("morph.test", "client"):
        (folder / "names").write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", *key[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    server, client = ((folder / f"{name}.pem", folder / f"{name}.key") for name in ("morph.test", "client"))
    return Certificates(folder / "ca.pem", server, client)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of 127.0.0.1 that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


SIZE_CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "X" data_type: TYPE_UINT8 dims: [-1, -1, 3] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ kind: KIND_CPU }]
dynamic_batching { priority_levels: 2 default_priority_level: 2 }
"""
SIZE_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(request, "X").as_numpy()) for request in requests]

    def answer(self, x):
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.full((len(x), 1), x.size, np.float32))])
"""


@pytest.fixture(scope="session")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one model, `size`, which answers with the number of elements of X, and needs no torch."""
    repository = tmp_path_factory.mktemp("sizes") / "repository"
    (repository / "size" / "1").mkdir(parents=True)
    (repository / "size" / "config.pbtxt").write_text(SIZE_CONFIG)
    (repository / "size" / "1" / "model.py").write_text(SIZE_MODEL)
    return repository


@pytest.fixture
def size_request() -> Callable[..., ModelInferRequest]:
    """Return a request for `size` with so many bytes of X."""

    def make(shape: list[int], size: int, **parameters: int) -> ModelInferRequest:
        message = ModelInferRequest(model_name="size")
        message.inputs.add(name="X", datatype="UINT8", shape=shape)
        message.raw_input_contents.append(bytes(size))
        for name, value in parameters.items():
            message.parameters[name].int64_param = value
        return message

    return make


@pytest.fixture
def answers(size_request: Callable[..., ModelInferRequest]) -> Callable[[str], bool]:
    """Return whether the server at an address answers a good request for `size`."""

    def answer(url: str) -> bool:
        with grpc.insecure_channel(url, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                GRPCInferenceServiceStub(channel).ModelInfer(size_request([1, 8, 8, 3], 192), timeout=5)
            except grpc.RpcError:
                return False
        return True

    return answer


@pytest.fixture
def eventually() -> Callable[..., bool]:
    """Return a function that waits until a condition holds, and says whether it did within so many seconds."""

    def wait(condition: Callable[[], bool], within_s: float = 30) -> bool:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    return wait


@pytest.fixture
def processes() -> Callable[[str], dict[str, int]]:
    """Return the keeper, the server and the model's process of a server in whose command is a word."""

    def found_by(word: str) -> dict[str, int]:
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:  # it has ended
                continue
            if any(word in each for each in words):
                kind = next((kind for kind in ("python_backend_stub", "keeper.py") if kind in " ".join(words[:3])), "")
                if kind or words[0].endswith("bin/tritonserver"):
                    found[kind or "tritonserver"] = int(folder.name)
        return found

    return found_by
