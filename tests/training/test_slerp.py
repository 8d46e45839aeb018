"""Spherical mixing where a great circle is not defined."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from homomorph.models.blending import spherical

STEPS = torch.linspace(0, 1, 5)


def mixed(a: Tensor, b: Tensor) -> Tensor:
    """Mix two vectors in even steps: [C] twice -> [5, C]."""
    return spherical(a.view(1, -1, 1, 1), b.view(1, -1, 1, 1), STEPS).flatten(1)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]),
        ([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]),
        ([1.0, 2.0, 3.0], [-3.0, -6.0, -9.0]),
        ([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ],
    ids=["same", "parallel", "opposite", "opposite and longer", "from nothing", "to nothing", "nothing"],
)
def test_without_a_great_circle_it_is_linear(a: list[float], b: list[float]) -> None:
    ends = torch.tensor(a), torch.tensor(b)
    torch.testing.assert_close(mixed(*ends), torch.lerp(*ends, STEPS[:, None]))


def test_nearly_opposite_vectors_still_go_around() -> None:
    frames = mixed(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.01]))
    torch.testing.assert_close(frames.norm(dim=1), torch.ones(5), rtol=0, atol=0.01)
    torch.testing.assert_close(frames[2], torch.tensor([0.0, 1.0]), rtol=0, atol=0.01)


def test_the_rest_of_a_batch_keeps_its_circle() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(2, 2, 1, 1)
    b = torch.tensor([[-1.0, 0.0], [0.0, 1.0]]).view(2, 2, 1, 1)
    frames = spherical(a, b, torch.full((2,), 0.5)).flatten(1)
    torch.testing.assert_close(frames, torch.tensor([[0.0, 0.0], [0.5**0.5, 0.5**0.5]]))
