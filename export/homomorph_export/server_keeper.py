"""Keeps one tritonserver: runs it, stops it when told or orphaned, and removes what it left in shared memory.

Run as a process of its own between the launcher and tritonserver:

    python server_keeper.py SHM_PREFIX STOP_TIMEOUT_S tritonserver --its=arguments ...

Its standard input is a pipe from the launcher. A byte on it, or its end because the launcher died in whatever way, stops the
server. So nothing stays behind when the launcher is killed, which it could not see to itself.

Only the standard library is imported, for a start within milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> int:
    shm_prefix, stop_timeout_s, *command = sys.argv[1:]
    libc = ctypes.CDLL(None)  # loaded before the fork: the child may only make the call
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a group of its own, so that the stubs of the Python backend can be killed with it
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),  # should this keeper itself be killed
    )
    exited = os.pidfd_open(server.pid)
    readable, _, _ = select.select([sys.stdin, exited], [], [])
    if exited not in readable:
        server.terminate()
        try:
            server.wait(timeout=float(stop_timeout_s))
        except subprocess.TimeoutExpired:
            pass
    # Kills what is left of the group: a server that did not stop in time, or stubs of one that crashed.
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    code = server.wait()
    for region in Path("/dev/shm").glob(f"{shm_prefix}*"):
        region.unlink(missing_ok=True)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
