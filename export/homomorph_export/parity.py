"""Measures that exported files compute what the run's own networks compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from homomorph.models.blending import FEATURE_METHODS, blend
from homomorph.models.config import ModelConfig
from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MAX_STRENGTH, MorphModel, interpolate
from homomorph.models.pixels import from_normalised, normalise
from homomorph_client.names import BLENDS, PIXEL
from homomorph_export.contract import branch_model, mix_model
from homomorph_export.errors import ExportError
from homomorph_export.manifest import Parity
from homomorph_export.precision import TOLERANCES

BATCH_SIZES = (1, 3)
"""Batch sizes that are compared."""
_STEPS = 3

Exported = Mapping[str, Callable[..., Any]]
"""What runs the files, by the names of the served models: from tensors to a tensor or a tuple of them."""


@dataclass(frozen=True)
class Case:
    """One batch of requests, and the run's own answers."""

    source: Tensor
    """uint8 [B, H, W, 3]."""
    target: Tensor
    """uint8 [B, H, W, 3]."""
    strengths: Tensor
    """[B, S, K]."""
    frames: Tensor
    """Of the morph: uint8 [B, S, H, W, 3]."""
    labels: Tensor | None
    """[B, L]; None if the run does not know what labels look like."""
    edited_frames: Tensor | None
    """Of the source edited towards the labels; None without labels."""
    corners: Tensor
    """Pictures to blend, uint8 [B, 4, H, W, 3]."""
    places: Tensor
    """Where frames stand between them, [B, S, 2]."""
    blends: dict[str, Tensor]
    """Of each method of blending: uint8 [B, S, H, W, 3]."""


def random_pictures(size: tuple[int, int], count: int) -> Tensor:
    """Return pictures of random pixels, uint8 [count, H, W, 3]: nothing a network could be lucky with."""
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, *size, 3), generator=generator).to(torch.uint8)


@torch.inference_mode()
def cases(
    model: MorphModel,
    label_features: LabelFeatures | None,
    pictures: Callable[[tuple[int, int], int], Tensor] = random_pictures,
) -> list[Case]:
    """Return batches of several sizes, of pictures of several sizes, with the answers of the run's eager networks.

    Args:
        model: the run's networks, in float32.
        label_features: the run's, if it has them.
        pictures: returns so many pictures of a size, uint8 [count, H, W, 3].
    """
    config = model.config
    size = config.picture_size
    generator = torch.Generator().manual_seed(0)
    found = []
    for batch in BATCH_SIZES:
        for picture_size in ((size, size), (2 * size, size)):
            source, target = pictures(picture_size, 2 * batch).chunk(2)
            strengths = torch.rand(batch, _STEPS, len(config.branches), generator=generator) * MAX_STRENGTH
            strengths[0, :, 0] = 0  # a branch that no request uses, or only the others of a batch
            labels = edited = None
            source_features, target_features = (_encode(model, picture) for picture in (source, target))
            if label_features is not None:
                labels = torch.randint(0, 2, (batch, len(config.attributes)), generator=generator).float()
                height, width = source_features.shape[2:]
                edited = _frames(model, source_features, label_features(labels, (height, width)), strengths)
            frames = _frames(model, source_features, target_features, strengths)
            corners = torch.stack([source, target, source.flip(2), target.flip(2)], dim=1)
            places = torch.rand(batch, _STEPS, 2, generator=generator)
            blends: dict[str, Tensor] = {method: blend(model, method, corners, places) for method in BLENDS}
            found.append(Case(source, target, strengths, frames, labels, edited, corners, places, blends))
    return found


@torch.inference_mode()
def compare(found: Sequence[Case], exported: Exported, config: ModelConfig, *, kind: str, precision: str) -> Parity:
    """Compare frames by every way through the exported files: joint models, single ones, editing and blending.

    Args:
        found: what to compare on.
        exported: what runs the files, as read back from them.
        config: the run's configuration.
        kind: name of the file format, for the message.
        precision: number format of these files, which decides the tolerance.

    Raises:
        ExportError: the difference is beyond the tolerance.
    """
    pairs = []
    for case in found:
        source, target = exported["encoder_pair"](case.source, case.target)
        ways = [(exported["interpolator"](source, target, case.strengths), case.frames)]
        source, target = exported["encoder"](case.source), exported["encoder"](case.target)
        difference = exported["difference"](source, target)
        deltas = [exported[branch_model(branch)](difference) for branch in config.branches]
        ways.append((exported["interpolate"](source, *deltas, case.strengths), case.frames))
        if case.labels is not None and case.edited_frames is not None:
            target = exported["label_target"](source, case.labels)
            ways.append((exported["interpolator"](source, target, case.strengths), case.edited_frames))
        corners = exported["encoder_corners"](case.corners)
        ways += [(exported[mix_model(method)](corners, case.places), case.blends[method]) for method in FEATURE_METHODS]
        pairs.append((exported[PIXEL](case.corners, case.places), case.blends[PIXEL]))
        if "morpher" in exported:
            pairs.append((exported["morpher"](case.source, case.target, case.strengths), case.frames))
        for features, expected in ways:
            pairs.append((exported["decoder"](features), expected))
    return judged(pairs, kind=kind, precision=precision)


def judged(pairs: Sequence[tuple[Tensor, Tensor]], *, kind: str, precision: str) -> Parity:
    """Measure how far pictures are from what they should be, and check that it is not too far.

    Args:
        pairs: what files of the format gave, and what the run gives: both uint8 [B, ..., H, W, 3].
        kind: name of the file format, for the message.
        precision: number format of these files, which decides the tolerance.

    Raises:
        ExportError: the difference is beyond the tolerance.
    """
    difference = torch.cat([(found.int() - expected.int()).abs().double().flatten() for found, expected in pairs])
    parity = Parity(
        precision=precision,
        mean=float(difference.mean()),
        max=float(difference.max()),
        batch_sizes=tuple(sorted({expected.shape[0] for _, expected in pairs})),
        picture_sizes=tuple(sorted({(expected.shape[-3], expected.shape[-2]) for _, expected in pairs})),
    )
    tolerance = TOLERANCES[precision]
    # Written so that NaN is not within the tolerance.
    if not (parity.mean <= tolerance.mean and (tolerance.max is None or parity.max <= tolerance.max)):
        at_most = "" if tolerance.max is None else f" and {tolerance.max:g}"
        raise ExportError(
            f"the {kind} files ({precision}) compute other frames than the run: {parity.mean:.4f} grey levels off on "
            f"average and {parity.max:.0f} at most, where {tolerance.mean:g}{at_most} are allowed; nothing was written"
        )
    return parity


def _encode(model: MorphModel, pictures: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> features [B, C, h, w]."""
    features: Tensor = model.encoder(normalise(pictures.permute(0, 3, 1, 2), model.config.network))
    return features


def _frames(model: MorphModel, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """Features [B, C, h, w] twice and strengths [B, S, K] -> uint8 [B, S, H, W, 3]."""
    features = interpolate(source, model.deltas(source, target), strengths)
    frames = from_normalised(model.decoder(features.flatten(0, 1)), model.config.network).permute(0, 2, 3, 1)
    return frames.view(*strengths.shape[:2], *frames.shape[1:])
