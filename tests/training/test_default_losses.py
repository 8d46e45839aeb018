"""The losses of the default recipe, against their equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from homomorph.training.default import losses
from homomorph.training.losses import attribute_loss, weighted_mean


def test_weighted_mean_is_zero_where_nothing_counts() -> None:
    values = torch.tensor([[1.0, 2], [3, 4]])
    assert weighted_mean(values, torch.tensor([[1.0, 0], [1, 2]])).item() == pytest.approx((1 + 3 + 8) / 4)
    assert weighted_mean(values, torch.zeros(2, 2)).item() == 0


def test_reconstruction_counts_pixels_regions_and_edges() -> None:
    target, weight = torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
    assert losses.reconstruction_loss(target, target, weight).item() == 0
    grey = losses.reconstruction_loss(target + 0.1, target, weight).item()
    assert grey == pytest.approx(0.12 + 0.05)
    checked = 0.1 * (1 - 2 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)).float().expand(1, 3, 8, 8)
    assert losses.reconstruction_loss(checked, target, weight).item() == pytest.approx(0.12 + 0.5 * 0.2)
    assert losses.reconstruction_loss(target + 0.1, target, 3 * weight).item() == pytest.approx(3 * 0.12 + 0.05)


def test_critic_and_generator_pull_in_opposite_directions() -> None:
    logits = torch.tensor([0.3, -2.0])
    assert losses.real_loss(logits).item() == pytest.approx(nn.functional.softplus(-logits).mean().item())
    assert losses.fake_loss(logits).item() == pytest.approx(losses.real_loss(-logits).item())


def test_unknown_labels_count_nothing() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    labels, counts = torch.randint(0, 2, (4, 3)).float(), torch.ones(4, 3)
    counts[1:, 1] = 0
    for loss in (
        attribute_loss(logits, labels, counts),
        losses.conditional_loss(logits, counts, real=True),
        losses.conditional_loss(logits, counts, real=False),
    ):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert (gradient[1:, 1] == 0).all()
        assert (gradient[:, 0] != 0).all()
    assert attribute_loss(logits, labels, torch.zeros(4, 3)).item() == 0


def test_rare_values_count_more() -> None:
    balance = torch.tensor([[1.0, 5.0], [3.0, 1.0]])
    loss = attribute_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2), balance)
    assert loss.item() == pytest.approx((3 + 5) / 2 * math.log(2))


def test_the_penalty_is_half_the_squared_gradient() -> None:
    pictures = torch.randn(2, 3, 4, 4, requires_grad=True)
    penalty = losses.gradient_penalty((3 * pictures).sum(), pictures)
    assert penalty.item() == pytest.approx(9 * 48 / 2)


def test_terms_do_not_depend_on_the_size_of_features() -> None:
    source, target = torch.zeros(2, 4, 2, 2), torch.full((2, 4, 2, 2), 2.0)
    deltas = torch.stack([target * 0.25, target * 0.25, target * 0.1], dim=1)
    for scale in (1, 10):
        total = losses.total_loss(scale * source, scale * deltas, scale * target)
        assert total.item() == pytest.approx(0.4)
    size = torch.tensor(1.0, requires_grad=True)
    source, target, deltas = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.randn(2, 3, 4, 2, 2)
    loss = losses.total_loss(size * source, size * deltas, size * target)
    (gradient,) = torch.autograd.grad(loss, size)
    assert gradient.item() == pytest.approx(0, abs=1e-5)  # nothing is gained by smaller features


def test_arrive_counts_what_differs_however_small_it_is() -> None:
    a, b = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    b[..., 4:8, 4:8] = 1
    counts, weight = torch.ones(1), torch.ones(1, 1, 16, 16)
    everything = losses.arrive_loss(a, a, b, counts, weight, 0.0).item()
    assert everything == pytest.approx(3 * 16 / 256)
    assert losses.arrive_loss(a, a, b, counts, weight, 1.0).item() == pytest.approx(3 * (16 / 256 + 16 / 36))
    assert losses.arrive_loss(b, a, b, counts, weight, 1.0).item() == 0
    assert losses.arrive_loss(a, a, b, 0 * counts, weight, 1.0).item() == 0


@pytest.fixture
def way() -> tuple[torch.Tensor, torch.Tensor]:
    """Both ends of a way: all black, and all white."""
    return -torch.ones(1, 3, 32, 32), torch.ones(1, 3, 32, 32)


def _front_at(column: int) -> torch.Tensor:
    """White on the left of this column, black on its right."""
    frame = -torch.ones(1, 3, 32, 32)
    frame[..., :column] = 1
    return frame


def test_a_front_costs_little_and_a_ghost_much(way: tuple[torch.Tensor, torch.Tensor]) -> None:
    ghost = losses.front_loss(torch.zeros(1, 3, 32, 32), *way).item()
    front = losses.front_loss(_front_at(16), *way).item()
    assert ghost == pytest.approx(1)
    assert front < 0.1
    assert losses.front_loss(way[0], *way).item() == 0


def test_the_share_that_has_changed_is_the_time(way: tuple[torch.Tensor, torch.Tensor]) -> None:
    quarter = torch.tensor([0.25])
    assert losses.share_loss(_front_at(8), *way, quarter).item() == pytest.approx(0, abs=1e-5)
    assert losses.share_loss(_front_at(24), *way, quarter).item() == pytest.approx(0.25, rel=0.01)
    beyond = torch.zeros(1, 3, 32, 32) - 3  # an error, but in no direction to b
    assert losses.share_loss(beyond, *way, torch.tensor([0.0])).item() == pytest.approx(1, rel=0.01)
    # Where both ends are alike there is no share.
    assert losses.share_loss(way[0], way[0], way[0], quarter).item() == 0


def test_both_halves_change_together(way: tuple[torch.Tensor, torch.Tensor]) -> None:
    still = torch.eye(2, 3).unsqueeze(0)
    both = torch.maximum(_front_at(8), _front_at(8).flip(3))
    for frame, least, most in ((_front_at(16), 0.8, 1.0), (both, 0.0, 0.01)):
        loss = losses.symmetry_loss(frame, *way, losses.mirror_of(still), torch.ones(1)).item()
        assert least <= loss <= most


def test_the_mirror_axis_moves_with_the_picture(way: tuple[torch.Tensor, torch.Tensor]) -> None:
    moved = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])  # the original's middle lies at x = -0.5
    grid = nn.functional.affine_grid(moved, [1, 1, 32, 32], align_corners=False)
    both = torch.maximum(_front_at(8), _front_at(8).flip(3))
    frame = nn.functional.grid_sample(both, grid, padding_mode="border", align_corners=False)
    right = losses.symmetry_loss(frame, *way, losses.mirror_of(moved), torch.ones(1)).item()
    wrong = losses.symmetry_loss(frame, *way, losses.mirror_of(torch.eye(2, 3).unsqueeze(0)), torch.ones(1)).item()
    assert right < 0.02 < 0.2 < wrong
