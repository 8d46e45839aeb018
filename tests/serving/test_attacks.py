"""Who reaches a server's ports can ask for morphs and do nothing else; the model is tiny and needs no torch."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from homomorph_client import HomomorphError, MorphClient
from homomorph_client.errors import ServerError
from homomorph_client.shared_memory_key import key_file
from homomorph_export.serving import keeper
from homomorph_export.serving.control import ControlError, GrpcControl
from homomorph_export.serving.ports import choose_ports
from homomorph_export.serving.server import TritonServer
from homomorph_export.serving.tls import ServerTls

pytestmark = pytest.mark.server

CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "X" data_type: TYPE_UINT8 dims: [-1, -1, 3] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ kind: KIND_CPU }]
dynamic_batching { priority_levels: 2 default_priority_level: 2 }
"""
MODEL = """
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
    """A repository of one model, `size`, which answers with the number of elements of X."""
    repository = tmp_path_factory.mktemp("sizes") / "repository"
    (repository / "size" / "1").mkdir(parents=True)
    (repository / "size" / "config.pbtxt").write_text(CONFIG)
    (repository / "size" / "1" / "model.py").write_text(MODEL)
    return repository


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


def request(shape: list[int], size: int, **parameters: int) -> messages.ModelInferRequest:
    """Return a request for `size` with so many bytes of X."""
    message = messages.ModelInferRequest(model_name="size")
    message.inputs.add(name="X", datatype="UINT8", shape=shape)
    message.raw_input_contents.append(bytes(size))
    for name, value in parameters.items():
        message.parameters[name].int64_param = value
    return message


def answers(url: str) -> bool:
    """Return whether a server answers a good request."""
    with grpc.insecure_channel(url, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            GRPCInferenceServiceStub(channel).ModelInfer(request([1, 8, 8, 3], 192), timeout=5)
        except grpc.RpcError:
            return False
    return True


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait until a condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes(word: str) -> dict[str, int]:
    """Return the keeper, the server and the model's process of a server in whose command is a word."""
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
def test_strangers_control_nothing(server: TritonServer, stub: Any, method: str) -> None:
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


def test_keys_are_not_in_the_list_of_processes(server: TritonServer) -> None:
    found = processes(server.id)
    assert set(found) == {"keeper.py", "tritonserver", "python_backend_stub"}
    for process in found.values():
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        assert server.keys.control.encode() not in command
        assert server.keys.shared_memory.encode() not in command


@pytest.mark.parametrize("kind", ["missing", "no library"])
def test_a_server_whose_guard_is_not_loaded_does_not_start(
    sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
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
    sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a:b"))
    with TritonServer(sizes, models=["size"]) as server:
        assert "librequest_guard.so" in Path(f"/proc/{processes(server.id)['tritonserver']}/maps").read_text()
        assert server.loaded() == ["size"], "the control key is the launcher's"


def test_other_users_cannot_read_its_memory(server: TritonServer) -> None:
    files = [*Path("/dev/shm").glob(f"{server.id}_*"), key_file(server.ports["grpc"])]
    assert len(files) > 1
    assert [path.name for path in files if path.stat().st_mode & 0o077] == []


def test_a_refused_key_does_not_hang_the_end(sizes: Path) -> None:
    with TritonServer(sizes, models=["size"]) as server:
        server.keys = type(server.keys)()  # others than the server was started with
        with pytest.raises(ControlError, match="restricted"):
            server.load("size")
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 15
    assert processes(server.id) == {}


@pytest.mark.parametrize(
    ("shape", "size"),
    [([1, -8, -8, 3], 192), ([1, 2**62, 4, 3], 0), ([1, 2**62, 0, 3], 0), ([-2, -8, 4, 3], 192)],
    ids=str,
)
def test_shapes_that_end_the_python_backend(server: TritonServer, stub: Any, shape: list[int], size: int) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request(shape, size), timeout=5)
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
    server: TritonServer, stub: Any, inputs: dict[str, list[int]], refused: bool
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


length = st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9) | st.sampled_from([2**31, 2**32, 2**61, 2**62, -(2**62)])


@pytest.mark.soak
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(length, max_size=3).map(lambda lengths: [1, *lengths, 3]) | st.lists(length, max_size=5))
def test_any_shape_gets_an_answer(server: TritonServer, stub: Any, shape: list[int]) -> None:
    product = 1
    for each in shape:
        product *= each
    wrapped = product % 2**64  # as the server's own arithmetic has it
    call = stub.ModelInfer.future(request(shape, wrapped if wrapped < 2**20 else 0), timeout=5)
    assert call.code() in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}, call.details()
    assert answers(server.grpc_url)


@pytest.mark.parametrize(
    "parameters", [{"priority": 3}, {"priority": -1}, {"timeout": -1}, {"timeout": 2**62}], ids=str
)
def test_priorities_and_timeouts_out_of_range(stub: Any, parameters: dict[str, int]) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request([1, 8, 8, 3], 192, **parameters), timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(parameters)) in refused.value.details()


@pytest.mark.parametrize("folder", ["a b", "$(touch ran)", "it's", 'say "x"', "semi;colon", "back`tick`"])
def test_paths_that_mean_something_to_a_shell(
    sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
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


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("process", ["tritonserver", "python_backend_stub"])
def test_a_server_that_dies_or_hangs_is_started_again(
    sizes: Path, monkeypatch: pytest.MonkeyPatch, process: str, sent: signal.Signals
) -> None:
    reports: list[str] = []
    with TritonServer(sizes, models=["size"], restart=True) as server:

        def wait() -> None:
            with contextlib.suppress(ServerError):  # at the end, below
                server.wait(reports.append)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        first = processes(server.id)
        start = time.monotonic()
        os.kill(first[process], sent)
        assert eventually(lambda: processes(server.id).get("tritonserver") != first["tritonserver"], 15)
        assert eventually(lambda: answers(server.grpc_url), 10)
        print(f"{process} {sent.name}: answers again after {time.monotonic() - start:.1f} s")
        assert server.loaded() == ["size"], "the keys are the same"
        assert eventually(lambda: len(reports) == 1, 5)
        assert "it is started again" in reports[0]
    waiting.join(timeout=20)
    assert processes(server.id) == {}


HTTP_HEAD = b"POST /v2/models/size/infer HTTP/1.1\r\nHost: x\r\n"
HTTP_ATTACKS = {
    "nested": HTTP_HEAD + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000,
    "chunked": HTTP_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 600_000 + b"0\r\n\r\n",
}
"""CVE-2025-23311 and CVE-2025-23310: both overflow the usual stack of a thread of tritonserver 24.10."""


def test_http_requests_that_overflow_a_stack(sizes: Path) -> None:
    port = choose_ports("127.0.0.1", {"http": None})["http"]
    with TritonServer(sizes, models=["size"], http_port=port) as server:
        before = processes(server.id)
        for attack in HTTP_ATTACKS.values():
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(attack)
                assert connection.recv(12) == b"HTTP/1.1 500"
        assert processes(server.id) == before
        assert answers(server.grpc_url)


def test_a_process_that_runs_no_python_any_more(sizes: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(sizes, repository)
    backend = Path(str(importlib.resources.files("homomorph_export"))) / "serving" / "backend"
    shutil.copy(backend / "heartbeat.py", repository / "size" / "1")
    hang = "import ctypes; x.size == 3 and ctypes.PyDLL(None).sleep(600)"  # with Python's lock
    program = MODEL.replace("    def answer(self, x):", f"    def answer(self, x):\n        {hang}")
    initialize = "    def initialize(self, args):\n        import heartbeat\n        heartbeat.start_heartbeat()\n"
    program = program.replace("class TritonPythonModel:\n", f"class TritonPythonModel:\n{initialize}")
    (repository / "size" / "1" / "model.py").write_text(program)
    with TritonServer(repository, models=["size"]) as server:
        assert answers(server.grpc_url)
        with grpc.insecure_channel(server.grpc_url) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
            # Kept by a name: a call that nothing refers to is cancelled, perhaps before it is sent.
            call = GRPCInferenceServiceStub(channel).ModelInfer.future(request([1, 1, 1, 3], 3), timeout=30)
            start = time.monotonic()
            with pytest.raises(ServerError, match="the process of a model has run no Python for 10 s"):
                server.wait()
            call.cancel()
        assert time.monotonic() - start < 15


def test_one_silent_check_ends_no_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    checks = [{1: "silent"}, {}, {2: "silent"}, {1: "silent"}, {1: "silent"}]
    left = iter(checks)
    monkeypatch.setattr(keeper, "_failed_models", lambda server, heartbeats: next(left))
    monkeypatch.setattr(keeper.select, "select", lambda *_: ([], [], []))
    settings = keeper.Settings("", "", "heartbeats", "", None, [], None, True, 1.0, 1.0)
    assert not keeper._wait_for_end(1, -1, settings, keeper._LauncherPipe(), None)
    assert list(left) == [], "the last two are of one process"
    assert capsys.readouterr().err == "error: silent\n"


def test_restarts_have_a_bound(sizes: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(sizes, repository)
    with TritonServer(repository, models=["size"], restart=True) as server:
        (repository / "size" / "1" / "model.py").write_text("raise OSError('no such weights')")
        reports: list[str] = []
        os.kill(processes(server.id)["tritonserver"], signal.SIGKILL)
        with pytest.raises(ServerError, match=r"failed to load: .*no such weights"):
            server.wait(reports.append)
        assert len(reports) == keeper.RESTARTS
    assert processes(server.id) == {}


_SERVES = "from homomorph_cli.main import run; run()"


@pytest.mark.parametrize("sent", [signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL], ids=lambda sent: sent.name)
@pytest.mark.parametrize("process", ["serve", "keeper.py"])
def test_signals_leave_nothing(
    sizes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: str, sent: signal.Signals
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    ports = choose_ports("127.0.0.1", {"grpc": None, "metrics": None})
    words = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    command = [sys.executable, "-c", _SERVES, "serve", "--repository", str(sizes), "--model", "size", *words]
    before = set(Path("/dev/shm").glob("homomorph_*"))
    serve = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A script's background and nohup ignore some of these signals, and processes started there do too.
        preexec_fn=None if sent == signal.SIGKILL else lambda: signal.signal(sent, signal.SIG_DFL),
    )
    try:
        assert serve.stdout is not None
        assert "serving size" in serve.stdout.readline()
        port = f"--grpc-port={ports['grpc']}"
        os.kill(serve.pid if process == "serve" else processes(port)["keeper.py"], sent)
        _, errors = serve.communicate(timeout=40)
    finally:
        serve.kill()
    assert eventually(lambda: processes(port) == {}, 20)
    assert eventually(lambda: set(Path("/dev/shm").glob("homomorph_*")) <= before, 5)
    logs = [path for path in temporary.iterdir() if path.suffix == ".log"]
    assert list(temporary.iterdir()) == logs
    if process == "keeper.py":
        assert f"the server's keeper stopped: it was ended by {sent.name}" in errors
        assert (serve.returncode, errors.count("\n")) == (2, 1)
    else:
        assert logs == []


def test_control_without_a_server() -> None:
    with pytest.raises(ControlError):
        GrpcControl("127.0.0.1:9", "key").ready_id()


def every_process(server: TritonServer) -> dict[str, int]:
    """Return tritonserver and the processes of its models, by their models' names."""
    found = {"tritonserver": processes(server.id)["tritonserver"]}
    for child in keeper.children(found["tritonserver"]):
        words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        if "python_backend_stub" in words[0]:
            found[Path(words[1]).parents[1].name] = child
    return found


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_every_process_is_killed_in_turn_under_load(blender_repository: Path, pictures: Any) -> None:
    models = ("morph", "morph_stream")
    with TritonServer(blender_repository, models=models) as server:
        names = sorted(every_process(server))
    assert len(names) > 3
    pauses_s = {}
    for name in names:
        stopped = threading.Event()
        answered_s: list[float] = []

        def ask(server: TritonServer, stopped: threading.Event, answered_s: list[float]) -> None:
            with MorphClient(server.grpc_url, timeout_s=20) as client:
                while not stopped.is_set():
                    with contextlib.suppress(HomomorphError):
                        if len(client.morph(*pictures, steps=2)) == len(list(client.stream(*pictures, steps=2))) == 2:
                            answered_s.append(time.monotonic())

        with (
            TritonServer(blender_repository, models=models, restart=True) as server,
            ThreadPoolExecutor(4) as pool,
        ):
            for _ in range(4):
                pool.submit(ask, server, stopped, answered_s)
            try:
                assert eventually(lambda: len(answered_s) > 10, 60)  # noqa: B023  (called at once)
                killed = every_process(server)
                os.kill(killed[name], signal.SIGKILL)
                killed_s = time.monotonic()
                assert eventually(lambda: killed["tritonserver"] not in processes(server.id).values(), 20)  # noqa: B023
                new_s = time.monotonic()
                assert eventually(lambda: answered_s[-1] > new_s, 60)  # noqa: B023
                pauses_s[name] = answered_s[-1] - killed_s
                print(f"{name} killed: answers again after {pauses_s[name]:.1f} s", file=sys.stderr)
            finally:
                stopped.set()
    assert max(pauses_s.values()) < 10
