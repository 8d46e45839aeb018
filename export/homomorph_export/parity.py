"""Measures that the exported TorchScript files compute what the run's own networks compute."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from homomorph.networks import MorphModel
from homomorph_export.contract import MAX_STRENGTH, branch_model
from homomorph_export.errors import ExportError
from homomorph_export.manifest import Parity

MEAN_TOLERANCE = 0.02
"""Largest mean absolute difference allowed, in grey levels."""
MAX_TOLERANCE = 1.0
"""Largest difference of one pixel's channel allowed, in grey levels: rounding may fall to either side."""

_BATCH_SIZES = (1, 3)
_STEPS = 3


def measure(model: MorphModel, exported: Mapping[str, torch.jit.ScriptModule]) -> Parity:
    """Compare frames on random pictures and strengths, by both ways through the exported files.

    Args:
        model: the run's networks, in float32.
        exported: the TorchScript modules by the names of the served models, as read back from their files.

    Raises:
        ExportError: the difference is beyond the tolerance.
    """
    size = model.config.picture_size
    picture_sizes = ((size, size), (2 * size, size))
    generator = torch.Generator().manual_seed(0)
    differences = []
    with torch.inference_mode():
        for batch in _BATCH_SIZES:
            for height, width in picture_sizes:
                source, target = torch.randint(0, 256, (2, batch, height, width, 3), generator=generator)
                source, target = source.to(torch.uint8), target.to(torch.uint8)
                strengths = torch.rand(batch, _STEPS, len(model.branches), generator=generator) * MAX_STRENGTH
                strengths[0, :, 0] = 0  # a branch that only the other requests of a batch use
                expected = _eager(model, source, target, strengths).int()
                differences += [
                    (frames.int() - expected).abs().double().flatten()
                    for frames in _exported(model, exported, source, target, strengths)
                ]
    difference = torch.cat(differences)
    parity = Parity(float(difference.mean()), float(difference.max()), _BATCH_SIZES, picture_sizes)
    if not (parity.mean <= MEAN_TOLERANCE and parity.max <= MAX_TOLERANCE):
        raise ExportError(
            f"the exported files compute other frames than the run: {parity.mean:.4f} grey levels off on average and "
            f"{parity.max:.0f} at most, where {MEAN_TOLERANCE} and {MAX_TOLERANCE:.0f} are allowed; nothing was written"
        )
    return parity


def _eager(model: MorphModel, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """Return the run's own frames, uint8 [B, S, H, W, 3]."""
    network = model.config.network
    mean, std = torch.tensor(network.picture_mean), torch.tensor(network.picture_std)
    pictures = [((picture / 255 - mean) / std).permute(0, 3, 1, 2) for picture in (source, target)]
    frames = model(*pictures, strengths).permute(0, 1, 3, 4, 2) * std + mean
    pixels: Tensor = (frames * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels


def _exported(
    model: MorphModel, exported: Mapping[str, torch.jit.ScriptModule], source: Tensor, target: Tensor, strengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Return frames, uint8 [B, S, H, W, 3], by way of the joint models and by way of the single ones."""
    features = exported["interpolator"](*exported["encoder_pair"](source, target), strengths)
    source_features, target_features = exported["encoder"](source), exported["encoder"](target)
    difference = exported["difference"](source_features, target_features)
    deltas = [exported[branch_model(branch)](difference) for branch in model.config.branches]
    features_by_branches = exported["interpolate"](source_features, *deltas, strengths)
    return exported["decoder"](features), exported["decoder"](features_by_branches)
