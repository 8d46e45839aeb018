"""T_residual is completed at the end of a training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from homomorph.data.labels import LabelledPictures
from homomorph.models.config import ModelConfig, PublishedConfig
from homomorph.models.morph import MorphModel
from homomorph.training.completion import complete_residual
from homomorph.training.encoded_pictures import encoded
from homomorph.training.recipe import Preset


@pytest.fixture
def model(data: LabelledPictures, tiny: Preset) -> MorphModel:
    torch.manual_seed(0)
    model = MorphModel(ModelConfig(groups=data.groups, picture_size=32, network=tiny.network)).eval()
    with torch.no_grad():
        for parameter in model.branches.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return model


def _difference(model: MorphModel, data: LabelledPictures) -> Tensor:
    features = torch.cat([features for _, features in encoded(model, data, range(len(data.paths)), 20)])
    return features.roll(7, dims=0) - features


@torch.no_grad()
def _left(model: MorphModel, difference: Tensor) -> float:
    total: Tensor = sum(branch(difference) for branch in model.branches.values())  # type: ignore[assignment]
    return (difference - total).square().mean().item()


def test_all_branches_together_come_nearer_to_b_and_only_the_residual_one_changes(
    model: MorphModel, data: LabelledPictures
) -> None:
    before = copy.deepcopy(model)
    complete_residual(model, data, 0.1)
    difference = _difference(model, data)
    assert _left(model, difference) < 0.5 * _left(before, difference)
    changed = [
        name
        for (name, old), new in zip(before.named_parameters(), model.parameters(), strict=True)
        if not torch.equal(old, new)
    ]
    assert changed == ["branches.residual.conv2.weight"]
    # A second time, little is left to gain.
    once = _left(model, difference)
    complete_residual(model, data, 0.1)
    assert 0.5 * once < _left(model, difference) <= 1.01 * once


def test_branches_that_are_not_linear_stay_as_they_are(data: LabelledPictures) -> None:
    network = PublishedConfig(feature_channels=16, widths=(4, 6, 8, 12))
    model = MorphModel(ModelConfig(groups=data.groups, picture_size=32, network=network)).eval()
    before = copy.deepcopy(model.state_dict())
    complete_residual(model, data, 0.1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
