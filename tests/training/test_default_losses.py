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


ONE_PART = torch.zeros(1, 1, 1, 1)
"""All places belong to one group."""


def _turns(before: torch.Tensor, after: torch.Tensor, parts: torch.Tensor = ONE_PART) -> torch.Tensor:
    return losses.turns(before, after, parts.expand(len(before), -1, *before.shape[2:]))


def _sweep(frame: torch.Tensor, before: torch.Tensor, after: torch.Tensor, time: float) -> float:
    parts = ONE_PART.expand(1, 1, *frame.shape[2:])
    return losses.sweep_loss(frame, before, after, torch.tensor([time]), parts).item()


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


def test_places_take_turns_so_that_the_share_that_has_changed_is_the_time(
    way: tuple[torch.Tensor, torch.Tensor],
) -> None:
    turns = _turns(*way)
    for time in (0.25, 0.5, 0.75):
        assert (turns < time).float().mean().item() == pytest.approx(time, abs=0.02)
        frame = torch.where(turns < time, way[1], way[0])
        assert _sweep(frame, *way, time) == 0
    # Three of four rows would be white, and are black.
    assert _sweep(way[0], *way, 0.75) == pytest.approx(1.5, abs=0.1)
    ghost = _sweep(torch.zeros(1, 3, 32, 32), *way, 0.5)
    assert ghost == pytest.approx(1)
    # Where nothing changes, nothing is asked for.
    assert _sweep(way[0], way[0], way[0], 0.5) == 0


def test_what_gets_darker_changes_from_the_top_and_what_gets_lighter_from_the_bottom(
    way: tuple[torch.Tensor, torch.Tensor],
) -> None:
    black, white = way
    darker, lighter = _turns(white, black)[0, 0, :, 16], _turns(black, white)[0, 0, :, 16]
    assert darker[2] < 0.2 < 0.8 < darker[-2]
    assert lighter[-2] < 0.2 < 0.8 < lighter[2]


def test_the_way_back_is_the_same_way() -> None:
    a, b = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).split(2)
    torch.testing.assert_close(_turns(a, b), 1 - _turns(b, a))


def test_both_halves_of_a_face_change_together() -> None:
    generator = torch.Generator().manual_seed(0)
    half = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 4, generator=generator), scale_factor=4)
    a, b = torch.cat([half, half.flip(3)], dim=3).split(2)
    turns = _turns(a, b)
    torch.testing.assert_close(turns, turns.flip(3), atol=0.01, rtol=0)


def test_a_small_part_changes_as_a_whole() -> None:
    a, b = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    b[..., 10:50, 8:24] = -1  # hair on one side
    b[..., 30:33, 40:50] = -1  # a mouth
    turns = _turns(a, b)[0, 0]
    mouth, hair = turns[30:33, 40:50], turns[10:50, 8:24]
    assert (mouth.max() - mouth.min()).item() < 0.1 < 0.8 < (hair.max() - hair.min()).item()


def test_groups_change_one_after_the_other_in_slots_as_wide_as_the_root_of_their_share() -> None:
    a, b = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    b[..., :40] = -1  # hair
    b[..., 20:30, 46:60] = -1  # glasses
    parts = torch.zeros(1, 2, 64, 64)
    parts[:, 0, :, :40], parts[:, 1, 20:30, 46:60] = 1, 1
    turns = _turns(a, b, parts)[0, 0]
    hair, glasses = turns[:, :38], turns[21:29, 48:58]
    assert hair.max() < glasses.min() or glasses.max() < hair.min()
    share = 40 * 64 / (40 * 64 + 10 * 14)
    width = (hair.max() - hair.min()).item()
    assert width < share - 0.1
    assert width == pytest.approx(share**0.5 / (share**0.5 + (1 - share) ** 0.5), abs=0.05)
    torch.testing.assert_close(_turns(b, a, parts)[0, 0], 1 - turns, atol=0.02, rtol=0)
