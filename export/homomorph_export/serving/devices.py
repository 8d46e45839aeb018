"""What of a machine a server may use: its cores and its GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from homomorph_client.errors import ServerError
from homomorph_export.flavours import PYTHON, Flavour

_DRIVER = Path("/proc/driver/nvidia")
"""There where a machine has NVIDIA's driver."""


def choose_cores(count: int | None) -> tuple[int, ...]:
    """Return the numbers of the cores that a server runs on.

    Args:
        count: how many; None for all that this process may use.

    Raises:
        ServerError: there are not so many.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if count is not None and not 1 <= count <= len(allowed):
        raise ServerError(f"cores must be from 1 to {len(allowed)}, which is what there is here, not {count}")
    return tuple(allowed[:count])


def choose_gpus(asked: str | None, flavour: Flavour = PYTHON) -> tuple[int, ...]:
    """Return the numbers of the GPUs that a server's models run on; none for the CPU.

    Args:
        asked: numbers with commas between, as torch counts them; `none`; None for all that there are.
        flavour: what is to be served; only the Python backend's configurations are for GPUs too.

    Raises:
        ServerError: one is not there, it is no list of numbers, or the flavour is for the CPU alone.
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
    """Return how many GPUs torch finds."""
    if not _DRIVER.exists():
        return 0  # without the seconds that torch takes to be imported
    import torch

    return torch.cuda.device_count()


def visible_devices(gpus: Sequence[int], before: str | None) -> str:
    """Return what `CUDA_VISIBLE_DEVICES` must be for these GPUs and no others.

    Args:
        gpus: their numbers among those that are visible now.
        before: what the variable is now; None if it is not set.
    """
    names = before.split(",") if before else None
    return ",".join(names[gpu] if names else str(gpu) for gpu in gpus)
