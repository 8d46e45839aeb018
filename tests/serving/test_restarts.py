"""Servers that die, hang or are killed: what is started again, what is said, and that nothing is left."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from homomorph_client import HomomorphError, MorphClient
from homomorph_client.errors import ServerError
from homomorph_export.serving import keeper
from homomorph_export.serving.control import ControlError, GrpcControl
from homomorph_export.serving.ports import choose_ports
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("process", ["tritonserver", "python_backend_stub"])
def test_a_server_that_dies_or_hangs_is_started_again(
    sizes: Path,
    monkeypatch: pytest.MonkeyPatch,
    process: str,
    sent: signal.Signals,
    answers: Callable[[str], bool],
    processes: Callable[[str], dict[str, int]],
    eventually: Callable[..., bool],
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


def test_a_refused_key_does_not_hang_the_end(sizes: Path, processes: Callable[[str], dict[str, int]]) -> None:
    with TritonServer(sizes, models=["size"]) as server:
        server.keys = type(server.keys)()  # others than the server was started with
        with pytest.raises(ControlError, match="restricted"):
            server.load("size")
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 15
    assert processes(server.id) == {}


def test_a_process_that_runs_no_python_any_more(
    sizes: Path, tmp_path: Path, size_request: Callable[..., Any], answers: Callable[[str], bool]
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(sizes, repository)
    backend = Path(str(importlib.resources.files("homomorph_export"))) / "serving" / "backend"
    shutil.copy(backend / "heartbeat.py", repository / "size" / "1")
    hang = "import ctypes; x.size == 3 and ctypes.PyDLL(None).sleep(600)"  # with Python's lock
    program = (sizes / "size" / "1" / "model.py").read_text()
    program = program.replace("    def answer(self, x):", f"    def answer(self, x):\n        {hang}")
    initialize = "    def initialize(self, args):\n        import heartbeat\n        heartbeat.start_heartbeat()\n"
    program = program.replace("class TritonPythonModel:\n", f"class TritonPythonModel:\n{initialize}")
    (repository / "size" / "1" / "model.py").write_text(program)
    with TritonServer(repository, models=["size"]) as server:
        assert answers(server.grpc_url)
        with grpc.insecure_channel(server.grpc_url) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
            # Kept by a name: a call that nothing refers to is cancelled, perhaps before it is sent.
            call = GRPCInferenceServiceStub(channel).ModelInfer.future(size_request([1, 1, 1, 3], 3), timeout=30)
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


def test_restarts_have_a_bound_and_longer_and_longer_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    pauses_s: list[float] = []

    def run(command: list[str], settings: keeper.Settings, pipe: Any) -> int:
        pipe.was_ready = True
        runs.append(len(runs))
        return 137

    def wait(pause_s: float, pipe: Any) -> bool:
        pauses_s.append(pause_s)
        return False

    settings = keeper.Settings("", "", None, "", None, [*os.sched_getaffinity(0)], None, True, 1.0, 1.0)
    monkeypatch.setattr(keeper, "run", run)
    monkeypatch.setattr(keeper, "_pipe_closed_within", wait)
    monkeypatch.setattr(keeper, "remove_leftovers", lambda settings: None)
    monkeypatch.setattr(keeper.ctypes, "CDLL", lambda name: SimpleNamespace(prctl=lambda *words: 0))
    monkeypatch.setattr(sys, "argv", ["keeper.py", settings.to_json()])
    before = os.umask(0o077)  # as the keeper sets it
    try:
        assert keeper.main() == 137
    finally:
        os.umask(before)
    assert len(runs) == 1 + keeper.RESTARTS
    assert pauses_s == [0, 1, 3, 7, 15]
    assert pauses_s[-1] <= keeper.LONGEST_PAUSE_S


@pytest.mark.slow
def test_a_server_that_cannot_be_restarted_says_why(
    sizes: Path, tmp_path: Path, processes: Callable[[str], dict[str, int]]
) -> None:
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
    sizes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    process: str,
    sent: signal.Signals,
    processes: Callable[[str], dict[str, int]],
    eventually: Callable[..., bool],
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


def every_process(server: TritonServer, processes: Callable[[str], dict[str, int]]) -> dict[str, int]:
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
def test_every_process_is_killed_in_turn_under_load(
    blender_repository: Path,
    pictures: Any,
    processes: Callable[[str], dict[str, int]],
    eventually: Callable[..., bool],
) -> None:
    models = ("morph", "morph_stream")
    with TritonServer(blender_repository, models=models) as server:
        names = sorted(every_process(server, processes))
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
                killed = every_process(server, processes)
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
