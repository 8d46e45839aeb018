"""Weights of networks that measure, in torch hub's cache. homomorph neither brings nor downloads them."""

from __future__ import annotations

from pathlib import Path

import torch


def cached_weights(url: str) -> Path:
    """Return where torch hub keeps the file of this address."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(url).name)


def from_home(path: Path) -> str:
    """Return a path with `~` for the user's home, so that a result file names no folder of one machine."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
