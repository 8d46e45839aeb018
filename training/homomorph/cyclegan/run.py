"""A CycleGAN's run folder; it is written by `homomorph.run.save_model`, like that of any model."""

from __future__ import annotations

import json
from pathlib import Path

from homomorph.cyclegan.config import CycleGANConfig
from homomorph.cyclegan.networks import CycleGAN
from homomorph.run import CONFIG_FILE, load


def is_cyclegan(folder: Path) -> bool:
    """Return whether a folder is a CycleGAN's run; a folder that cannot be read is not."""
    try:
        return bool(json.loads((folder / CONFIG_FILE).read_text())["method"] == CycleGANConfig.method)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_cyclegan(folder: Path) -> CycleGAN:
    """Rebuild the generators of a run, in evaluation mode on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights belong to another configuration.
    """
    return load(folder, CycleGANConfig.from_dict, CycleGAN)
