"""Hardware, versions and thread counts that a measurement depends on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from homomorph_client.version import __version__


def versions() -> dict[str, str]:
    """Return the versions of homomorph, Python and torch."""
    import torch  # not at the top: a server that asks for the processor's name would take seconds longer to start

    return {
        "homomorph": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def environment() -> dict[str, Any]:
    """Return the hardware, versions and number of threads that a measurement depends on."""
    import torch

    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        **versions(),
    }


def cpu_name() -> str:
    """Return the processor's name, such as `AMD EPYC 9B14`."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
