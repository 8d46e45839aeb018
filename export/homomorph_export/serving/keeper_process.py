"""The launcher's side of a keeper: starts it, sends it commands, and has it end its server."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from homomorph_export.serving import keeper

_KILL_MARGIN_S = 5.0
"""Time that the keeper gets to stop, in addition to the server's own."""
_WAKE_S = 1.0
"""Longest time that `next_restart` leaves signals unhandled."""


class KeeperProcess:
    """A keeper that runs a server. Both always end with this process, even if it is killed."""

    def __init__(
        self, settings: keeper.Settings, command: Sequence[str], *, log: IO[bytes], environment: Mapping[str, str]
    ) -> None:
        """Start the keeper, which starts the server.

        Args:
            settings: of the keeper.
            command: words of the server's command.
            log: file that both write to.
            environment: environment variables of both.
        """
        self._settings = settings
        self._process = subprocess.Popen(
            [sys.executable, "-I", keeper.__file__, settings.to_json(), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,  # `select` does not see lines in a buffer
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only the launcher, which then stops the server properly
        )

    @property
    def pid(self) -> int:
        """Id of the keeper, the parent of the server's process."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return the keeper's exit code; None if it still runs."""
        return self._process.poll()

    def wait(self) -> int:
        """Wait until the keeper has ended; return its exit code."""
        return self._process.wait()

    def mark_ready(self) -> None:
        """Tell the keeper that the server is ready: it then restarts a server that dies, if the settings allow it."""
        self._send(keeper.READY)

    def next_restart(self) -> bytes:
        """Wait for the keeper's next line and return it; b"" when the keeper has ended.

        A signal that arrives just before a blocking read does not interrupt it, and Python runs no signal handler
        until the read returns. So the wait ends every second.
        """
        assert self._process.stdout is not None
        while not select.select([self._process.stdout], [], [], _WAKE_S)[0]:
            pass
        return self._process.stdout.readline()

    def end(self, *, keep_log: bool = True, idle: bool = False) -> None:
        """Have the keeper end the server, wait for it, and remove their files.

        Args:
            keep_log: whether a temporary log is kept.
            idle: whether the server has no requests left. It is then killed at once.
        """
        if idle:
            self._send(keeper.IDLE)
        if keep_log:
            self._send(keeper.KEEP_LOG)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=self._settings.stop_timeout_s + _KILL_MARGIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode < 0:  # the keeper was killed and could not end its server
            keeper.end_processes(self._settings.shm_prefix)
        keeper.remove_leftovers(self._settings)
        if not keep_log and self._settings.temporary_log:
            Path(self._settings.temporary_log).unlink(missing_ok=True)

    def _send(self, command: bytes) -> None:
        """Send the keeper a command of one byte."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the keeper has ended by itself
            os.write(self._process.stdin.fileno(), command)
