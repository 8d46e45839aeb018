"""Keeps one tritonserver: runs it, stops it when told or orphaned, and removes what it left in shared memory.

Run as a process of its own between the launcher and tritonserver:

    python keeper.py SHM_PREFIX STOP_TIMEOUT_S CORES tritonserver --its=arguments ...

Its standard input is a pipe from the launcher, and the end of it stops the server: the launcher closes it, or has
died in whatever way. So nothing stays behind when the launcher is killed, which it could not see to itself. A byte in
the pipe says that the server has nothing more to do and needs no time to end, which tritonserver takes seconds for.

A server that has lost a model's process is ended too: tritonserver (24.10) starts no other, refuses all requests for
that model from then on, says that it is ready, and cannot stop in good order any more.

Only the standard library is imported, for a start within milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

_LOOK_EVERY_S = 1.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the server until it ends or the pipe does, and return its exit code."""
    shm_prefix, stop_timeout_s, cores, *command = sys.argv[1:]
    os.sched_setaffinity(0, [int(core) for core in cores.split(",")])  # of the server too, and of its models
    libc = ctypes.CDLL(None)
    # Stubs of the Python backend that outlive their server become children of this process, which reaps them below;
    # in a container, process 1 often would not.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a process group of its own, which the stubs share
        preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),  # should this keeper itself be killed
    )
    exited = os.pidfd_open(server.pid)
    if wait_until_the_end(server.pid, exited):
        server.terminate()
        select.select([exited], [], [], float(stop_timeout_s))
    # Until it is reaped, the server's number cannot become another group's. A server that did not stop in time is in
    # that group, and so are the stubs of one that crashed.
    os.killpg(server.pid, signal.SIGKILL)
    code = server.wait()
    with contextlib.suppress(ChildProcessError):  # there are no more
        while True:
            os.waitpid(-1, 0)
    for region in Path("/dev/shm").glob(f"{shm_prefix}*"):
        region.unlink(missing_ok=True)
    return code if code >= 0 else 128 - code


def wait_until_the_end(server: int, exited: int) -> bool:
    """Wait until the server has ended or shall end; return whether it may finish what it is doing.

    Args:
        server: the id of its process.
        exited: a descriptor that is readable once it has ended.
    """
    before: set[int] = set()
    while True:
        readable, _, _ = select.select([sys.stdin, exited], [], [], _LOOK_EVERY_S)
        if exited in readable:
            return False
        if readable:
            return not os.read(sys.stdin.fileno(), 1)
        dead = dead_children(server)
        if dead & before:  # one that unloads is dead for a moment only
            print("error: the process of a model has died", file=sys.stderr, flush=True)
            return False
        before = dead


def dead_children(process: int) -> set[int]:
    """Return the children of a process that have ended, and that it does not care about."""
    dead = set()
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread ended meanwhile, or a child did in good order
            for child in children.read_text().split():
                state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
                if state == "Z":
                    dead.add(int(child))
    return dead


if __name__ == "__main__":
    sys.exit(main())
