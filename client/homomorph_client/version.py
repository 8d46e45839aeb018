"""Name of this distribution for pip, and its version."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "homomorph-interpolation"
"""Its name for pip. The packages are imported as `homomorph`, `homomorph_client` and so on."""
WEIGHTS = f"{DISTRIBUTION}-weights"
"""Name for pip of the weights that ship with homomorph."""
__version__ = "0.1.0"


def install_hint(extra: str) -> str:
    """Return the command that installs one of the extras of `pyproject.toml`, such as `train`.

    If pip installed homomorph from a folder, which `direct_url.json` records (PEP 610), the command names that folder.
    """
    try:
        installed = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        installed = {}
    folder = url2pathname(urlsplit(installed.get("url", "")).path) if "dir_info" in installed else ""
    option = "-e " if folder and installed["dir_info"].get("editable") else ""
    return f"pip install {option}{shlex.quote(f'{folder or DISTRIBUTION}[{extra}]')}"
