"""What a server takes, read from /proc: of a process and everything that it has started, directly or not."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def children() -> set[int]:
    """Return the process ids of what this process itself has started."""
    return set(_children().get(os.getpid(), []))


def cpu_s(roots: Collection[int]) -> float:
    """Return the processor time that the trees of processes have taken so far, in seconds, to a hundredth each."""
    ticks = 0
    for process in _trees(roots):
        with contextlib.suppress(OSError):  # it has just ended
            ticks += sum(map(int, _stat(process)[11:13]))  # in user and in system mode
    return ticks / _TICKS_PER_S


def memory_mib(roots: Collection[int], kinds: Collection[str] = ("Pss",)) -> float:
    """Return what the trees of processes keep in memory, in MiB; pages that several share are divided among them.

    Args:
        roots: where the trees begin.
        kinds: lines of Linux' `smaps_rollup` to sum up; everything in memory unless others are given.
    """
    kib = 0
    for process in _trees(roots):
        with contextlib.suppress(OSError):
            lines = (_PROC / str(process) / "smaps_rollup").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in kinds)
    return kib / 1024


def send_signal(roots: Collection[int], what: signal.Signals) -> None:
    """Send a signal to all that processes have started, but not to themselves: they see to the end of the others."""
    for process in set(_trees(roots)) - set(roots):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, what)


def _trees(roots: Collection[int]) -> Iterator[int]:
    started = _children()
    waiting = list(roots)
    while waiting:
        process = waiting.pop()
        yield process
        waiting += started.get(process, [])


def _children() -> dict[int, list[int]]:
    """Return the children of every process that has some."""
    found: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
    return found


def _stat(process: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; the second is a name that may hold anything."""
    return (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
