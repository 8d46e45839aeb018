"""Start a peer, and stop it together with all its child processes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from homomorph_client.errors import ServerError
from homomorph_export.serving import keeper
from homomorph_export.serving.devices import choose_cores
from homomorph_export.serving.distribution import environment, find_distribution
from homomorph_export.serving.keeper_process import KeeperProcess
from homomorph_export.serving.ports import choose_ports

_STOP_TIMEOUT_S = 10.0


class Peer:
    """One peer's program, as a context manager. The peer always ends with this process, even if that is killed."""

    def __init__(self, name: str, repository: Path, device: str = "cpu") -> None:
        """Choose a free port. The program starts when the context is entered.

        Args:
            name: the peer's module in this package.
            repository: folder that `homomorph export` wrote.
            device: a torch device, such as `cpu` or `cuda:0`.
        """
        self.name = name
        self.host = "127.0.0.1"
        self.port = choose_ports(self.host, {name: None})[name]
        self._repository = repository
        self._device = device

    def __enter__(self) -> Peer:
        module = f"{__package__}.{self.name}"
        words = [sys.executable, "-m", module, str(self._repository.resolve()), str(self.port), self._device]
        self._log = tempfile.TemporaryFile()
        # The server's keeper runs the peer too: when the keeper's input ends, it stops the peer and its process group,
        # and removes the temporary folder. What it does beyond that is for Triton alone.
        scratch = tempfile.mkdtemp(prefix="homomorph-peer-")
        settings = keeper.Settings(
            shm_prefix=f"homomorph_{self.port}_",
            scratch=scratch,
            heartbeats=None,  # the benchmark stops peers while it measures another one
            key_file=f"{scratch}/key",
            temporary_log=None,
            cores=list(choose_cores(None)),
            metrics=None,
            restart=False,
            stop_timeout_s=_STOP_TIMEOUT_S,
            start_timeout_s=0.0,
        )
        # This environment lets pytriton's Triton find this Python, as ours does.
        self._keeper = KeeperProcess(settings, words, log=self._log, environment=environment(find_distribution()))
        return self

    def __exit__(self, *_: object) -> None:
        self._keeper.end()
        self._log.close()

    @property
    def pid(self) -> int:
        """Id of the keeper, the ancestor of all the peer's processes."""
        return self._keeper.pid

    def check(self) -> None:
        """Check that the peer still runs.

        Raises:
            ServerError: the peer ended; the message has the last line that it wrote.
        """
        if self._keeper.exit_code() is not None:
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
            raise ServerError(f"the peer {self.name} ended by itself: {last}")
