"""Starting and stopping the real tritonserver, and what goes wrong with it; the model is tiny and needs no torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient

from homomorph.models.config import ModelConfig
from homomorph_client.errors import ServerError
from homomorph_client.version import install_hint
from homomorph_export.catalogue import morph_models
from homomorph_export.flavours import LIBTORCH, ONNX, PYTHON
from homomorph_export.repository import write_description
from homomorph_export.serving import server as server_module
from homomorph_export.serving.ports import choose_ports
from homomorph_export.serving.server import TritonServer, operator_libraries
from homomorph_export.serving.tls import ServerTls

CONFIG = """
backend: "python"
max_batch_size: 4
input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ kind: KIND_CPU }]
"""
MODEL = """
class TritonPythonModel:
    def initialize(self, args):
        {initialize}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of a model `good`, which loads, and a model `bad`, which does not."""
    for name, initialize in {"good": "pass", "bad": "raise OSError('no such weights')"}.items():
        (tmp_path / "repository" / name / "1").mkdir(parents=True)
        (tmp_path / "repository" / name / "config.pbtxt").write_text(CONFIG)
        (tmp_path / "repository" / name / "1" / "model.py").write_text(MODEL.format(initialize=initialize))
    return tmp_path / "repository"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty at first, of this process and of those that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def processes(repository: Path) -> dict[int, str]:
    """Return the command lines of the keeper, server and stubs that work on a repository."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended meanwhile
            continue
        if f"{repository}" in command and "homomorph_cli" not in command:
            found[int(folder.name)] = command
    return found


def shared_memory() -> set[str]:
    """Return the regions of all servers of ours."""
    return {path.name for path in Path("/dev/shm").glob("homomorph_*")}


@pytest.mark.server
def test_nothing_is_left_after_stopping(repository: Path, temporary: Path) -> None:
    before = shared_memory()
    with TritonServer(repository, models=["good"]) as server:
        assert len(processes(repository)) == 3, "keeper, server and stub"
        assert shared_memory() > before
        assert re.fullmatch(r"127\.0\.0\.1:\d+", server.grpc_url)
        log = server.log_path
        assert "successfully loaded 'good'" in log.read_text()
    assert processes(repository) == {}
    assert shared_memory() <= before
    assert list(temporary.iterdir()) == []
    server.stop()  # again, to no effect


@pytest.mark.server
def test_a_server_and_its_models_have_the_cores_that_they_are_given(repository: Path, tmp_path: Path) -> None:
    tell = f"import os; open({str(tmp_path / 'cores')!r}, 'w').write(str(sorted(os.sched_getaffinity(0))))"
    (repository / "good" / "1" / "model.py").write_text(MODEL.format(initialize=tell))
    here = sorted(os.sched_getaffinity(0))
    for cores, expected in ((1, here[:1]), (None, here)):
        with TritonServer(repository, models=["good"], cores=cores):
            assert (tmp_path / "cores").read_text() == str(expected)


def test_more_cores_than_there_are(repository: Path) -> None:
    with pytest.raises(ServerError, match="which is what there is here, not 10000"):
        TritonServer(repository, models=["good"], cores=10_000).start()


@pytest.mark.server
def test_model_that_does_not_load(repository: Path, temporary: Path) -> None:
    message = r"model 'bad' failed to load: .*no such weights \(log: (.*)\)$"
    with pytest.raises(ServerError, match=message) as caught, TritonServer(repository, models=["good", "bad"]):
        pass
    assert "\n" not in str(caught.value)
    log = Path(re.findall(message, str(caught.value))[0])
    assert "no such weights" in log.read_text()
    assert list(temporary.iterdir()) == [log]
    assert processes(repository) == {}


@pytest.mark.server
def test_crash_is_reported_and_leaves_nothing(repository: Path, temporary: Path) -> None:
    before = shared_memory()
    with TritonServer(repository, models=["good"]) as server:
        triton = next(
            pid
            for pid, command in processes(repository).items()
            if "bin/tritonserver --" in command and "keeper" not in command
        )
        os.kill(triton, signal.SIGKILL)
        with pytest.raises(ServerError, match=r"stopped by itself \(exit code 137\)"):
            server.wait()
        assert processes(repository) == {}
        assert shared_memory() <= before


@pytest.mark.server
def test_launcher_that_is_killed_leaves_nothing(
    repository: Path, temporary: Path, eventually: Callable[..., bool]
) -> None:
    before = shared_memory()
    code = (
        "import sys, time, pathlib; from homomorph_export.serving.server import TritonServer\n"
        "server = TritonServer(pathlib.Path(sys.argv[1]), models=['good'])\n"
        "server.start(); print('ready', flush=True); time.sleep(600)"
    )
    # Linked to under another name, so that `processes` does not count the launcher itself.
    link = temporary / "link"
    link.symlink_to(repository)
    launcher = subprocess.Popen([sys.executable, "-c", code, str(link)], stdout=subprocess.PIPE, text=True)
    try:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        assert len(processes(repository)) == 3
    finally:
        launcher.kill()
        launcher.communicate()
    assert eventually(lambda: not processes(repository))
    assert shared_memory() <= before


@pytest.mark.server
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_serve_command_stops_on_signals(repository: Path, temporary: Path, stop: signal.Signals) -> None:
    before = shared_memory()
    ports = choose_ports("127.0.0.1", {"grpc": None, "metrics": None})
    command = [sys.executable, "-c", "from homomorph_cli.main import run; run()", "serve", "--model", "good"]
    command += ["--repository", str(repository)]
    command += [word for service, port in ports.items() for word in (f"--{service}-port", str(port))]
    serve = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in a script's background, SIGINT is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert serve.stdout is not None
        assert "serving good" in serve.stdout.readline()
        assert f"127.0.0.1:{ports['grpc']}" in serve.stdout.readline()
        assert len(processes(repository)) == 3
        serve.send_signal(stop)
        _, errors = serve.communicate(timeout=60)
    finally:
        serve.kill()
    assert (serve.returncode, "Traceback" in errors) == (0, False)
    assert processes(repository) == {}
    assert shared_memory() <= before
    assert list(temporary.iterdir()) == []


@pytest.mark.server
def test_port_lost_while_loading_is_replaced(
    repository: Path, temporary: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices: list[dict[str, int]] = []

    def unlucky_at_first(host: str, asked: dict[str, int | None]) -> dict[str, int]:
        ports = choose_ports(host, asked)
        choices.append(ports if choices else {**ports, "metrics": taken_port})
        return choices[-1]

    monkeypatch.setattr(server_module, "choose_ports", unlucky_at_first)
    with TritonServer(repository, models=["good"]) as server:
        assert server.ports == choices[1]
    assert list(temporary.iterdir()) == []


@pytest.mark.server
@pytest.mark.parametrize("times", [1, 2])
def test_a_python_backend_that_is_starved_gets_a_second_start(
    repository: Path, temporary: Path, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    starts = temporary.parent / "starts"
    die = (
        f"import os, sys; starts = open({str(starts)!r}, 'a'); starts.write('x'); starts.close()\n"
        f"        if os.path.getsize({str(starts)!r}) <= {times}:\n"
        "            line = \"terminate called after throwing an instance of 'boost::interprocess::lock_exception'\"\n"
        "            print(line, file=sys.stderr, flush=True); os.abort()"
    )
    (repository / "good" / "1" / "model.py").write_text(MODEL.format(initialize=die))
    server = TritonServer(repository, models=["good"])
    if times == 1:
        with server:
            pass
    else:
        with pytest.raises(ServerError, match="did not start"):
            server.start()
    assert starts.read_text() == "xx"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert processes(repository) == {}


@pytest.mark.server
def test_start_that_takes_too_long(repository: Path, temporary: Path) -> None:
    (repository / "good" / "1" / "model.py").write_text(MODEL.format(initialize="import time; time.sleep(60)"))
    server = TritonServer(repository, models=["good"], start_timeout_s=1, stop_timeout_s=1)
    with pytest.raises(ServerError, match="not ready within 1 s"):
        server.start()
    assert processes(repository) == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no model repository .*homomorph export"),
        (lambda path: path.mkdir(), "holds no model.*homomorph export"),
        (lambda path: (path / "other").mkdir(parents=True), "holds no model"),
    ],
    ids=["missing", "empty", "no-configuration"],
)
def test_no_repository(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "triton_repo")
    with pytest.raises(ServerError, match=message):
        TritonServer(tmp_path / "triton_repo").start()


def test_a_repository_without_weights(tmp_path: Path) -> None:
    """As version control has it."""
    config = ModelConfig({"glasses": ("round_glasses",)})
    for model in morph_models(config, labels=False):
        write_description(tmp_path / model.name, model, method="homomorph")
    with pytest.raises(ServerError, match="has configurations but no weights: write them with `homomorph export`"):
        TritonServer(tmp_path).start()


def test_unknown_model(repository: Path) -> None:
    with pytest.raises(ServerError, match="no model 'morph': it has bad, good"):
        TritonServer(repository).start()


@pytest.fixture
def no_triton_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Triton's own folder would be."""
    monkeypatch.setenv("HOMOMORPH_TRITON", str(tmp_path / "triton"))
    return tmp_path / "triton"


def test_without_pytriton(repository: Path, no_triton_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServerError, match=re.escape(f"to serve, {install_hint('serve')}")):
        TritonServer(repository, models=["good"]).start()


def test_python_without_a_backend(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "99", "0"))
    with pytest.raises(ServerError, match=r"no Python backend for Python 3\.99: use 3\.10, 3\.11 or 3\.12"):
        TritonServer(repository, models=["good"]).start()


def test_numpy_that_the_python_backend_does_not_know(
    repository: Path, no_triton_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.5.2")
    with pytest.raises(ServerError, match=r"does not work with numpy 2\.5\.2: pip install 'numpy<2'"):
        TritonServer(repository, models=["good"]).start()


def test_log_that_cannot_be_written(repository: Path, temporary: Path) -> None:
    with pytest.raises(ServerError, match=r"the log .* cannot be written"):
        TritonServer(repository, models=["good"], log=repository / "missing" / "a.log").start()
    assert list(temporary.iterdir()) == []


def test_the_operator_is_preloaded_for_libtorch_alone(repository: Path) -> None:
    library = repository / "good" / "1" / "libhomomorph_ops.so"
    assert operator_libraries(repository, LIBTORCH) == []
    library.touch()
    assert operator_libraries(repository, LIBTORCH) == [library.resolve()]
    assert operator_libraries(repository, ONNX) == operator_libraries(repository, PYTHON) == []


@pytest.mark.server
def test_flavour_is_what_triton_loads(repository: Path, temporary: Path) -> None:
    """Both models are Python models, one of them under another flavour's name: no other backend is in the package."""
    backend = temporary / "backends" / ONNX.backend
    backend.mkdir(parents=True)
    (backend / ONNX.library).touch()
    (repository / "good" / "configs").mkdir()
    (repository / "good" / ONNX.config_file).write_text(CONFIG.replace("max_batch_size: 4", "max_batch_size: 3"))
    (repository / "bad" / "1" / "model.py").write_text(MODEL.format(initialize="pass"))
    with (
        TritonServer(repository, models=["good", "bad"], flavour=ONNX, backends=backend.parent) as server,
        InferenceServerClient(server.grpc_url) as client,
    ):
        sizes = {name: client.get_model_config(name).config.max_batch_size for name in ("good", "bad")}
    assert sizes == {"good": 3, "bad": 4}, "Triton takes the default where a model has no configuration of the flavour"


@pytest.mark.server
def test_two_starts_on_the_same_ports(repository: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is late: the ports were free when it looked. It must not take the first server for its own."""
    with TritonServer(repository, models=["good"]) as first:
        monkeypatch.setattr(server_module, "choose_ports", lambda host, asked: dict(first.ports))
        ports = {f"{service}_port": port for service, port in first.ports.items()}
        with pytest.raises(ServerError, match="in use"):
            TritonServer(repository, models=["good"], **ports).start()  # type: ignore[arg-type]
        assert first.loaded() == ["good"]


@pytest.mark.parametrize("wrong", ["key", "certificate", "other", "authority"])
def test_tls_files_that_are_none(tmp_path: Path, certificates: Any, wrong: str) -> None:
    certificate, key = certificates.server
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    files = {
        "key": (certificate, junk, None),
        "certificate": (junk, key, None),
        "other": (certificate, certificates.client[1], None),
        "authority": (certificate, key, junk),
    }[wrong]
    with pytest.raises(ServerError, match="in PEM format") as refused:
        ServerTls(*files)
    assert "\n" not in str(refused.value)


def test_backends_are_for_other_flavours(homomorph: Callable[..., Any], repository: Path) -> None:
    outcome = homomorph("serve", "--repository", repository, "--model", "good", "--backends", repository)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "for the flavours libtorch, onnx, openvino and aoti, not for python" in outcome.err


@pytest.mark.server
def test_a_server_that_is_open_to_the_network_warns_and_loads_new_versions(repository: Path, temporary: Path) -> None:
    ports = choose_ports("127.0.0.1", {"grpc": None, "metrics": None})
    command = [sys.executable, "-c", "from homomorph_cli.main import run; run()", "serve", "--model", "good"]
    command += ["--repository", str(repository), "--host", "0.0.0.0", "--start-timeout", "100"]
    command += [word for service, port in ports.items() for word in (f"--{service}-port", str(port))]
    serve = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert serve.stdout is not None
        assert serve.stderr is not None
        assert "warning: without TLS, everybody who reaches 0.0.0.0 can use this server" in serve.stderr.readline()
        assert "serving good" in serve.stdout.readline()
        assert f"gRPC 127.0.0.1:{ports['grpc']}" in serve.stdout.readline()
        assert f"kill -USR1 {serve.pid}" in serve.stdout.readline()
        shutil.copytree(repository / "good" / "1", repository / "good" / "2")
        serve.send_signal(signal.SIGUSR1)
        assert "loaded good again" in serve.stderr.readline()
        with InferenceServerClient(f"127.0.0.1:{ports['grpc']}") as client:
            assert client.is_model_ready("good", "2")
            assert not client.is_model_ready("good", "1")
        shutil.copytree(repository / "bad" / "1", repository / "good" / "3")
        serve.send_signal(signal.SIGUSR1)
        assert "good goes on as it was, its newest version does not load" in serve.stderr.readline()
        serve.send_signal(signal.SIGTERM)
        serve.communicate(timeout=60)
    finally:
        serve.kill()
    assert serve.returncode == 0
