"""The request guard checks requests for models that check nothing, as those of the flavours libtorch and onnx."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.grpc import service_pb2 as messages
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, shared_memory

from homomorph.models.config import CompactConfig, ModelConfig
from homomorph_client.shared_memory_key import key_file
from homomorph_export.catalogue import morph_models, translation_models
from homomorph_export.configuration import config_text, model_config
from homomorph_export.flavours import AOTI, ONNX, PYTHON
from homomorph_export.serving.ports import choose_ports
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server

PROGRAM = """
import json
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.input = config["input"][0]["name"]
        self.outputs = [(output["name"], output["dims"], output["data_type"]) for output in config["output"]]

    def execute(self, requests):
        return [pb_utils.InferenceResponse(list(self.zeros(request))) for request in requests]

    def zeros(self, request):
        batch = pb_utils.get_input_tensor_by_name(request, self.input).shape()[0]
        for name, dims, kind in self.outputs:
            shape = [batch, *(max(length, 1) for length in dims)]
            yield pb_utils.Tensor(name, np.zeros(shape, pb_utils.triton_string_to_numpy(kind)))
"""
"""Answers every request with zeros, whatever it is sent."""
MODELS = ("morph", "edit", "latent", "pixel", "encoder", "decoder", "translate", "by_place")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of an export's models as the flavour onnx configures them; `PROGRAM` takes the backend's place.

    The model `by_place` is `pixel` as the flavour aoti configures a model.
    """
    repository = tmp_path_factory.mktemp("unchecked") / "repository"
    groups = {"hair": ("black_hair",), "glasses": ("round_glasses",)}
    config = ModelConfig(groups, picture_size=64, network=CompactConfig(feature_channels=4))
    models = [*morph_models(config, labels=True), *translation_models({"there": 4, "back": 4}, 64)]
    settings = {model.name: model_config(model, ONNX) for model in models}
    settings["by_place"] = model_config(next(model for model in models if model.name == "pixel"), AOTI)
    settings["by_place"].name = "by_place"
    for name, written in settings.items():
        (repository / name / "1").mkdir(parents=True)
        if written.platform != "ensemble":
            written.platform, written.default_model_filename, written.backend = "", "", PYTHON.backend
            written.ClearField("model_warmup")
            (repository / name / "1" / PYTHON.model_file).write_text(PROGRAM)
        (repository / name / PYTHON.config_file).write_text(config_text(written))
    http_port = choose_ports("127.0.0.1", {"http": None})["http"]
    with TritonServer(repository, models=MODELS, http_port=http_port) as server:
        yield server


@pytest.fixture
def triton(server: TritonServer) -> Iterator[InferenceServerClient]:
    """A client that checks nothing."""
    with InferenceServerClient(server.grpc_url) as triton:
        yield triton


def pictures(height: int = 64, width: int = 64, batch: int = 1) -> npt.NDArray[np.uint8]:
    return np.zeros((batch, height, width, 3), np.uint8)


def corners(height: int = 64, count: int = 2) -> npt.NDArray[np.uint8]:
    return np.zeros((1, count, height, 64, 3), np.uint8)


def features(frames: int = 1, side: int = 8) -> npt.NDArray[np.float32]:
    return np.full((1, frames, 4, side, side), np.nan, np.float32)


def floats(*shape: int, value: float = 0) -> npt.NDArray[np.float32]:
    """Return numbers of which the last one has a value."""
    array = np.zeros(shape, np.float32)
    array.flat[-1:] = value
    return array


def steps(*numbers: int) -> npt.NDArray[np.int64]:
    return np.array([numbers], np.int64)


def morph(**changed: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Return the inputs of a morph, some of them changed."""
    return {"SOURCE": pictures(), "TARGET": pictures(), "STRENGTHS": floats(1, 2, 3, value=2), **changed}


def inputs(arrays: dict[str, npt.NDArray[Any]]) -> list[InferInput]:
    made = []
    for name, array in arrays.items():
        made.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        made[-1].set_data_from_numpy(array)
    return made


GOOD: list[tuple[str, dict[str, npt.NDArray[Any]]]] = [
    ("morph", morph()),
    ("morph", morph(STRENGTHS=floats(1, 256, 3))),
    ("morph", morph(SOURCE=pictures(8, 2048), TARGET=pictures(8, 2048))),
    ("morph", morph(SOURCE=pictures(batch=3), TARGET=pictures(batch=3), STRENGTHS=floats(3, 2, 3))),
    ("edit", {"SOURCE": pictures(), "LABELS": floats(1, 2, value=1), "STRENGTHS": floats(1, 2, 3)}),
    ("latent", {"PICTURES": corners(count=4), "PLACES": floats(1, 2, 2, value=2)}),
    ("pixel", {"PICTURES": corners(), "PLACES": floats(1, 2, 2)}),
    ("encoder", {"IMAGE": pictures(8, 8)}),
    ("decoder", {"FEATURES": features()}),
    ("translate", {"IMAGE": pictures(), "STEPS": steps(1, 0, 1)}),
]
BAD: list[tuple[str, dict[str, npt.NDArray[Any]], str]] = [
    ("morph", morph(STRENGTHS=floats(1, 2, 3, value=np.nan)), "STRENGTHS: every value must be a number from 0 to 2"),
    ("morph", morph(STRENGTHS=floats(1, 2, 3, value=-np.nan)), "not nan"),
    ("morph", morph(STRENGTHS=floats(1, 2, 3, value=np.inf)), "not inf"),
    ("morph", morph(STRENGTHS=floats(1, 2, 3, value=2.5)), "not 2.5"),
    ("morph", morph(STRENGTHS=floats(1, 2, 3, value=-0.5)), "not -0.5"),
    ("morph", morph(STRENGTHS=floats(1, 300, 3)), "STRENGTHS: S must be from 1 to 256, not 300"),
    ("morph", morph(STRENGTHS=floats(1, 0, 3)), "S must be from 1 to 256, not 0"),
    ("morph", morph(SOURCE=pictures(4, 4), TARGET=pictures(4, 4)), "H must be a multiple of 8 from 8 to 2048, not 4"),
    ("morph", morph(SOURCE=pictures(0, 8), TARGET=pictures(0, 8)), "not 0"),
    ("morph", morph(SOURCE=pictures(64, 60), TARGET=pictures(64, 60)), "SOURCE: W must be a multiple of 8"),
    ("morph", morph(SOURCE=pictures(8, 2056), TARGET=pictures(8, 2056)), "not 2056"),
    ("morph", morph(TARGET=pictures(64, 72)), "TARGET: W must be 64 as in SOURCE, not 72"),
    ("morph", morph(TARGET=pictures(4, 64)), "TARGET: H must be a multiple of 8"),
    (
        "morph",
        morph(SOURCE=pictures(512, 512), TARGET=pictures(512, 512), STRENGTHS=floats(1, 65, 3)),
        "too many frames for their size: 65 of 512x512 pixels are 17039360 pixels, not at most 16777216",
    ),
    ("edit", {"SOURCE": pictures(), "LABELS": floats(1, 2, value=1.5), "STRENGTHS": floats(1, 2, 3)}, "not 1.5"),
    ("edit", {"SOURCE": pictures(), "LABELS": floats(1, 2), "STRENGTHS": floats(1, 2, 3, value=np.nan)}, "not nan"),
    ("edit", {"SOURCE": pictures(), "LABELS": floats(1, 2), "STRENGTHS": floats(1, 257, 3)}, "not 257"),
    ("latent", {"PICTURES": corners(), "PLACES": floats(1, 2, 2, value=np.nan)}, "PLACES: every value"),
    ("latent", {"PICTURES": corners(count=3), "PLACES": floats(1, 2, 2)}, "P must be a multiple of 2"),
    ("latent", {"PICTURES": corners(), "PLACES": floats(1, 257, 2)}, "PLACES: S must be from 1 to 256, not 257"),
    ("pixel", {"PICTURES": corners(12), "PLACES": floats(1, 2, 2)}, "PICTURES: H must be a multiple of 8"),
    ("by_place", {"INPUT__0": corners(), "INPUT__1": floats(1, 2, 2, value=np.nan)}, "INPUT__1: every value"),
    ("by_place", {"INPUT__0": corners(12), "INPUT__1": floats(1, 2, 2)}, "INPUT__0: H must be a multiple of 8"),
    ("encoder", {"IMAGE": pictures(4, 4)}, "IMAGE: H must be a multiple of 8"),
    ("encoder", {"IMAGE": pictures(2048, 2048, batch=5)}, "too many pictures for their size: 5 of 2048x2048"),
    ("decoder", {"FEATURES": features(257)}, "S must be from 1 to 256, not 257"),
    ("decoder", {"FEATURES": features(65, side=64)}, "too many frames for their size: 65 of 512x512"),
    ("translate", {"IMAGE": pictures(), "STEPS": steps(0, 2)}, "STEPS: every value must be a number from 0 to 1"),
    ("translate", {"IMAGE": pictures(), "STEPS": steps(-1)}, "not -1"),
    ("translate", {"IMAGE": pictures(), "STEPS": steps(*[0] * 33)}, "STEPS: S must be from 1 to 32, not 33"),
]


@pytest.mark.parametrize(("model", "arrays"), GOOD)
def test_what_is_within_the_limits_is_answered(
    triton: InferenceServerClient, model: str, arrays: dict[str, npt.NDArray[Any]]
) -> None:
    triton.infer(model, inputs(arrays))


@pytest.mark.parametrize(("model", "arrays", "words"), BAD)
def test_what_is_beyond_the_limits_is_refused(
    triton: InferenceServerClient, model: str, arrays: dict[str, npt.NDArray[Any]], words: str
) -> None:
    with pytest.raises(InferenceServerException) as refused:
        triton.infer(model, inputs(arrays))
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert words in refused.value.message()
    triton.infer("morph", inputs(morph()))


def test_the_order_of_inputs_does_not_matter(triton: InferenceServerClient) -> None:
    arrays = morph(SOURCE=pictures(512, 512), TARGET=pictures(512, 512), STRENGTHS=floats(1, 65, 3))
    with pytest.raises(InferenceServerException, match="too many frames for their size: 65 of 512x512"):
        triton.infer("morph", inputs(arrays)[::-1])
    with pytest.raises(InferenceServerException, match="every value must be a number"):
        triton.infer("morph", inputs(morph(STRENGTHS=floats(1, 2, 3, value=3)))[::-1])


def test_values_that_come_as_numbers_of_the_message(server: TritonServer, triton: InferenceServerClient) -> None:
    request = messages.ModelInferRequest(model_name="morph")
    for name, array in morph().items():
        tensor = request.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        if name == "STRENGTHS":
            tensor.contents.fp32_contents.extend([0, 0, 0, 0, 0, float("nan")])
        else:
            tensor.contents.uint_contents.extend(array.flat)
    with pytest.raises(Exception, match="STRENGTHS: every value must be a number from 0 to 2, not nan"):
        triton._client_stub.ModelInfer(request)


def test_values_in_shared_memory(server: TritonServer) -> None:
    headers = {"triton-grpc-protocol-homomorph-shared-memory": key_file(server.ports["grpc"]).read_text()}
    arrays = morph(STRENGTHS=floats(1, 2, 3, value=np.nan))
    strengths = arrays["STRENGTHS"]
    region = shared_memory.create_shared_memory_region("strengths", f"/{server.id}_strengths", strengths.nbytes)
    try:
        shared_memory.set_shared_memory_region(region, [strengths])
        with InferenceServerClient(server.grpc_url) as triton:
            triton.register_system_shared_memory(
                "strengths", f"/{server.id}_strengths", strengths.nbytes, headers=headers
            )
            made = inputs(arrays)
            made[2].set_shared_memory("strengths", strengths.nbytes)
            with pytest.raises(InferenceServerException, match="not nan"):
                triton.infer("morph", made)
            shared_memory.set_shared_memory_region(region, [floats(1, 2, 3)])
            triton.infer("morph", made)
    finally:
        shared_memory.destroy_shared_memory_region(region)


def http_body(arrays: dict[str, npt.NDArray[Any]], *, binary: bool) -> tuple[bytes, dict[str, str]]:
    """Return the body of an HTTP request and its headers."""
    described: list[dict[str, Any]] = []
    for name, array in arrays.items():
        described.append({"name": name, "datatype": np_to_triton_dtype(array.dtype), "shape": array.shape})
        if binary:
            described[-1]["parameters"] = {"binary_data_size": array.nbytes}
        else:
            described[-1]["data"] = array.tolist()
    head = json.dumps({"inputs": described}).encode()
    if not binary:
        return head, {}
    body = head + b"".join(array.tobytes() for array in arrays.values())
    return body, {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_http(server: TritonServer, binary: bool) -> None:
    url = f"http://{server.url('http')}/v2/models/morph/infer"
    body, headers = http_body(morph(STRENGTHS=floats(1, 256, 3, value=2)), binary=binary)
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        assert answer.status == 200
    body, headers = http_body(morph(STRENGTHS=floats(1, 256, 3, value=2.5)), binary=binary)
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60)
    assert b"STRENGTHS: every value must be a number from 0 to 2, not 2.5" in refused.value.read()


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_number_that_two_buffers_share(server: TritonServer, cut: int) -> None:
    """A body that comes in pieces is not copied together: a value may begin in one buffer and end in the next."""
    url = f"http://{server.url('http')}/v2/models/morph/infer"
    body, headers = http_body(morph(STRENGTHS=floats(1, 2, 3, value=2)), binary=True)
    pieces = [body[:-cut], body[-cut:]]  # sent as chunks
    with urllib.request.urlopen(urllib.request.Request(url, iter(pieces), headers), timeout=60) as answer:
        assert answer.status == 200
    body, headers = http_body(morph(STRENGTHS=floats(1, 2, 3, value=np.nan)), binary=True)
    pieces = [body[:-cut], body[-cut:]]
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(urllib.request.Request(url, iter(pieces), headers), timeout=60)
    assert b"STRENGTHS: every value must be a number from 0 to 2, not nan" in refused.value.read()


def test_limits_of_a_new_version_are_taken(server: TritonServer, triton: InferenceServerClient) -> None:
    path = server.repository / "encoder" / PYTHON.config_file
    text = path.read_text()
    with pytest.raises(InferenceServerException, match="not 4"):
        triton.infer("encoder", inputs({"IMAGE": pictures(4, 4)}))
    try:
        path.write_text(text.replace("[8, 2048, 8]", "[4, 2048, 4]"))
        server.load("encoder")
        for _ in range(100):
            try:
                triton.infer("encoder", inputs({"IMAGE": pictures(4, 4)}))
                break
            except InferenceServerException:
                time.sleep(0.1)
        else:
            raise AssertionError("the old limits are still in use")
    finally:
        path.write_text(text)
        server.load("encoder")
