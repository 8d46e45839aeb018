"""The real tritonserver, started out of the pip package nvidia-pytriton on a model repository of ours.

with TritonServer(Path("triton_repo")) as server:
    frames = MorphClient(server.grpc_url).morph("a.png", "b.png")
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from homomorph_client.errors import ServerError
from homomorph_client.names import MORPH
from homomorph_export.contract import ASKED
from homomorph_export.flavours import GPU, LIBTORCH, PYTHON, Flavour
from homomorph_export.serving import keeper
from homomorph_export.serving.devices import choose_cores, visible_devices
from homomorph_export.serving.distribution import environment, find_backend, find_distribution, link_backends
from homomorph_export.serving.ports import choose_ports

_LOGGER = logging.getLogger(__name__)
_KILL_MARGIN_S = 5.0
"""What the keeper may take on top of the server's own time to stop."""
_ATTEMPTS = 3
"""Starts before giving up when ports that were picked as free are taken by the time that the models are loaded."""
_STARVED = "boost::interprocess::lock_exception"
"""What Triton's Python backend (24.10) dies of now and then while it starts and other work leaves it no processor."""


@dataclass(frozen=True)
class ServerTls:
    """PEM files of an encrypted server."""

    certificate: Path
    """The server's certificate."""
    key: Path
    """Its private key."""
    client_ca: Path | None = None
    """Authorities that must vouch for clients (mutual TLS); None lets every client in."""

    def __post_init__(self) -> None:
        """Check that the files are there, which tritonserver would say less plainly.

        Raises:
            ServerError: one is not.
        """
        for path in (self.certificate, self.key, self.client_ca):
            if path is not None and not path.is_file():
                raise ServerError(f"there is no file {path}: give the server's certificate and key as PEM files")

    def arguments(self) -> list[str]:
        """Return the words of tritonserver's command."""
        words = ["--grpc-use-ssl=true", f"--grpc-server-cert={self.certificate}", f"--grpc-server-key={self.key}"]
        if self.client_ca:
            words += ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={self.client_ca}"]
        return words


class TritonServer:
    """A tritonserver; use it as a context manager, or call `start` and `stop`.

    However the launching process ends, the server ends with it: see `keeper`.
    """

    def __init__(
        self,
        repository: Path,
        *,
        models: Sequence[str] = (MORPH,),
        flavour: Flavour = PYTHON,
        backends: Path | None = None,
        host: str = "127.0.0.1",
        grpc_port: int | None = None,
        http_port: int | None = None,
        metrics_port: int | None = None,
        cache_mib: int = 0,
        cores: int | None = None,
        gpus: Sequence[int] = (),
        tls: ServerTls | None = None,
        log: Path | None = None,
        start_timeout_s: float = 180.0,
        stop_timeout_s: float = 10.0,
    ) -> None:
        """Say what to serve.

        Args:
            repository: folder that `homomorph export` wrote.
            models: models to load; an ensemble brings its members along.
            flavour: which of the repository's configurations, and so which of Triton's backends.
            backends: folder of Triton's backends, for flavours whose backend is not in nvidia-pytriton; None looks
                where NVIDIA's containers have it.
            host: address to listen on.
            grpc_port: None picks a free one.
            http_port: None picks a free one.
            metrics_port: None picks a free one.
            cache_mib: size of the cache of encoded pictures, in MiB; 0 for none.
            cores: how many cores the server and its models may use; None for all.
            gpus: numbers of the GPUs that each get instances of the models; none for the CPU.
            tls: PEM files that encrypt gRPC; None leaves it open.
            log: file for the server's log; None is a temporary one, which is kept only if something fails.
            start_timeout_s: seconds until the models must be loaded.
            stop_timeout_s: seconds that requests on their way may take when stopping; then the server is killed.
        """
        self.repository = repository
        self.models = tuple(models)
        self.flavour = flavour
        self.host = host
        self._backends = backends
        self.ports: dict[str, int] = {}
        self._asked_ports = {"grpc": grpc_port, "http": http_port, "metrics": metrics_port}
        self._cache_mib = cache_mib
        self._cores = cores
        self._gpus = tuple(gpus)
        self._tls = tls
        self._asked_log = log
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._running = False

    @property
    def grpc_url(self) -> str:
        """host:port for clients on this machine."""
        return f"{self._reachable_host}:{self.ports['grpc']}"

    @property
    def http_url(self) -> str:
        """host:port for clients on this machine."""
        return f"{self._reachable_host}:{self.ports['http']}"

    @property
    def metrics_url(self) -> str:
        """host:port for clients on this machine."""
        return f"{self._reachable_host}:{self.ports['metrics']}"

    def start(self) -> None:
        """Start the server and wait until it has loaded all models.

        Raises:
            ServerError: nvidia-pytriton or the flavour's backend is missing, the repository lacks a model or the
                flavour's files, there are not so many cores, a port is in use, a model does not load, or it takes too
                long.
        """
        check_repository(self.repository, self.models, self._configurations)
        distribution = find_distribution()
        backend = find_backend(self.flavour, self._backends)
        ports_may_change = None in self._asked_ports.values()
        for attempt in range(1, _ATTEMPTS + 1):
            self.ports = choose_ports(self.host, self._asked_ports)
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
                    self._end(keep_log=failed)
                    raise
                self._end(keep_log=False)
                if starved:
                    _LOGGER.warning(
                        "Triton's Python backend did not get to run and died (%s): starting again", _STARVED
                    )

    def wait(self) -> None:
        """Wait until the server ends by itself.

        Raises:
            ServerError: it did, which it is not meant to do.
        """
        code = self._keeper.wait()
        self._end(keep_log=True)
        raise ServerError(f"the server stopped by itself (exit code {code}): {self._reason()}")

    def stop(self) -> None:
        """Let requests on their way finish, stop the server and remove what it left; harmless if it does not run."""
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
    def _reachable_host(self) -> str:
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host

    @property
    def _configurations(self) -> Flavour:
        return GPU if self._gpus else self.flavour

    def _launch(self, distribution: Path, backend: Path | None) -> None:
        log = _open_log(self._asked_log)
        self.log_path = Path(log.name)
        self._scratch = tempfile.TemporaryDirectory(prefix="homomorph-triton-")
        backends = Path(self._scratch.name)
        link_backends(distribution, backends)
        if backend:
            (backends / backend.name).symlink_to(backend.resolve())
        shm_prefix = f"homomorph_{secrets.token_hex(4)}_"
        command = [
            *(sys.executable, "-I", keeper.__file__, shm_prefix, str(self._stop_timeout_s)),
            ",".join(map(str, choose_cores(self._cores))),
            *operator_preload(self.repository, self.flavour),
            str(distribution / "bin" / "tritonserver"),
            *([] if self._configurations is PYTHON else [f"--model-config-name={self._configurations.name}"]),
            f"--model-repository={self.repository.resolve()}",
            f"--backend-directory={backends}",
            f"--cache-directory={distribution / 'caches'}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in with_asked(self.models)),
            # The configurations are complete; completing them would start each Python model once more, only to ask.
            "--disable-auto-complete-config",
            *([f"--cache-config=local,size={self._cache_mib << 20}"] if self._cache_mib else []),
            *(self._tls.arguments() if self._tls else []),
            f"--exit-timeout-secs={max(1, int(self._stop_timeout_s))}",
            *(f"--{service}-address={self.host}" for service in self.ports),
            *(f"--{service}-port={port}" for service, port in self.ports.items()),
        ]
        with log:
            self._keeper = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment(distribution, backend)
                | {
                    "HOMOMORPH_CACHE_MIB": str(self._cache_mib),
                    "CUDA_VISIBLE_DEVICES": visible_devices(self._gpus, os.environ.get("CUDA_VISIBLE_DEVICES")),
                },
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which then stops the server in good order
            )
        self._running = True

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not self._answers_ready():
            if self._keeper.poll() is not None:
                raise ServerError(f"the server did not start: {self._reason()}")
            if time.monotonic() > deadline:
                limit = f"{self._start_timeout_s:g} s"
                raise ServerError(f"the server was not ready within {limit} (log: {self.log_path})")
            time.sleep(0.1)

    def _answers_ready(self) -> bool:
        """Ask over HTTP, which Triton opens after loading the models and after gRPC; its metrics come last."""
        return self._answers("http", "/v2/health/ready") and self._answers("metrics", "/metrics")

    def _answers(self, port: str, path: str) -> bool:
        connection = http.client.HTTPConnection(self._reachable_host, self.ports[port], timeout=2)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    def _drain(self) -> bool:
        """Take no more requests, wait for those on their way, and return whether there are none any more.

        Told to end, tritonserver (24.10) refuses the next steps of ensembles that have begun. Their models unload in
        better order: they finish first, while their members are still there.
        """
        deadline = time.monotonic() + self._stop_timeout_s
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):  # it has crashed, or hangs
            for model in self.models:
                self._post(f"/v2/repository/models/{model}/unload")
            while time.monotonic() < deadline:
                index = json.loads(self._post("/v2/repository/index"))
                if all(entry.get("state") == "UNAVAILABLE" for entry in index if entry["name"] in self.models):
                    return True
                time.sleep(0.05)
        return False

    def _post(self, path: str) -> bytes:
        connection = http.client.HTTPConnection(self._reachable_host, self.ports["http"], timeout=2)
        with contextlib.closing(connection):
            connection.request("POST", path)
            return connection.getresponse().read()

    def _reason(self) -> str:
        return f"{failure_reason(self._log())} (log: {self.log_path})"

    def _log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _end(self, *, keep_log: bool, idle: bool = False) -> None:
        """Tell the keeper to stop the server, wait for it, and remove the temporary files."""
        assert self._keeper.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the keeper has ended by itself
            if idle:
                self._keeper.stdin.write(b"!")
            self._keeper.stdin.close()  # which the keeper takes as the order to stop
        try:
            self._keeper.wait(timeout=self._stop_timeout_s + _KILL_MARGIN_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        self._running = False
        self._scratch.cleanup()
        if self._asked_log is None and not keep_log:
            self.log_path.unlink(missing_ok=True)


def with_asked(models: Sequence[str]) -> tuple[str, ...]:
    """Return the models to load: Triton brings an ensemble's members along, but not those that Python models ask."""
    return tuple(dict.fromkeys([*models, *(name for model in models for name in ASKED.get(model, ()))]))


def operator_preload(repository: Path, flavour: Flavour) -> list[str]:
    """Return the words before tritonserver's command that load the operator into it, and into nothing else.

    The libtorch backend does not load libraries of operators by itself. Python models load theirs, where one loaded
    twice would end their processes: for them there are no words.
    """
    libraries = sorted(repository.resolve().glob("*/1/*.so"))  # copies of one library; one is enough
    return ["env", f"LD_PRELOAD={libraries[0]}"] if flavour is LIBTORCH and libraries else []


def check_repository(repository: Path, models: Sequence[str], flavour: Flavour = PYTHON) -> None:
    """Check that a repository holds the models that are to be loaded, in a flavour.

    Raises:
        ServerError: it does not exist, is empty, or lacks a model or every configuration of the flavour.
    """
    if not repository.is_dir():
        raise ServerError(f"there is no model repository {repository}: write one with `homomorph export`")
    found = sorted(config.parent.name for config in repository.glob("*/config.pbtxt"))
    if not found:
        raise ServerError(f"the model repository {repository} holds no model: write them with `homomorph export`")
    for model in models:
        if model not in found:
            raise ServerError(f"the model repository {repository} has no model {model!r}: it has {', '.join(found)}")
    # Where a model lacks a configuration, Triton takes the default one, which would be another backend's.
    if not list(repository.glob(f"*/{flavour.config_file}")):
        raise ServerError(
            f"the model repository {repository} was written without {flavour.config_file}: "
            "write it again with `homomorph export`, with the flavour's files"
        )


def failure_reason(log: str) -> str:
    """Return the one line of tritonserver's log that says why it did not start."""
    failed = re.search(r"\"failed to load '([^']+)' version \d+: (.*)\"$", log, re.MULTILINE)
    if failed:
        reason = failed[2].split("\\n")[0]  # the log writes line ends as \n; a Python model's traceback follows
        return f"model {failed[1]!r} failed to load: {reason}"
    uncaught = re.search(r"^terminate called after throwing an instance of '(.*)'$", log, re.MULTILINE)
    if uncaught:
        return f"it ended with an uncaught {uncaught[1]}"
    errors = re.findall(r"^(?:error: |E\d{4} .*?\] \")(.*?)\s*\"?$", log, re.MULTILINE)
    # On machines without a GPU an ensemble brings a harmless line about its driver.
    errors = [error for error in errors if "CUDA driver version" not in error]
    return errors[-1] if errors else "its log names no error"


def _open_log(path: Path | None) -> IO[bytes]:
    if path is None:
        return tempfile.NamedTemporaryFile(prefix="homomorph-triton-", suffix=".log", delete=False)
    try:
        return path.open("wb")
    except OSError as error:
        raise ServerError(f"the log {path} cannot be written: {error.strerror}") from error
