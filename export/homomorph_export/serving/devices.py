"""Choose the cores and GPUs that a server may use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from homomorph_client.errors import ServerError
from homomorph_export.flavours import PYTHON, Flavour

_DRIVER = Path("/proc/driver/nvidia")
"""Exists on a machine with NVIDIA's driver."""


def choose_cores(count: int | None) -> tuple[int, ...]:
    """Return the numbers of the cores that a server runs on.

    Args:
        count: number of cores; None: all cores that this process may use.

    Raises:
        ServerError: there are fewer cores than `count`.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if count is not None and not 1 <= count <= len(allowed):
        raise ServerError(f"cores must be from 1 to {len(allowed)}, which is what there is here, not {count}")
    return tuple(allowed[:count])


def choose_gpus(asked: str | None, flavour: Flavour = PYTHON) -> tuple[int, ...]:
    """Return the numbers of the GPUs for a server's models; empty: the CPU.

    Args:
        asked: torch's GPU numbers, separated by commas; or `none`; None: all GPUs.
        flavour: the served configurations; only those of the Python backend support GPUs.

    Raises:
        ServerError: a GPU does not exist, `asked` is no list of numbers, or the flavour supports the CPU only.
    """
    if asked == "none" or (asked is None and flavour is not PYTHON):
        return ()
    if asked is None:
        return tuple(range(count_gpus()))
    words = [word.strip() for word in asked.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) < len(words):
        raise ServerError(f"gpus must be numbers with commas between, such as 0,1, or none, not {asked!r}")
    if flavour is not PYTHON:
        raise ServerError(f"gpus are for flavour python: the configurations of {flavour.name} are for the CPU")
    count = count_gpus()
    for gpu in map(int, words):
        if gpu >= count:
            there = f"GPUs 0 to {count - 1}" if count else "no GPU"
            raise ServerError(f"there is no GPU {gpu}: torch finds {there} on this machine")
    return tuple(map(int, words))


def count_gpus() -> int:
    """Return the number of GPUs that torch finds."""
    if not _DRIVER.exists():
        return 0  # importing torch takes seconds
    import torch

    return torch.cuda.device_count()


def visible_devices(gpus: Sequence[int], before: str | None) -> str:
    """Return the value of `CUDA_VISIBLE_DEVICES` that makes only these GPUs visible.

    Args:
        gpus: their numbers among the GPUs that are visible now.
        before: current value of the variable; None if it is not set.
    """
    names = before.split(",") if before else None
    return ",".join(names[gpu] if names else str(gpu) for gpu in gpus)
