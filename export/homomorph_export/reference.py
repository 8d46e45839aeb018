"""What a run's own networks compute from the inputs of served models, in float32: the reference for exported files.

Each function takes the run, the frames that the exported files computed, and the inputs. Only `chained` needs those
frames, because it compares each step of a chain by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MorphModel, interpolate
from homomorph.models.pixels import from_normalised, normalise
from homomorph.models.translator import Translator


@dataclass(frozen=True)
class MorphRun:
    """The networks of a run that morphs."""

    model: MorphModel
    label_features: LabelFeatures | None
    """None if the run has no features of labels."""


def morphed(run: MorphRun, frames: Tensor, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """Two pictures uint8 [B, H, W, 3] and strengths [B, S, K] -> uint8 [B, S, H, W, 3]."""
    return _frames(run.model, _encode(run.model, source), _encode(run.model, target), strengths)


def edited(run: MorphRun, frames: Tensor, source: Tensor, labels: Tensor, strengths: Tensor) -> Tensor:
    """Pictures uint8 [B, H, W, 3], labels [B, L] and strengths [B, S, K] -> uint8 [B, S, H, W, 3]."""
    assert run.label_features is not None
    features = _encode(run.model, source)
    height, width = features.shape[2:]
    return _frames(run.model, features, run.label_features(labels, (height, width)), strengths)


def chained(run: Translator, frames: Tensor, pictures: Tensor, steps: Tensor) -> Tensor:
    """Pictures uint8 [B, H, W, 3] and numbers of directions [B, S] -> uint8 [B, S, H, W, 3].

    Each step changes the exported frame of the step before it. So errors do not add up along a chain.
    """
    before = torch.cat([pictures.unsqueeze(1), frames[:, :-1]], dim=1)
    rows = [
        [run.changed(run.directions[number], picture[None]) for number, picture in zip(numbers, chain, strict=True)]
        for numbers, chain in zip(steps.tolist(), before, strict=True)
    ]
    return torch.stack([torch.cat(row) for row in rows])


def _encode(model: MorphModel, pictures: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> features [B, C, h, w]."""
    features: Tensor = model.encoder(normalise(pictures.permute(0, 3, 1, 2), model.config.network))
    return features


def _frames(model: MorphModel, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """Features [B, C, h, w] twice and strengths [B, S, K] -> uint8 [B, S, H, W, 3]."""
    features = interpolate(source, model.deltas(source, target), strengths)
    frames = from_normalised(model.decoder(features.flatten(0, 1)), model.config.network).permute(0, 2, 3, 1)
    return frames.view(*strengths.shape[:2], *frames.shape[1:])
