"""A CycleGAN's run folder; it is written by `homomorph.runs.run.save_model`, like that of any model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from homomorph.errors import CheckpointError
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.models.translator import Translator
from homomorph.runs.run import CONFIG_FILE, load_config_and_model
from homomorph.text_files import read_json


def is_cyclegan(folder: Path) -> bool:
    """Return whether a folder is a CycleGAN's run; a folder that cannot be read is not."""
    try:
        return bool(read_json(folder / CONFIG_FILE, CheckpointError).get("method") == CycleGANConfig.method)
    except (OSError, CheckpointError):
        return False


def load_cyclegan(folder: Path) -> CycleGAN:
    """Rebuild the generators of a run, in evaluation mode on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights belong to another configuration.
    """
    return load_config_and_model(folder, CycleGANConfig.from_dict, CycleGAN)


def load_translator(runs: Sequence[Path]) -> Translator:
    """Read the generators of several runs.

    Raises:
        CheckpointError: a run is missing or damaged, or not a CycleGAN's.
        ConfigError: as `Translator`.
    """
    for run in runs:
        if (run / CONFIG_FILE).is_file() and "groups" in read_json(run / CONFIG_FILE, CheckpointError):
            raise CheckpointError(f"{run} is no CycleGAN's run: `homomorph morph --run {run}` morphs with it")
    return Translator([load_cyclegan(run) for run in runs])
