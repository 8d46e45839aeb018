"""Who reaches a server's ports can ask for morphs and do nothing else; the model is tiny and needs no torch."""

from __future__ import annotations

import json
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from homomorph_client.errors import ServerError
from homomorph_client.shared_memory_key import key_file
from homomorph_export.serving.ports import choose_ports
from homomorph_export.serving.repository_check import is_safe
from homomorph_export.serving.server import TritonServer
from homomorph_export.serving.tls import ServerTls

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(sizes: Path) -> Iterator[TritonServer]:
    """A server of it."""
    with TritonServer(sizes, models=["size"]) as server:
        yield server


@pytest.fixture
def stub(server: TritonServer) -> Iterator[GRPCInferenceServiceStub]:
    """What a stranger asks it with."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield GRPCInferenceServiceStub(channel)


RESTRICTED = {
    "RepositoryIndex": messages.RepositoryIndexRequest(),
    "RepositoryModelLoad": messages.RepositoryModelLoadRequest(model_name="size"),
    "RepositoryModelUnload": messages.RepositoryModelUnloadRequest(model_name="size"),
    "SystemSharedMemoryStatus": messages.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": messages.SystemSharedMemoryRegisterRequest(name="x", key="/x", byte_size=1),
    "SystemSharedMemoryUnregister": messages.SystemSharedMemoryUnregisterRequest(),
    "CudaSharedMemoryStatus": messages.CudaSharedMemoryStatusRequest(),
    "TraceSetting": messages.TraceSettingRequest(),
    "LogSettings": messages.LogSettingsRequest(),
}


@pytest.mark.parametrize("method", RESTRICTED)
def test_strangers_control_nothing(
    server: TritonServer, stub: Any, method: str, answers: Callable[[str], bool]
) -> None:
    for headers in ([], [("triton-grpc-protocol-homomorph-control", "guessed")]):
        with pytest.raises(grpc.RpcError, match="restricted"):
            getattr(stub, method)(RESTRICTED[method], timeout=5, metadata=headers)
    assert answers(server.grpc_url)


def test_a_model_in_a_request_is_not_loaded(server: TritonServer, stub: Any, tmp_path: Path) -> None:
    load = messages.RepositoryModelLoadRequest(model_name="size")
    load.parameters["config"].string_param = json.dumps({"backend": "python", "max_batch_size": 0})
    load.parameters["file:1/model.py"].bytes_param = f"open({str(tmp_path / 'run')!r}, 'w')".encode()
    with pytest.raises(grpc.RpcError, match="restricted"):
        stub.RepositoryModelLoad(load, timeout=5)
    assert not (tmp_path / "run").exists()


def test_http_is_off_unless_asked_for_and_restricted_then(server: TritonServer, sizes: Path) -> None:
    assert set(server.ports) == {"grpc", "metrics"}
    port = choose_ports("127.0.0.1", {"http": None})["http"]
    with TritonServer(sizes, models=["size"], http_port=port):

        def status(path: str, body: bytes | None = None) -> int:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=5) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        assert status("/v2/health/ready") == 200
        assert status("/v2/models/size/config") == 200
        for path in ("repository/index", "repository/models/size/unload", "repository/models/size/load"):
            assert status(f"/v2/{path}", b"{}") == 403
        for path in ("systemsharedmemory/status", "cudasharedmemory/status", "trace/setting", "logging"):
            assert status(f"/v2/{path}") == 403
        assert status("/v2/health/ready") == 200


def test_with_tls_nothing_else_is_open(sizes: Path, certificates: Any) -> None:
    tls = ServerTls(*certificates.server, client_ca=certificates.ca)
    with TritonServer(sizes, models=["size"], tls=tls, host="0.0.0.0") as server:
        assert [server.address(name)[0] for name in ("grpc", "http", "metrics")] == ["0.0.0.0", *["127.0.0.1"] * 2]
        for path in ("/v2", "/v2/health/ready", "/v2/models/size/config", "/v2/models/stats"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"http://{server.url('http')}{path}", timeout=5)
        assert "size" in server.loaded()


def test_keys_are_not_in_the_list_of_processes(
    server: TritonServer, processes: Callable[[str], dict[str, int]]
) -> None:
    found = processes(server.id)
    assert set(found) == {"keeper.py", "tritonserver", "python_backend_stub"}
    for process in found.values():
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        assert server.keys.control.encode() not in command
        assert server.keys.shared_memory.encode() not in command


@pytest.mark.parametrize("kind", ["missing", "no library"])
def test_a_server_whose_guard_is_not_loaded_does_not_start(
    sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, processes: Callable[[str], dict[str, int]]
) -> None:
    library = tmp_path / "librequest_guard.so"
    if kind == "no library":
        library.write_bytes(bytes(64))
    monkeypatch.setattr("homomorph_export.serving.server.build_guard", lambda: library)
    server = TritonServer(sizes, models=["size"], log=tmp_path / "log")
    with pytest.raises(ServerError, match=r"the server did not start: object '.*guard.so' from LD_PRELOAD cannot be"):
        server.start()
    assert processes(server.id) == {}


def test_a_guard_in_a_folder_whose_name_separates_paths(
    sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: Callable[[str], dict[str, int]]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a:b"))
    with TritonServer(sizes, models=["size"]) as server:
        assert "librequest_guard.so" in Path(f"/proc/{processes(server.id)['tritonserver']}/maps").read_text()
        assert server.loaded() == ["size"], "the control key is the launcher's"


def test_other_users_cannot_read_its_memory(server: TritonServer) -> None:
    files = [*Path("/dev/shm").glob(f"{server.id}_*"), key_file(server.ports["grpc"])]
    assert len(files) > 1
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize(
    ("shape", "size"),
    [([1, -8, -8, 3], 192), ([1, 2**62, 4, 3], 0), ([1, 2**62, 0, 3], 0), ([-2, -8, 4, 3], 192)],
    ids=str,
)
def test_shapes_that_end_the_python_backend(
    server: TritonServer,
    stub: Any,
    shape: list[int],
    size: int,
    size_request: Callable[..., Any],
    answers: Callable[[str], bool],
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(size_request(shape, size), timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert answers(server.grpc_url)


@pytest.mark.parametrize(
    ("inputs", "refused"),
    [
        ({"SOURCE": [1, 2048, 2048, 3], "STRENGTHS": [1, 6, 7]}, True),
        ({"STRENGTHS": [1, 2**24, 7], "SOURCE": [1, 8, 8, 3]}, True),
        ({"IMAGE": [8, 2048, 2048, 3]}, True),
        ({"PICTURES": [1, 4, 2048, 2048, 3], "PLACES": [1, 6, 2]}, True),
        ({"PICTURES": [1, 4, 2048, 2048, 3], "PLACES": [1, 4, 2]}, False),
        ({"SOURCE": [1, 2048, 2048, 3], "TARGET": [1, 2048, 2048, 3], "STRENGTHS": [1, 4, 7]}, False),
        ({"STRENGTHS": [1, 256, 7], "SOURCE": [1, 256, 256, 3]}, False),
    ],
    ids=str,
)
def test_an_answer_of_too_many_pixels_is_refused_whatever_the_backend(
    server: TritonServer, stub: Any, inputs: dict[str, list[int]], refused: bool, answers: Callable[[str], bool]
) -> None:
    """One that is not refused for that is refused for its inputs, which this model does not have."""
    message = messages.ModelInferRequest(model_name="size")
    for name, shape in inputs.items():
        message.inputs.add(name=name, datatype="UINT8", shape=shape)
        message.raw_input_contents.append(b"")
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ("too many frames for their size" in caught.value.details()) == refused
    assert answers(server.grpc_url)


def test_a_request_of_very_many_inputs(server: TritonServer, stub: Any, answers: Callable[[str], bool]) -> None:
    """Triton's time for them grows with their square: a request of 25 MB would block the server for minutes."""
    message = messages.ModelInferRequest(model_name="size")
    for index in range(1025):
        message.inputs.add(name=f"X{index}", datatype="UINT8", shape=[1])
        message.raw_input_contents.append(b"x")
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(message, timeout=60)
    assert "a request has at most 1024 inputs" in refused.value.details()
    assert answers(server.grpc_url)


length = st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9) | st.sampled_from([2**31, 2**32, 2**61, 2**62, -(2**62)])


@pytest.mark.soak
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(length, max_size=3).map(lambda lengths: [1, *lengths, 3]) | st.lists(length, max_size=5))
def test_any_shape_gets_an_answer(
    server: TritonServer, stub: Any, shape: list[int], size_request: Callable[..., Any], answers: Callable[[str], bool]
) -> None:
    product = 1
    for each in shape:
        product *= each
    wrapped = product % 2**64  # as the server's own arithmetic has it
    call = stub.ModelInfer.future(size_request(shape, wrapped if wrapped < 2**20 else 0), timeout=5)
    assert call.code() in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}, call.details()
    assert answers(server.grpc_url)


@pytest.mark.parametrize(
    "parameters", [{"priority": 3}, {"priority": -1}, {"timeout": -1}, {"timeout": 2**62}], ids=str
)
def test_priorities_and_timeouts_out_of_range(
    stub: Any, parameters: dict[str, int], size_request: Callable[..., Any]
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(size_request([1, 8, 8, 3], 192, **parameters), timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(parameters)) in refused.value.details()


UNSAFE = ["a b", "$(touch ran)", "it's", 'say "x"', "semi;colon", "back`tick`"]


@pytest.mark.parametrize("folder", UNSAFE)
def test_such_a_path_is_known(folder: str) -> None:
    assert is_safe(Path("/folder/repository"))
    assert not is_safe(Path("/") / folder / "repository")


@pytest.mark.parametrize("folder", UNSAFE[:2])
def test_paths_that_mean_something_to_a_shell(
    sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, answers: Callable[[str], bool]
) -> None:
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / folder / "repository"
    shutil.copytree(sizes, repository)
    with TritonServer(repository, models=["size"]) as server:
        assert answers(server.grpc_url)
    assert {path.name for path in tmp_path.iterdir()} == {folder}


def test_names_of_models_that_mean_something_to_a_shell(sizes: Path, tmp_path: Path) -> None:
    shutil.copytree(sizes, tmp_path / "repository")
    shutil.copytree(sizes / "size", tmp_path / "repository" / "$(touch ran)")
    with pytest.raises(ServerError, match=r"has a model '\$\(touch ran\)': names are letters"):
        TritonServer(tmp_path / "repository", models=["size"]).start()


def test_a_server_is_not_taken_for_another_one(sizes: Path, server: TritonServer) -> None:
    """The second start finds the first server on its ports, which was not there yet when it looked."""
    second = TritonServer(sizes, models=["size"], start_timeout_s=1, stop_timeout_s=1, **ports_of(server))
    second.ports, second.id = dict(server.ports), "another"
    assert second._is_ready() is False
    second.id = server.id
    assert second._is_ready() is True


def ports_of(server: TritonServer) -> dict[str, int]:
    return {f"{name}_port": port for name, port in server.ports.items()}


HTTP_HEAD = b"POST /v2/models/size/infer HTTP/1.1\r\nHost: x\r\n"
HTTP_ATTACKS = {
    "nested": HTTP_HEAD + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000,
    "chunked": HTTP_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 600_000 + b"0\r\n\r\n",
}
"""CVE-2025-23311 and CVE-2025-23310: both overflow the usual stack of a thread of tritonserver 24.10."""


def test_http_requests_that_overflow_a_stack(
    sizes: Path, answers: Callable[[str], bool], processes: Callable[[str], dict[str, int]]
) -> None:
    port = choose_ports("127.0.0.1", {"http": None})["http"]
    with TritonServer(sizes, models=["size"], http_port=port) as server:
        before = processes(server.id)
        for attack in HTTP_ATTACKS.values():
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(attack)
                assert connection.recv(12) == b"HTTP/1.1 500"
        assert processes(server.id) == before
        assert answers(server.grpc_url)
