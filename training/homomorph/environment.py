"""Hardware, versions and thread counts that a measurement depends on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

from homomorph_client.version import __version__


def versions() -> dict[str, str]:
    """Return the versions of homomorph, Python and torch."""
    return {
        "homomorph": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def environment() -> dict[str, Any]:
    """Return the hardware, versions and number of threads that a measurement depends on."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        **versions(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
