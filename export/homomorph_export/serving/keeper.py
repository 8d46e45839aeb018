"""Keeps one tritonserver: runs it, starts it again when it dies, ends it when told or orphaned, and cleans up after it.

Run as a process of its own between the launcher and tritonserver:

    python keeper.py SETTINGS tritonserver --its=arguments ...

SETTINGS is a `Settings` as JSON. Standard input is a pipe from the launcher: the end of it ends the server, because the
launcher has closed it, or has died in whatever way. Before, the launcher may send these bytes:

    r   the server has become ready: from now on, start it again when it dies, if the settings say so
    i   the server is idle: end it at once, which in good order takes tritonserver seconds
    k   keep the log, which is removed otherwise if it is temporary

Standard output is a pipe to the launcher: one line for each time that the server died and is started again.

A server that does not answer any more, or one of whose model processes has died or was stopped, is ended too:
tritonserver (24.10) starts no other process for the model, refuses all requests for it from then on, still says that it
is ready, and cannot end in good order any more.

Only the standard library is imported, for a start within milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

READY, IDLE, KEEP_LOG = b"r", b"i", b"k"

RESTARTS = 5
"""How often a server is started again within `RESTART_WINDOW_S`; the next death is final."""
RESTART_WINDOW_S = 600.0
LONGEST_PAUSE_S = 16.0
"""Pause before the last of these restarts; before the first there is none, and each is twice as long as the last."""
HANGING_AFTER_S = 10.0
"""A server that has not answered for this long is ended, and so is one with a model's process that has not."""
HANGING_AFTER_BUSY_S = 60.0
"""The same of a process that computes or waits for a processor: on an overloaded machine it may do so for long."""
_CHECK_INTERVAL_S = 1.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Settings:
    """What the launcher tells the keeper."""

    shm_prefix: str
    """How the names of the server's files in shared memory begin."""
    scratch: str
    """Folder of temporary files, removed at the end."""
    heartbeats: str
    """Folder within it in which each model's process that can touches a file, named like the process, every second."""
    key_file: str
    """A file that is removed at the end, too."""
    temporary_log: str | None
    """The same of the log; None if it stays."""
    cores: list[int]
    """Cores of the server and of its models."""
    metrics: tuple[str, int]
    """Host and port that answer while the server is alive."""
    restart: bool
    stop_timeout_s: float
    start_timeout_s: float

    def to_json(self) -> str:
        """Return the word of the keeper's command line."""
        return json.dumps(asdict(self))


class Pipe:
    """The launcher's orders."""

    def __init__(self) -> None:
        self.was_ready = False
        self.is_idle = False
        self.keeps_log = False
        self.ended = False

    def read(self) -> None:
        """Read what has come."""
        orders = os.read(sys.stdin.fileno(), 64)
        self.was_ready |= READY in orders
        self.is_idle |= IDLE in orders
        self.keeps_log |= KEEP_LOG in orders
        self.ended |= not orders


class Pulse:
    """Asks a server for an answer time and again, in a thread."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self.started_s = time.monotonic()
        self.last_answer_s: float | None = None
        """When it last answered; None if it has not yet."""
        self._over = threading.Event()
        threading.Thread(target=self._ask, daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()

    def _ask(self) -> None:
        while not self._over.wait(_CHECK_INTERVAL_S):
            with contextlib.suppress(OSError), socket.create_connection(self._address, timeout=5) as connection:
                connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                if connection.recv(4):
                    self.last_answer_s = time.monotonic()


class Heartbeats:
    """Looks at the files that models' processes touch. By their changes, as the system's clock may jump."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._seen: dict[int, tuple[float, float]] = {}
        """By process: when its file was touched, by the system's clock, and when that was seen, by ours."""

    def silence_s(self, process: int) -> float:
        """Return for how long a process has not touched its file; 0 if it has none."""
        now_s = time.monotonic()
        try:
            touched_s = (self._folder / str(process)).stat().st_mtime
        except OSError:
            return 0.0
        if process not in self._seen or self._seen[process][0] != touched_s:
            self._seen[process] = touched_s, now_s
        return now_s - self._seen[process][1]


def main() -> int:
    """Run the server until the pipe ends or it has died too often, and return its exit code."""
    values, *command = sys.argv[1:]
    settings = Settings(**json.loads(values))
    os.sched_setaffinity(0, settings.cores)
    os.umask(0o077)  # clients' pictures pass through shared memory, which other users must not read
    # Stubs of the Python backend that outlive their server become children of this process, which reaps them below;
    # in a container, process 1 often would not.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    pipe = Pipe()
    deaths: deque[float] = deque(maxlen=RESTARTS)
    try:
        while True:
            code = run(command, settings, pipe)
            if pipe.ended or not (pipe.was_ready and settings.restart):
                return code
            now_s = time.monotonic()
            if len(deaths) == RESTARTS and now_s - deaths[0] < RESTART_WINDOW_S:
                return code
            recent = sum(now_s - death_s < RESTART_WINDOW_S for death_s in deaths)
            deaths.append(now_s)
            with contextlib.suppress(BrokenPipeError):
                print(code, flush=True)
            if pause(2**recent - 1, pipe):
                return code
    finally:
        remove_leftovers(settings)
        if pipe.ended and settings.temporary_log and not pipe.keeps_log:
            Path(settings.temporary_log).unlink(missing_ok=True)


def run(command: list[str], settings: Settings, pipe: Pipe) -> int:
    """Run the server once, and return its exit code, as a shell gives it."""
    libc = ctypes.CDLL(None)
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,  # a process group of its own, which the stubs share
        preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),  # should this keeper itself be killed
    )
    exited = os.pidfd_open(server.pid)
    pulse = Pulse(*settings.metrics)
    if wait_until_the_end(server.pid, exited, settings, pipe, pulse):
        server.terminate()
        select.select([exited], [], [], settings.stop_timeout_s)
    pulse.stop()
    os.close(exited)
    # Until it is reaped, the server's number cannot become another group's. A server that did not stop in time is in
    # that group, and so are the stubs of one that crashed.
    os.killpg(server.pid, signal.SIGKILL)
    code = server.wait()
    with contextlib.suppress(ChildProcessError):  # there are no more
        while True:
            os.waitpid(-1, 0)
    remove_shared_memory(settings.shm_prefix)
    return code if code >= 0 else 128 - code


def wait_until_the_end(server: int, exited: int, settings: Settings, pipe: Pipe, pulse: Pulse) -> bool:
    """Wait until the server has ended or has to be ended; return whether it may finish what it is doing.

    Args:
        server: the id of its process.
        exited: a descriptor that is readable once it has ended.
        settings: the launcher's.
        pipe: the launcher's orders.
        pulse: what asks it.
    """
    before: dict[int, str] = {}
    heartbeats = Heartbeats(settings.heartbeats)
    while True:
        readable, _, _ = select.select([sys.stdin, exited], [], [], _CHECK_INTERVAL_S)
        if sys.stdin in readable:
            pipe.read()
        if exited in readable:
            return False
        if pipe.ended:
            return not pipe.is_idle
        states = children(server)
        failed = {process: state for process, state in states.items() if state in _FAILED}
        # One that unloads is dead for a moment only.
        for process in failed.keys() & before.keys():
            return _report(f"the process of a model {_FAILED[failed[process]]}")
        before = failed
        for process in states:
            if hangs(process, heartbeats.silence_s(process)):
                return _report(f"the process of a model has run no Python for {HANGING_AFTER_S:g} s")
        now_s = time.monotonic()
        if pulse.last_answer_s is None:
            if pipe.was_ready and now_s - pulse.started_s > settings.start_timeout_s:
                return _report(f"it was not ready again within {settings.start_timeout_s:g} s")
        elif hangs(server, now_s - pulse.last_answer_s):
            return _report(f"it has not answered for {HANGING_AFTER_S:g} s")


_FAILED = {"Z": "has died", "T": "was stopped"}
"""States of a process, as /proc gives them, in which it answers nobody."""


def _report(reason: str) -> bool:
    print(f"error: {reason}", file=sys.stderr, flush=True)
    return False


def hangs(process: int, silence_s: float) -> bool:
    """Whether a process that has been silent for so long is to be taken for one that hangs."""
    if silence_s <= HANGING_AFTER_S:
        return False
    return silence_s > HANGING_AFTER_BUSY_S or not is_busy(process)


def is_busy(process: int) -> bool:
    """Whether a thread of a process computes, or waits for a processor or a disk."""
    for path in Path(f"/proc/{process}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has ended
            if path.read_text().rpartition(")")[2].split()[0] in "RD":
                return True
    return False


def children(process: int) -> dict[int, str]:
    """Return the state of each child of a process, and its own."""
    states = {}
    pids = {str(process)}
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            pids.update(path.read_text().split())
    for pid in pids:
        with contextlib.suppress(OSError):  # the child has ended in good order
            states[int(pid)] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return states


def pause(seconds: float, pipe: Pipe) -> bool:
    """Wait; return at once, and True, if the launcher's pipe ends meanwhile."""
    end_s = time.monotonic() + min(seconds, LONGEST_PAUSE_S)
    while not pipe.ended:
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return False
        readable, _, _ = select.select([sys.stdin], [], [], left_s)
        if readable:
            pipe.read()
    return True


def end_processes(mark: str) -> None:
    """Kill the processes whose command holds a word of this start; what a keeper that was killed could not do."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if mark.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)


def remove_shared_memory(prefix: str) -> None:
    """Remove what a server has left in shared memory."""
    for region in Path("/dev/shm").glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def remove_leftovers(settings: Settings) -> None:
    """Remove what a server has left on this machine, but for its log."""
    remove_shared_memory(settings.shm_prefix)
    Path(settings.key_file).unlink(missing_ok=True)
    shutil.rmtree(settings.scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
