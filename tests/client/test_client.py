"""What the clients do before and without a server."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc.service_pb2 import ModelInferResponse

from homomorph_client import AsyncMorphClient, DeadlineError, MorphClient, PictureError, RequestError
from homomorph_client.codec import decode, encode
from homomorph_client.connection import Connection, Tls
from homomorph_client.errors import ServerUnavailableError, SettingsError
from homomorph_client.served_model import ServedModel

PICTURE = np.zeros((16, 16, 3), np.uint8)
CONFIG: dict[str, Any] = {
    "name": "morph",
    "parameters": {
        "groups": {"string_value": "hair,residual"},
        "labels": {"string_value": '{"hair": ["black", "blond"]}'},
        "picture_size": {"string_value": "64"},
        "stride": {"string_value": "8"},
        "max_steps": {"string_value": "256"},
        "max_strength": {"string_value": "2"},
    },
}


@pytest.mark.parametrize("module", ["homomorph_client", "homomorph_cli.main"])
def test_import_leaves_torch_alone(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'homomorph', 'homomorph_export'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("set()\n", "")


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_no_server(closed_port: int) -> None:
    url = f"127.0.0.1:{closed_port}"
    with MorphClient(url, timeout_s=10) as client:
        assert not client.ready()
        with pytest.raises(ServerUnavailableError, match=f"{re.escape(url)}.*homomorph serve") as caught:
            client.morph(PICTURE, PICTURE)
    assert "\n" not in str(caught.value)


def test_no_server_for_the_async_client(closed_port: int) -> None:
    async def morph() -> None:
        async with AsyncMorphClient(f"127.0.0.1:{closed_port}", timeout_s=10) as client:
            assert not await client.ready()
            await client.morph(PICTURE, PICTURE)

    with pytest.raises(ServerUnavailableError, match="homomorph serve"):
        asyncio.run(morph())


@pytest.mark.timeout(20)
def test_timeout_is_kept(silent_port: int) -> None:
    with (
        MorphClient(f"127.0.0.1:{silent_port}", timeout_s=0.5) as client,
        pytest.raises(DeadlineError, match=r"0\.5 s"),
    ):
        client.morph(PICTURE, PICTURE)


@pytest.mark.parametrize(
    "url", ["", "localhost", "http://127.0.0.1:8000", "127.0.0.1:x", "127.0.0.1:0", ":8001", "a:99999"]
)
def test_bad_urls(url: str) -> None:
    for client in (MorphClient, AsyncMorphClient):
        with pytest.raises(ServerUnavailableError, match="host:port"):
            client(url)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_bad_timeouts(timeout_s: float) -> None:
    with pytest.raises(DeadlineError, match="more than 0 s"):
        MorphClient(timeout_s=timeout_s)


def test_served_model_from_configuration() -> None:
    assert ServedModel.from_config(CONFIG) == ServedModel(
        name="morph",
        groups=("hair", "residual"),
        labels={"hair": ("black", "blond")},
        picture_size=64,
        max_steps=256,
        max_strength=2.0,
    )
    assert ServedModel.from_config(CONFIG, picture_size=128).picture_size == 128


@pytest.mark.parametrize("size", [0, -8, 4, 100])
def test_picture_size_must_fit_the_stride(size: int) -> None:
    with pytest.raises(PictureError, match=f"multiple of 8, not {size}"):
        ServedModel.from_config(CONFIG, picture_size=size)


@pytest.mark.parametrize("key", ["groups", "picture_size", "stride", "max_steps", "max_strength"])
def test_foreign_models_are_refused(key: str) -> None:
    parameters = {name: value for name, value in CONFIG["parameters"].items() if name != key}
    with pytest.raises(RequestError, match=key):
        ServedModel.from_config({"name": "morph", "parameters": parameters})
    with pytest.raises(RequestError, match="'morph' is not one"):
        ServedModel.from_config({"name": "morph"})


def test_encode_makes_a_batch_of_one() -> None:
    strengths = np.array([[0, 0.5], [1, 2]], np.float32)
    model = ServedModel.from_config(CONFIG, picture_size=8)
    request = encode(model, {"SOURCE": PICTURE + 3, "TARGET": PICTURE}, {"STRENGTHS": strengths})
    assert request.model_name == "morph"
    assert {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in request.inputs} == {
        "SOURCE": ("UINT8", [1, 8, 8, 3]),
        "TARGET": ("UINT8", [1, 8, 8, 3]),
        "STRENGTHS": ("FP32", [1, 2, 2]),
    }
    assert request.raw_input_contents[0] == bytes([3] * 8 * 8 * 3)
    assert request.raw_input_contents[2] == strengths.tobytes()
    assert "priority" not in request.parameters
    urgent = encode(model, {}, {}, urgent=True).parameters
    assert (urgent["priority"].uint64_param, urgent["urgent"].bool_param) == (1, True)


def answer(frames: np.ndarray, name: str = "FRAMES") -> ModelInferResponse:
    """Return the server's answer of one tensor."""
    response = ModelInferResponse(raw_output_contents=[frames.tobytes()])
    response.outputs.add(name=name, datatype={"u": "UINT8", "f": "FP32"}[frames.dtype.kind], shape=frames.shape)
    return response


def test_decode_drops_the_batch() -> None:
    frames = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(1, 2, 8, 8, 3)
    decoded = decode(answer(frames))
    assert np.array_equal(decoded, frames[0])
    assert decoded.flags.writeable


@pytest.mark.parametrize(
    "response",
    [
        ModelInferResponse(),
        answer(np.zeros((1, 2, 8, 8, 3), np.uint8), name="OUT"),
        answer(np.zeros((2, 8, 8, 3), np.uint8)),
        answer(np.zeros((1, 2, 8, 8, 3), np.float32)),
    ],
    ids=["none", "name", "4d", "float"],
)
def test_decode_refuses_other_answers(response: ModelInferResponse) -> None:
    with pytest.raises(RequestError, match="no FRAMES"):
        decode(response)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"url": []}, ServerUnavailableError, "no address was given"),
        ({"url": ["127.0.0.1:1", "x"]}, ServerUnavailableError, "'x' is no address"),
        (
            {"url": "127.0.0.1:1,nowhere.invalid:2"},
            ServerUnavailableError,
            "nowhere.invalid cannot be resolved",
        ),
        ({"retries": 5}, SettingsError, "from 0 to 4, not 5"),
        ({"retries": -1}, SettingsError, "from 0 to 4, not -1"),
        ({"tls": Tls(ca="no/such/file.pem")}, SettingsError, "no/such/file.pem cannot be read: No such file"),
        ({"tls": Tls(ca=__file__)}, SettingsError, "must be in PEM format"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    for client in (MorphClient, AsyncMorphClient):
        with pytest.raises(error, match=message):
            client(**settings)


def test_a_key_without_its_certificate() -> None:
    with pytest.raises(SettingsError, match="both"):
        Tls(key="key.pem")


def test_a_closed_client_says_so() -> None:
    client = MorphClient()
    client.close()
    with pytest.raises(RequestError, match="closed"):
        client.morph(PICTURE, PICTURE)


def test_every_address_is_called_by_number() -> None:
    def target(*urls: str) -> str:
        return Connection(urls).target()

    assert target("localhost:1") == "dns:///localhost:1", "gRPC looks a single name up itself, time and again"
    assert target("localhost:1", "127.0.0.2:2") == "ipv4:127.0.0.1:1,127.0.0.2:2"
    assert target("[::1]:1", "[::1]:2") == "ipv6:[::1]:1,[::1]:2"
