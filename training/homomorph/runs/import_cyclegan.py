"""Turns a generator's checkpoint of the PyTorch implementation in wide use (`pytorch-CycleGAN-and-pix2pix`) into a run.

homomorph import cyclegan latest_net_G.pth --direction summer --out runs/summer
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from homomorph.errors import CheckpointError
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import GENERATORS, CycleGANConfig
from homomorph.runs.checkpoints import check_empty, fitted, read_weights, write_run

PICTURE_SIZE = 256
"""Height and width in pixels that the published generators were trained at."""

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What old versions of torch wrote of an InstanceNorm although it used none of it."""


def import_cyclegan(
    file: Path,
    out: Path,
    *,
    direction: str = "translate",
    generator: str | None = None,
    picture_size: int = PICTURE_SIZE,
) -> CycleGAN:
    """Read `latest_net_G.pth` or its like, and write a run of one direction.

    Nothing is unpickled but tensors. The run appears whole or not at all. Weights that were trained with dropout are
    taken too; in evaluation it does nothing.

    Args:
        file: the checkpoint.
        out: run folder, new or empty.
        direction: what the generator does to a picture; names its served model.
        generator: one of `GENERATORS`; None to tell it from the names of the tensors.
        picture_size: height and width in pixels that the generator was trained at.

    Returns:
        The model, in evaluation mode.

    Raises:
        CheckpointError: the file is missing or holds something else than such a generator's weights, or `out` holds
            something already or cannot be written.
        ConfigError: the generator or the direction cannot be used, or the size does not suit the generator.
    """
    check_empty(out)
    weights = {
        _without_dropout(key): value for key, value in read_weights(file).items() if not key.endswith(_STATISTICS)
    }
    found = generator_of(weights)
    if found is None:
        raise CheckpointError(f"{file} holds no CycleGAN generator: known are {', '.join(GENERATORS)}")
    if generator not in (None, found):
        raise CheckpointError(f"{file} holds a {found}, not a {generator}")
    if _normalises_with_weights(weights):
        raise CheckpointError(f"{file} normalises with weights, as BatchNorm does; CycleGAN's InstanceNorm has none")
    config = CycleGANConfig((direction,), found, _filters(weights), picture_size)
    with torch.device("meta"):  # shapes alone: every weight comes from the file
        model = CycleGAN(config)
    network = model.generators[direction]
    network.load_state_dict(fitted(network.state_dict(), weights, file), assign=True)
    model.eval().requires_grad_(False)
    write_run(model, out)
    return model


def generator_of(weights: dict[str, Tensor]) -> str | None:
    """Tell which of `GENERATORS` a state dict belongs to by the names of its tensors; None if to none of them."""
    if not _filters(weights):
        return None
    blocks = {key.split(".")[1] for key in weights if ".conv_block." in key}
    # Each level of a U-Net stands within the one around it, as `model.1.` or `model.3.` of it.
    levels = max(key.split(".").count("model") for key in weights) - 1
    name = f"resnet_{len(blocks)}blocks" if blocks else f"unet_{2**levels}"
    return name if name in GENERATORS else None


def _filters(weights: dict[str, Tensor]) -> int:
    """Return how many channels the first convolution makes of a picture; 0 if there is no such convolution."""
    for key in ("model.1.weight", "model.model.0.weight"):
        weight = weights.get(key)
        if weight is not None and weight.dim() == 4 and weight.shape[1] == 3:
            return len(weight)
    return 0


def _normalises_with_weights(weights: dict[str, Tensor]) -> bool:
    return any(key.endswith(".weight") and value.dim() == 1 for key, value in weights.items())


def _without_dropout(key: str) -> str:
    """Rename the second convolution of a residual block with dropout, which stands one place further behind."""
    return re.sub(r"\.conv_block\.6\.", ".conv_block.5.", key)
