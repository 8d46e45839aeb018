"""Supervise one tritonserver: run it, restart it when it dies, end it with its launcher, and remove its files.

The keeper is a process of its own between the launcher and tritonserver:

    python keeper.py SETTINGS tritonserver --its=arguments ...

SETTINGS is a `Settings` as JSON. Standard input is a pipe from the launcher. When the pipe is closed, because the
launcher stops the server or has died itself, the keeper ends the server. Before that, the launcher may send these
bytes:

    r   the server is ready: from now on, restart it when it dies, if the settings allow it
    i   the server is idle: kill it at once; a regular stop takes tritonserver seconds
    k   keep the log, even if it is temporary

Standard output is a pipe to the launcher, with one line for each restart.

The keeper also ends a server that no longer answers, or one of whose model processes has died or was stopped. In that
state tritonserver (24.10) does not restart the model's process, refuses all its requests, still reports that it is
ready, and cannot stop properly.

Only the standard library is imported, for a start within milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
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
"""Largest number of restarts within `_RESTART_WINDOW_S`; then the server stays down."""
_RESTART_WINDOW_S = 600.0
LONGEST_PAUSE_S = 16.0
"""Longest pause before a restart. The first restart comes at once; then each pause is about twice the previous one."""
_HANGING_AFTER_S = 10.0
"""A server is ended if it, or one of its models' processes, has been silent for this long."""
_HANGING_AFTER_BUSY_S = 60.0
"""The same limit for a process that computes or waits for a processor, which can take long on an overloaded machine."""
_CHECK_INTERVAL_S = 1.0
_HTTP_STACK_BYTES = 1 << 30
"""Stack of each thread of a server with HTTP. Triton (24.10) needs stack for each level of nested JSON and for each
chunk of a body: with the usual 8 MiB, a request of 200 kB ends it. What is not used takes no memory."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Settings:
    """Settings that the launcher passes to the keeper."""

    shm_prefix: str
    """Prefix of the names of the server's files in shared memory."""
    scratch: str
    """Folder of temporary files, removed at the end."""
    heartbeats: str | None
    """Folder within `scratch` in which each Python model's process touches a file every second, named by its id; None:
    no process is watched, so that others may stop and resume them."""
    key_file: str
    """File with the key for shared memory, removed at the end."""
    temporary_log: str | None
    """Temporary log file, removed at the end; None if the log is kept."""
    cores: list[int]
    """Cores of the server and of its models."""
    metrics: tuple[str, int] | None
    """Host and port that answer while the server is alive; None: nothing checks that it answers."""
    restart: bool
    stop_timeout_s: float
    start_timeout_s: float

    def to_json(self) -> str:
        """Return the settings as the keeper's first argument."""
        return json.dumps(asdict(self))


class _LauncherPipe:
    """The commands that the launcher has sent."""

    def __init__(self) -> None:
        self.was_ready = False
        self.is_idle = False
        self.keeps_log = False
        self.ended = False

    def read(self) -> None:
        """Read the commands that have arrived; blocks if there are none."""
        commands = os.read(sys.stdin.fileno(), 64)
        self.was_ready |= READY in commands
        self.is_idle |= IDLE in commands
        self.keeps_log |= KEEP_LOG in commands
        self.ended |= not commands


class _AnswerMonitor:
    """Sends a request to the server every second, in a thread."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self.started_s = time.monotonic()
        self.last_answer_s: float | None = None
        """Time of the server's last answer; None before the first one."""
        self._stopped = threading.Event()
        threading.Thread(target=self._send_requests, daemon=True).start()

    def stop(self) -> None:
        """Send no more requests."""
        self._stopped.set()

    def _send_requests(self) -> None:
        while not self._stopped.wait(_CHECK_INTERVAL_S):
            with contextlib.suppress(OSError), socket.create_connection(self._address, timeout=5) as connection:
                connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                if connection.recv(4):
                    self.last_answer_s = time.monotonic()


class _HeartbeatMonitor:
    """Watches the files that models' processes touch. It looks for changed times only: the system's clock may jump."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._seen: dict[int, tuple[float, float]] = {}
        """By process id: its file's time by the system's clock, and when this was first seen by `time.monotonic`."""

    def silence_s(self, process: int) -> float:
        """Return the seconds since a process last touched its file; 0 if it has no file."""
        now_s = time.monotonic()
        try:
            touched_s = (self._folder / str(process)).stat().st_mtime
        except OSError:
            return 0.0
        if process not in self._seen or self._seen[process][0] != touched_s:
            self._seen[process] = touched_s, now_s
        return now_s - self._seen[process][1]


def main() -> int:
    """Run the server until the pipe is closed or the server has died too often; return its exit code."""
    values, *command = sys.argv[1:]
    settings = Settings(**json.loads(values))
    os.sched_setaffinity(0, settings.cores)
    os.umask(0o077)  # clients' pictures pass through shared memory, which other users must not read
    # Stubs of the Python backend that outlive their server become children of this process, which reaps them below.
    # In a container, process 1 often does not.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    pipe = _LauncherPipe()
    deaths: deque[float] = deque(maxlen=RESTARTS)
    try:
        while True:
            code = run(command, settings, pipe)
            if pipe.ended or not (pipe.was_ready and settings.restart):
                return code
            now_s = time.monotonic()
            if len(deaths) == RESTARTS and now_s - deaths[0] < _RESTART_WINDOW_S:
                return code
            recent = sum(now_s - death_s < _RESTART_WINDOW_S for death_s in deaths)
            deaths.append(now_s)
            with contextlib.suppress(BrokenPipeError):
                print(code, flush=True)
            if _pipe_closed_within(2**recent - 1, pipe):
                return code
    finally:
        remove_leftovers(settings)
        if pipe.ended and settings.temporary_log and not pipe.keeps_log:
            Path(settings.temporary_log).unlink(missing_ok=True)


def run(command: list[str], settings: Settings, pipe: _LauncherPipe) -> int:
    """Run the server once; return its exit code as a shell reports it, 128 plus the number of a signal."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # in case this keeper is killed
        if "--allow-http=true" in command:
            _, hard = resource.getrlimit(resource.RLIMIT_STACK)
            largest = _HTTP_STACK_BYTES if hard == resource.RLIM_INFINITY else min(_HTTP_STACK_BYTES, hard)
            resource.setrlimit(resource.RLIMIT_STACK, (largest, hard))

    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,  # a process group of its own, which the stubs share
        preexec_fn=prepare,
    )
    exited = os.pidfd_open(server.pid)
    monitor = _AnswerMonitor(*settings.metrics) if settings.metrics else None
    if _wait_for_end(server.pid, exited, settings, pipe, monitor):
        server.terminate()
        select.select([exited], [], [], settings.stop_timeout_s)
    if monitor:
        monitor.stop()
    os.close(exited)
    # Kill a server that did not stop in time, and the stubs of one that crashed. The server is not reaped yet, so its
    # id cannot belong to another process group.
    os.killpg(server.pid, signal.SIGKILL)
    code = server.wait()
    with contextlib.suppress(ChildProcessError):  # no children are left
        while True:
            os.waitpid(-1, 0)
    _remove_shared_memory(settings.shm_prefix)
    return code if code >= 0 else 128 - code


def _wait_for_end(
    server: int, exited: int, settings: Settings, pipe: _LauncherPipe, monitor: _AnswerMonitor | None
) -> bool:
    """Wait until the server has ended or must be ended; return whether to stop it properly instead of killing it.

    Args:
        server: id of the server's process.
        exited: a file descriptor that becomes readable when the server has ended.
        settings: from the launcher.
        pipe: the launcher's commands.
        monitor: of the server's answers; None: they are not monitored.
    """
    failed_before: dict[int, str] = {}
    heartbeats = _HeartbeatMonitor(settings.heartbeats) if settings.heartbeats else None
    while True:
        readable, _, _ = select.select([sys.stdin, exited], [], [], _CHECK_INTERVAL_S)
        if sys.stdin in readable:
            pipe.read()
        if exited in readable:
            return False
        if pipe.ended:
            return not pipe.is_idle
        failed = _failed_models(server, heartbeats) if heartbeats else {}
        if monitor is not None:
            now_s = time.monotonic()
            if monitor.last_answer_s is None:
                if pipe.was_ready and now_s - monitor.started_s > settings.start_timeout_s:
                    return _print_error(f"it was not ready again within {settings.start_timeout_s:g} s")
            elif hangs(server, now_s - monitor.last_answer_s):
                failed[server] = f"it has not answered for {_HANGING_AFTER_S:g} s"
        # A process must fail twice: a model that unloads leaves a dead process for a moment, and after a machine was
        # paused, all its processes have been silent.
        for process in failed.keys() & failed_before.keys():
            return _print_error(failed[process])
        failed_before = failed


_FAILED = {"Z": "has died", "T": "was stopped"}
"""States of a process in /proc in which it cannot answer."""


def _failed_models(server: int, heartbeats: _HeartbeatMonitor) -> dict[int, str]:
    """Say what is wrong with the server's processes that cannot answer, by process id."""
    failed = {}
    for process, state in children(server).items():
        if state in _FAILED:
            failed[process] = f"the process of a model {_FAILED[state]}"
        elif hangs(process, heartbeats.silence_s(process)):
            failed[process] = f"the process of a model has run no Python for {_HANGING_AFTER_S:g} s"
    return failed


def _print_error(reason: str) -> bool:
    """Print an error into the log; return False, for `_wait_for_end`."""
    print(f"error: {reason}", file=sys.stderr, flush=True)
    return False


def hangs(process: int, silence_s: float) -> bool:
    """Whether a process counts as hanging after `silence_s` seconds of silence."""
    if silence_s <= _HANGING_AFTER_S:
        return False
    return silence_s > _HANGING_AFTER_BUSY_S or not _is_busy(process)


def _is_busy(process: int) -> bool:
    """Whether any thread of a process computes, or waits for a processor or a disk."""
    for path in Path(f"/proc/{process}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has ended
            if path.read_text().rpartition(")")[2].split()[0] in "RD":
                return True
    return False


def children(process: int) -> dict[int, str]:
    """Return the states of a process and of its children, by process id."""
    states = {}
    pids = {str(process)}
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            pids.update(path.read_text().split())
    for pid in pids:
        with contextlib.suppress(OSError):  # the child has ended and was reaped
            states[int(pid)] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return states


def _pipe_closed_within(seconds: float, pipe: _LauncherPipe) -> bool:
    """Wait before a restart; if the launcher closes its pipe meanwhile, return True at once."""
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
    """Kill the processes of a start, which have `mark` in their command; for a keeper that was killed."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended
            if mark.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                os.kill(int(folder.name), signal.SIGKILL)


def _remove_shared_memory(prefix: str) -> None:
    """Remove a server's files in shared memory."""
    for region in Path("/dev/shm").glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def remove_leftovers(settings: Settings) -> None:
    """Remove all files of a server except its log."""
    _remove_shared_memory(settings.shm_prefix)
    Path(settings.key_file).unlink(missing_ok=True)
    shutil.rmtree(settings.scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
