"""The served modules' own logic: which branches run, and how pixels become numbers and come back."""

from __future__ import annotations

import pytest
import torch

from homomorph.models.config import CompactConfig
from homomorph.models.morph import MorphModel, interpolate
from homomorph_export import torchscript
from homomorph_export.ops.interpolate import load_operator
from homomorph_export.servable import BranchServable, DecoderServable, EncoderServable, InterpolatorServable


class Poison(torch.nn.Module):
    """A branch whose output shows wherever it is used."""

    def forward(self, difference: torch.Tensor) -> torch.Tensor:
        return torch.full_like(difference, torch.nan)


@pytest.fixture(scope="module")
def poisoned(model: MorphModel) -> torch.jit.ScriptModule:
    load_operator()
    example = torch.zeros(2, 16, 4, 4)
    branches = [BranchServable(model.branches["hair"]), BranchServable(Poison())]
    return torchscript.script(InterpolatorServable([torchscript.trace(branch, example) for branch in branches]))


def test_an_unused_branch_is_not_computed(poisoned: torch.jit.ScriptModule, model: MorphModel):
    source, target = torch.randn(2, 3, 16, 4, 4)
    strengths = torch.rand(3, 5, 2)
    strengths[:, :, 1] = 0
    strengths[1, :, 0] = 0  # one request of the batch uses no branch at all
    deltas = torch.stack([model.branches["hair"](target - source), torch.zeros_like(source)], dim=1)
    torch.testing.assert_close(poisoned(source, target, strengths), interpolate(source, deltas, strengths))


def test_a_branch_is_computed_for_the_requests_that_use_it(poisoned: torch.jit.ScriptModule):
    source, target = torch.randn(2, 3, 16, 4, 4)
    strengths = torch.rand(3, 5, 2)
    strengths[[0, 2], :, 1] = 0
    spoiled = poisoned(source, target, strengths).isnan().flatten(1).any(dim=1)
    assert spoiled.tolist() == [False, True, False]


def test_pixels_survive_a_network_that_does_nothing():
    config = CompactConfig(picture_mean=(0.4, 0.5, 0.6), picture_std=(0.2, 0.3, 0.25))
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, 3)
    features = EncoderServable(torch.nn.Identity(), config)(pixels)
    frames = DecoderServable(torch.nn.Identity(), config)(features.unsqueeze(1))
    assert torch.equal(frames[:, 0], pixels)


def test_pixels_are_rounded_and_clamped():
    config = CompactConfig(picture_mean=(0.0, 0.0, 0.0), picture_std=(1.0, 1.0, 1.0))
    values = torch.tensor([-0.1, 0.0, 1.4 / 255, 1.6 / 255, 1.0, 1.3])
    features = values.view(1, 1, 1, 1, -1).expand(1, 1, 3, 1, -1)
    frames = DecoderServable(torch.nn.Identity(), config)(features)
    assert frames[0, 0, 0, :, 0].tolist() == [0, 0, 1, 2, 255, 255]
