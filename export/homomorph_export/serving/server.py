"""Start tritonserver, from the pip package nvidia-pytriton, on an exported model repository.

with TritonServer(Path("triton_repo")) as server:
    frames = MorphClient(server.grpc_url).morph("a.png", "b.png")
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from homomorph.progress import Report, silent
from homomorph_client.errors import ServerError
from homomorph_client.names import MORPH
from homomorph_client.shared_memory_key import key_file, write_key
from homomorph_export.flavours import GPU, LIBTORCH, PYTHON, Flavour
from homomorph_export.serving import keeper
from homomorph_export.serving.control import Control, ControlError, GrpcControl, HttpControl, Keys
from homomorph_export.serving.devices import choose_cores, visible_devices
from homomorph_export.serving.distribution import environment, find_backend, find_distribution, link_backends
from homomorph_export.serving.engine_choice import AUTO, TORCHSCRIPT, check_engine, measured_engines
from homomorph_export.serving.guard import build_guard, hide
from homomorph_export.serving.keeper_process import KeeperProcess
from homomorph_export.serving.log import ended_by, failure_reason
from homomorph_export.serving.ports import LOOPBACK, choose_ports
from homomorph_export.serving.repository_check import check_repository, is_safe, with_called_models
from homomorph_export.serving.tls import ServerTls

_LOGGER = logging.getLogger(__name__)
_ATTEMPTS = 3
"""Attempts to start: another process may take a free port while the models load."""
_STARVED = "boost::interprocess::lock_exception"
"""Triton's Python backend (24.10) sometimes dies of this error if it gets no processor time while it starts."""


class TritonServer:
    """A tritonserver; use it as a context manager, or call `start` and `stop`.

    The server always ends with the launching process, even if that is killed: see `keeper`. Clients may request morphs
    and metrics; all other calls are restricted to the launcher.
    """

    def __init__(
        self,
        repository: Path,
        *,
        models: Sequence[str] = (MORPH,),
        flavour: Flavour = PYTHON,
        engine: str = TORCHSCRIPT,
        backends: Path | None = None,
        host: str = LOOPBACK,
        grpc_port: int | None = None,
        http_port: int | None = None,
        metrics_port: int | None = None,
        cache_mib: int = 0,
        cores: int | None = None,
        gpus: Sequence[int] = (),
        tls: ServerTls | None = None,
        log: Path | None = None,
        restart: bool = False,
        start_timeout_s: float = 180.0,
        stop_timeout_s: float = 10.0,
    ) -> None:
        """Store the settings; `start` starts the server.

        Args:
            repository: folder that `homomorph export` wrote.
            models: models to load; the members of an ensemble are loaded too.
            flavour: which of the repository's configurations to use; it determines Triton's backend.
            engine: runtime that computes E and D of morphs: `torchscript`, `onnxruntime`, `openvino`, or `auto` for the
                fastest. Only `torchscript` computes on GPUs.
            backends: folder of Triton's backends, for flavours whose backend is not in nvidia-pytriton; None: the
                folder of NVIDIA's containers.
            host: address to listen on.
            grpc_port: None: pick a free one.
            http_port: port of Triton's HTTP protocol; None: no HTTP.
            metrics_port: None: pick a free one.
            cache_mib: size of the cache of encoded pictures, in MiB; 0: no cache.
            cores: number of cores for the server and its models; None: all.
            gpus: numbers of the GPUs; each gets instances of the models. Empty: the CPU.
            tls: PEM files that encrypt gRPC; HTTP and metrics then listen on 127.0.0.1 only. None: no encryption.
            log: file for the server's log; None: a temporary file, which is kept only after a failure.
            restart: whether to restart a server that dies, up to `keeper.RESTARTS` times within ten minutes.
            start_timeout_s: time limit for loading the models, in seconds.
            stop_timeout_s: time that requests on their way get at a stop, in seconds; then the server is killed.

        Raises:
            ServerError: `backends` is given for a flavour that needs none.
        """
        if backends and flavour is PYTHON:
            raise ServerError(
                "another folder of backends is for the flavours libtorch, onnx, openvino and aoti, not for python"
            )
        self.repository = repository
        self.models = tuple(models)
        self.flavour = flavour
        self.engine = engine
        """Runtime that computes E and D of morphs; `auto` until `choose_engine` has chosen."""
        self.engine_ms: dict[str, float] = {}
        """The times that `choose_engine` compared: milliseconds of E and D of a morph on one thread, by engine."""
        self.host = host
        self.ports: dict[str, int] = {}
        """Port of `grpc`, of `metrics` and, if it is on, of `http`."""
        self.keys = Keys()
        """Keys of the restricted calls."""
        self._backends = backends
        self._requested_ports = {"grpc": grpc_port, "metrics": metrics_port}
        if http_port is not None or tls:  # with TLS, the launcher's own calls use HTTP
            self._requested_ports["http"] = http_port
        self._http_is_open = http_port is not None
        self._cache_mib = cache_mib
        self._cores = cores
        self._gpus = tuple(gpus)
        self._tls = tls
        self._log_file = log
        self._restart = restart
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._running = False

    @property
    def grpc_url(self) -> str:
        """host:port for clients on this machine."""
        return self.url("grpc")

    @property
    def metrics_url(self) -> str:
        """host:port for clients on this machine."""
        return self.url("metrics")

    @property
    def is_encrypted(self) -> bool:
        """Whether gRPC is encrypted."""
        return self._tls is not None

    def url(self, service: str) -> str:
        """Return host:port of `grpc`, `metrics` or `http` for clients on this machine."""
        host, port = self.address(service)
        return f"{LOOPBACK if host == '0.0.0.0' else host}:{port}"

    def address(self, service: str) -> tuple[str, int]:
        """Return the host and port on which `grpc`, `metrics` or `http` listens."""
        return (LOOPBACK if self._tls and service != "grpc" else self.host), self.ports[service]

    def check(self) -> None:
        """Check that the repository can be served.

        Raises:
            ServerError: the repository lacks a model or the flavour's files, or the engine cannot be used.
        """
        check_repository(self.repository, self.models, self._configurations)
        check_engine(self.engine, self.repository, self.models, self.flavour, self._gpus)

    def choose_engine(self, report: Report = silent) -> None:
        """Choose the fastest engine if it is `auto`. Measures for some seconds, once on a machine.

        Args:
            report: called before a measurement.
        """
        if self.engine == AUTO:
            cores = len(choose_cores(self._cores))
            self.engine_ms = measured_engines(self.repository, cores=cores, report=report)
            self.engine = min(self.engine_ms, key=self.engine_ms.__getitem__, default=TORCHSCRIPT)

    def start(self) -> None:
        """Start the server and wait until it has loaded all models.

        Raises:
            ServerError: nvidia-pytriton or the flavour's backend is missing, the repository lacks a model or the
                flavour's files, the engine cannot be used, there are too few cores, a port is in use, or a model does
                not load within `start_timeout_s`.
        """
        self.check()
        self.choose_engine()
        distribution = find_distribution()
        backend = find_backend(self.flavour, self._backends)
        ports_may_change = None in self._requested_ports.values()
        for attempt in range(1, _ATTEMPTS + 1):
            self.ports = choose_ports(self.host, self._requested_ports)
            self._launch(distribution, backend)
            try:
                self._wait_until_ready()
                return
            except BaseException as error:
                # Loading takes seconds, in which another process may have taken a port that was free before.
                failed = isinstance(error, ServerError)
                lost_a_port = failed and "already in use" in str(error) and ports_may_change and attempt < _ATTEMPTS
                starved = failed and _STARVED in self._log() and attempt == 1
                if not (lost_a_port or starved):
                    self._end()
                    raise
                self._end(keep_log=False)
                if starved:
                    _LOGGER.warning(
                        "Triton's Python backend did not get to run and died (%s): starting again", _STARVED
                    )

    def wait(self, report: Callable[[str], None] = lambda line: None) -> None:
        """Wait until another thread stops the server, or until the server has ended and is not restarted.

        Args:
            report: called with a line each time that the server has died and is restarted.

        Raises:
            ServerError: the server ended by itself.
        """
        for line in iter(self._keeper.next_restart, b""):
            report(f"the server stopped by itself: {failure_reason(self._log(), int(line))}; it is started again")
        code = self._keeper.wait()
        if not self._running:  # another thread has called `stop`
            return
        if code < 0:
            reason = f"the server's keeper stopped: {ended_by(-code)} (log: {self.log_path})"
        else:
            reason = f"the server stopped by itself (exit code {code}): {self._reason(code)}"
        self._end()
        raise ServerError(reason)

    def loaded(self) -> list[str]:
        """Return the names of the models that are loaded, members of ensembles included.

        Raises:
            ControlError: the server does not answer.
        """
        return self._control.loaded()

    def load(self, model: str) -> None:
        """Load a model's newest version; requests on their way finish with the old one.

        Raises:
            ControlError: the new version does not load; the old one stays in use.
        """
        self._control.load(model)

    def stop(self) -> None:
        """Let requests on their way finish, stop the server and remove its files; no effect if it does not run."""
        if self._running:
            self._end(keep_log=False, idle=self._drain())

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _configurations(self) -> Flavour:
        return GPU if self._gpus else self.flavour

    @property
    def _shm_prefix(self) -> str:
        """Prefix of the names of the server's files in shared memory."""
        return f"{self.id}_"

    @property
    def _control(self) -> Control:
        url = self.url("http" if self._tls else "grpc")
        return HttpControl(url, self.keys.control) if self._tls else GrpcControl(url, self.keys.control)

    def _launch(self, distribution: Path, backend: Path | None) -> None:
        """Start the keeper, which starts the server."""
        cores = choose_cores(self._cores)
        guard = build_guard()
        self._scratch = _scratch_folder()
        try:
            self._start_keeper(distribution, backend, guard, cores)
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            key_file(self.ports["grpc"]).unlink(missing_ok=True)
            raise
        self._running = True

    def _start_keeper(
        self, distribution: Path, backend: Path | None, guard: Path | None, cores: tuple[int, ...]
    ) -> None:
        with _open_log(self._log_file) as log:
            self.log_path = Path(log.name)
            self.id = f"homomorph_{secrets.token_hex(4)}"
            self.keys = Keys()
            host, port = self.address("metrics")
            heartbeats = self._scratch / "heartbeats"
            heartbeats.mkdir()
            settings = keeper.Settings(
                shm_prefix=self._shm_prefix,
                scratch=str(self._scratch),
                heartbeats=str(heartbeats),
                key_file=str(self._write_shared_memory_key()),
                temporary_log=log.name if self._log_file is None else None,
                cores=list(cores),
                metrics=(LOOPBACK if host == "0.0.0.0" else host, port),
                restart=self._restart,
                stop_timeout_s=self._stop_timeout_s,
                start_timeout_s=self._start_timeout_s,
            )
            restrictions = self.keys.arguments(http="http" in self.ports, http_is_open=self._http_is_open)
            restrictions, hidden_values = hide(restrictions) if guard else (restrictions, {})
            command = self._command(distribution, backend, guard, restrictions)
            self._keeper = KeeperProcess(
                settings,
                command,
                log=log,
                environment=environment(distribution, backend)
                | hidden_values
                | {
                    "HOMOMORPH_CACHE_MIB": str(self._cache_mib),
                    "HOMOMORPH_ENGINE": self.engine,
                    "HOMOMORPH_HEARTBEATS": str(heartbeats),
                    "CUDA_VISIBLE_DEVICES": visible_devices(self._gpus, os.environ.get("CUDA_VISIBLE_DEVICES")),
                },
            )

    def _command(
        self, distribution: Path, backend: Path | None, guard: Path | None, restrictions: list[str]
    ) -> list[str]:
        """Return the words of tritonserver's command, and create the files that it names in the scratch folder."""
        backends = self._scratch / "backends"
        backends.mkdir()
        link_backends(distribution, backends)
        if backend:
            (backends / backend.name).symlink_to(backend.resolve())
        libraries = [*([guard] if guard else []), *operator_libraries(self.repository, self.flavour)]
        preloaded = ":".join(str(self._safe(library, library.name)) for library in libraries)
        addresses = {service: self.address(service) for service in self.ports}
        flavour = self._configurations
        return [
            *(["env", f"LD_PRELOAD={preloaded}"] if preloaded else []),
            str(distribution / "bin" / "tritonserver"),
            f"--id={self.id}",
            *([] if flavour is PYTHON else [f"--model-config-name={flavour.name}"]),
            f"--model-repository={self._safe(self.repository.resolve(), 'repository')}",
            f"--backend-directory={backends}",
            f"--cache-directory={distribution / 'caches'}",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in with_called_models(self.repository, self.models)),
            # The configurations are complete. Completing them would start each Python model a second time.
            "--disable-auto-complete-config",
            *([f"--cache-config=local,size={self._cache_mib << 20}"] if self._cache_mib else []),
            *(self._tls.arguments() if self._tls else []),
            *restrictions,
            f"--exit-timeout-secs={max(1, int(self._stop_timeout_s))}",
            f"--allow-http={str('http' in addresses).lower()}",
            *(f"--{service}-address={host}" for service, (host, _) in addresses.items()),
            *(f"--{service}-port={port}" for service, (_, port) in addresses.items()),
        ]

    def _safe(self, path: Path, name: str) -> Path:
        """Return the path, or a link to it in the scratch folder if the path is not safe for a shell."""
        if is_safe(path):
            return path
        link = self._scratch / name
        link.symlink_to(path)
        return link

    def _write_shared_memory_key(self) -> Path:
        """Write the key for shared memory into the file that clients of the same user read; return its path."""
        try:
            return write_key(self.ports["grpc"], self.keys.shared_memory)
        except OSError as error:
            _LOGGER.warning("clients cannot share memory with this server: its key cannot be written (%s)", error)
            return key_file(self.ports["grpc"])

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not self._is_ready():
            if (code := self._keeper.exit_code()) is not None:
                raise ServerError(f"the server did not start: {self._reason(code)}")
            if time.monotonic() > deadline:
                limit = f"{self._start_timeout_s:g} s"
                raise ServerError(f"the server was not ready within {limit} (log: {self.log_path})")
            time.sleep(0.1)
        self._keeper.mark_ready()

    def _is_ready(self) -> bool:
        """Whether this server, not another one on its ports, is ready. Its metrics start last."""
        try:
            return self._control.ready_id() == self.id and self._metrics_answer()
        except ControlError:
            return False

    def _metrics_answer(self) -> bool:
        with contextlib.closing(http.client.HTTPConnection(self.metrics_url, timeout=2)) as connection:
            try:
                connection.request("GET", "/metrics")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    def _drain(self) -> bool:
        """Unload the models, so that no new requests are accepted; return whether all requests have finished in time.

        On a plain stop, tritonserver (24.10) refuses the remaining steps of ensembles that have begun. Unloading an
        ensemble lets its requests finish while its members are still loaded.
        """
        deadline = time.monotonic() + self._stop_timeout_s
        with contextlib.suppress(ControlError):  # the server has crashed, hangs or refuses
            for model in self.models:
                self._control.unload(model)
            while time.monotonic() < deadline:
                states = self._control.states()
                if all(states.get(model, "UNAVAILABLE") == "UNAVAILABLE" for model in self.models):
                    return True  # all models are unloaded and have answered their last requests
                time.sleep(0.05)
        return False

    def _reason(self, code: int) -> str:
        return f"{failure_reason(self._log(), code)} (log: {self.log_path})"

    def _log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _end(self, *, keep_log: bool = True, idle: bool = False) -> None:
        """End the server and remove its files; a second call has no effect."""
        if self._running:
            self._running = False
            self._keeper.end(keep_log=keep_log, idle=idle)


def _open_log(path: Path | None) -> IO[bytes]:
    if path is None:
        return tempfile.NamedTemporaryFile(prefix="homomorph-triton-", suffix=".log", delete=False)
    try:
        return path.open("wb")
    except OSError as error:
        raise ServerError(f"the log {path} cannot be written: {error.strerror}") from error


def _scratch_folder() -> Path:
    """Create a temporary folder whose path is safe for a shell; Triton's Python backend passes it to one.

    Raises:
        ServerError: no temporary folder has a safe path.
    """
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if is_safe(Path(parent)) and os.access(parent, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="homomorph-triton-", dir=parent))
    raise ServerError(f"{tempfile.gettempdir()} cannot be passed to a shell, nor /tmp be used: set TMPDIR to a folder")


def operator_libraries(repository: Path, flavour: Flavour) -> list[Path]:
    """Return the operator's library if it must be preloaded into tritonserver.

    The libtorch backend cannot load a library of operators. Python models load it themselves; loading it twice would
    end their processes, so the result is empty for them.
    """
    libraries = sorted(repository.resolve().glob("*/1/libhomomorph_ops.so"))  # copies of one library; one is enough
    return libraries[:1] if flavour is LIBTORCH else []
