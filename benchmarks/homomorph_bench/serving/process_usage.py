"""Processor time and memory of a server, read from /proc: of a process and all its descendants."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def children() -> set[int]:
    """Return the ids of this process's children."""
    return set(_children().get(os.getpid(), []))


def cpu_s(roots: Collection[int]) -> float:
    """Return the processor time that the process trees have used so far, in seconds; resolution 0.01 s a process."""
    ticks = 0
    for process in _trees(roots):
        with contextlib.suppress(OSError):  # the process has just ended
            ticks += sum(map(int, _stat(process)[11:13]))  # in user and in system mode
    return ticks / _TICKS_PER_S


def memory_mib(roots: Collection[int], kinds: Collection[str] = ("Pss",)) -> float:
    """Return the memory of the process trees, in MiB; a page that several processes share is divided among them.

    Args:
        roots: ids of the processes at the top of the trees.
        kinds: lines of Linux' `smaps_rollup` to add up; the default is all memory in use.
    """
    kib = 0
    for process in _trees(roots):
        with contextlib.suppress(OSError):
            lines = (_PROC / str(process) / "smaps_rollup").read_text().splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in kinds)
    return kib / 1024


def signal_descendants(roots: Collection[int], number: signal.Signals) -> None:
    """Send a signal to all descendants of the processes, but not to the processes themselves: they supervise."""
    for process in set(_trees(roots)) - set(roots):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _trees(roots: Collection[int]) -> Iterator[int]:
    started = _children()
    waiting = list(roots)
    while waiting:
        process = waiting.pop()
        yield process
        waiting += started.get(process, [])


def _children() -> dict[int, list[int]]:
    """Return the ids of each process's children, for all processes that have any."""
    found: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
    return found


def _stat(process: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; the second is a name that may contain spaces."""
    return (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
