"""Name of this distribution for pip, and its version."""

from __future__ import annotations

DISTRIBUTION = "homomorph-interpolation"
"""Its name for pip. The packages are imported as `homomorph`, `homomorph_client` and so on."""
WEIGHTS = f"{DISTRIBUTION}-weights"
"""Name for pip of the weights that ship with homomorph."""
__version__ = "0.1.0"


def install_hint(extra: str) -> str:
    """Return the command that installs one of the extras of `pyproject.toml`, such as `train`."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
