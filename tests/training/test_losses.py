"""Each training term against its equation, written out for small tensors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from homomorph.training import losses


def test_critic_and_generator_pull_in_opposite_directions() -> None:
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([1.0, -1.0])
    assert losses.critic_loss(real, fake).item() == pytest.approx(0.0 - 3.0)
    assert losses.generator_loss(fake, real, 0.0).item() == pytest.approx(0.0)
    assert losses.generator_loss(fake + 1, real, 0.0).item() == pytest.approx(-1.0)
    # With the anchor a shift of all features gains nothing.
    assert losses.generator_loss(fake + 5, real + 5, 1.0).item() == pytest.approx(3.0)
    assert losses.critic_loss(real, fake + 1).item() > losses.critic_loss(real, fake).item()


def test_gradient_penalty_is_zero_at_unit_slope_only() -> None:
    direction = torch.nn.functional.normalize(torch.randn(12), dim=0)
    real, fake, mix = torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2), torch.rand(5)

    def slope(times: float) -> Tensor:
        return losses.gradient_penalty(lambda x: times * (x.flatten(1) @ direction), real, fake, mix)

    assert slope(1.0).item() == pytest.approx(0.0, abs=1e-6)
    assert slope(3.0).item() == pytest.approx(4.0, rel=1e-4)


def test_gradient_penalty_trains_the_critic_through_its_second_derivative() -> None:
    weight = torch.full((4,), 2.0, requires_grad=True)
    real, fake = torch.randn(3, 4), torch.randn(3, 4)
    losses.gradient_penalty(lambda x: (x * weight).sum(dim=1), real, fake, torch.rand(3)).backward()
    # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    torch.testing.assert_close(weight.grad, torch.full((4,), 2 * (4 - 1) * 2 / 4))


def test_attribute_loss_is_the_cross_entropy_of_soft_labels() -> None:
    expected = -(0.25 * math.log(0.5) + 0.75 * math.log(0.5))
    known = torch.ones(1, 1, dtype=torch.bool)
    assert losses.attribute_loss(torch.zeros(1, 1), torch.tensor([[0.25]]), known).item() == pytest.approx(expected)
    right = losses.attribute_loss(torch.tensor([[4.0]]), torch.ones(1, 1), known)
    assert right.item() == pytest.approx(math.log1p(math.exp(-4)))


def test_attribute_loss_ignores_what_is_unknown() -> None:
    logits, labels = torch.randn(3, 2, requires_grad=True), torch.tensor([[1.0, 0], [0, math.nan], [1, math.nan]])
    known = torch.tensor([[True, True], [True, False], [True, False]])
    loss = losses.attribute_loss(logits, labels, known)
    kept = torch.stack([*logits[:, 0], logits[0, 1]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(kept, torch.tensor([1.0, 0, 1, 0]))
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[1:, 1] == 0).all()
    assert losses.attribute_loss(logits, labels, torch.zeros_like(known)).item() == 0


def test_attribute_loss_counts_rare_values_more() -> None:
    known = torch.ones(1, 2, dtype=torch.bool)
    balance = torch.tensor([[1.0, 5.0], [3.0, 1.0]])
    loss = losses.attribute_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), known, balance)
    assert loss.item() == pytest.approx((3 + 5) / 2 * math.log(2))
    even = losses.attribute_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), known, torch.ones(2, 2))
    assert even.item() == losses.attribute_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), known).item()


def test_mixed_labels_are_known_where_all_that_counts_is() -> None:
    nothing, all_of_b, half = torch.tensor([[0.0, 0]]), torch.tensor([[1.0, 1]]), torch.tensor([[0.5, 0.5]])
    labels_a, labels_b = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 0]])
    known_a, known_b = torch.tensor([[True, False]]), torch.tensor([[True, True]])

    def at(strengths: Tensor) -> tuple[list[list[float]], list[list[bool]]]:
        mixed, known = losses.mixed_labels(labels_a, labels_b, known_a, known_b, strengths)
        return mixed.tolist(), known.tolist()

    assert at(nothing) == ([[1, 0]], [[True, False]])
    assert at(all_of_b) == ([[0, 0]], [[True, True]])
    assert at(half) == ([[0.5, 0]], [[True, False]])


def test_relative_error_does_not_depend_on_the_scale() -> None:
    value, target = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])
    assert losses.relative_error(value, target).item() == pytest.approx(0.25, rel=1e-4)
    assert losses.relative_error(10 * value, 10 * target).item() == pytest.approx(0.25, rel=1e-4)


def test_pixel_error_is_absolute_plus_squared() -> None:
    picture = torch.tensor([[0.5, -2.0], [0.0, 0.0], [1.0, 0.0]]).view(1, 3, 1, 2)
    expected = torch.tensor([0.75 + 2, 2 + 4]).view(1, 1, 1, 2) / 3
    torch.testing.assert_close(losses.pixel_error(picture, torch.zeros(1, 3, 1, 2)), expected)


def test_total_loss_trains_the_morph_and_not_its_target() -> None:
    complete, target = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    losses.total_loss(complete, target).backward()
    assert complete.grad is not None
    assert target.grad is None
    torch.testing.assert_close(complete.grad, torch.full((2,), -1.0))


def test_projection_loss_wants_every_branch_explained_by_its_labels() -> None:
    deltas, expected, difference = torch.ones(2, 2, 1, 1, 1), torch.ones(2, 2, 1, 1, 1), torch.full((2, 1, 1, 1), 2.0)
    known = torch.ones(2, 2, dtype=torch.bool)
    assert losses.projection_loss(deltas, expected, difference, known).item() == pytest.approx(0.0)
    expected[:, 1] = 0  # group 1's labels are equal, yet its branch moves
    assert losses.projection_loss(deltas, expected, difference, known).item() == pytest.approx(1 / 2 + 1 / 4, rel=1e-4)
    deltas[:, 1] = 0.01  # it still counts when it moves little
    assert losses.projection_loss(deltas, expected, difference, known).item() == pytest.approx(1 / 2, rel=2e-2)


def test_projection_loss_leaves_a_group_out_where_its_labels_are_unknown() -> None:
    torch.manual_seed(0)
    deltas = torch.randn(3, 2, 4, 2, 2, requires_grad=True)
    expected = torch.randn(3, 2, 4, 2, 2, requires_grad=True)
    difference = torch.ones(3, 4, 2, 2)
    known = torch.tensor([[True, True], [True, False], [True, True]])
    loss = losses.projection_loss(deltas, expected, difference, known)
    own = [(deltas[:, 0], expected[:, 0]), (deltas[[0, 2], 1], expected[[0, 2], 1])]
    unexplained = torch.stack([(delta - wanted).square().mean() for delta, wanted in own])
    carried = torch.stack([delta.square().mean() for delta, _ in own])
    torch.testing.assert_close(loss, (unexplained / carried).mean() + unexplained.sum(), rtol=1e-5, atol=1e-5)
    for gradient in torch.autograd.grad(loss, (deltas, expected)):
        assert (gradient[1, 1] == 0).all()
        assert (gradient[1, 0] != 0).any()
    assert losses.projection_loss(deltas, expected, difference, torch.zeros_like(known)).item() == 0


def test_scale_loss_is_least_at_unit_variance() -> None:
    torch.manual_seed(0)
    d = torch.randn(10000) - torch.randn(10000)
    assert losses.scale_loss(d).item() < 0.01
    assert losses.scale_loss(2 * d).item() == pytest.approx(math.log(4) ** 2, rel=0.1)
    assert losses.scale_loss(d / 2).item() == pytest.approx(math.log(4) ** 2, rel=0.1)


def test_hinge_critic_loss_wants_real_above_one_and_both_fakes_below_minus_one() -> None:
    high, low = torch.tensor([1.5]), torch.tensor([-1.5])
    assert losses.hinge_critic_loss(high, low, low).item() == 0.0
    assert losses.hinge_critic_loss(low, low, low).item() == pytest.approx(2.5)
    assert losses.hinge_critic_loss(high, high, low).item() == pytest.approx(1.25)
    assert losses.hinge_critic_loss(high, low, high).item() == pytest.approx(1.25)
    assert losses.hinge_critic_loss(low, low, torch.empty(0)).item() == pytest.approx(2.5)


def test_label_prior_loss_fits_the_variance_to_the_errors() -> None:
    picture, mean = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5, requires_grad=True)

    def at(variance: float) -> Tensor:
        return losses.label_prior_loss(mean, torch.full((1, 1, 2, 2), variance), picture, torch.ones(1) == 1)

    assert at(0.25).item() == pytest.approx(0.5 + 0.25 + 0.5 * (math.log(0.25) + 1))
    assert at(0.25).item() < min(at(0.2).item(), at(0.3).item())
    # How sure the network is does not weigh what its mean learns.
    (sure,) = torch.autograd.grad(at(0.01), mean)
    (unsure,) = torch.autograd.grad(at(1.0), mean)
    torch.testing.assert_close(sure, unsure)
    assert (sure > 0).all()


def test_label_prior_loss_learns_from_fully_labelled_pictures_only() -> None:
    torch.manual_seed(0)
    mean, variance = torch.randn(3, 3, 2, 2, requires_grad=True), torch.rand(3, 1, 2, 2) + 0.1
    picture = torch.randn(3, 3, 2, 2)
    loss = losses.label_prior_loss(mean, variance, picture, torch.tensor([True, False, True]))
    kept = [0, 2]
    expected = losses.label_prior_loss(mean[kept], variance[kept], picture[kept], torch.ones(2) == 1)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, mean)
    assert (gradient[1] == 0).all()
    assert losses.label_prior_loss(mean, variance, picture, torch.zeros(3) == 1).item() == 0


def test_counterfactual_target_changes_what_labels_change_and_keeps_the_rest() -> None:
    # Four pixels in a row: labels change it and are sure; nothing changes; nothing is known; it changes, to what
    # is not known.
    picture = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(1, 3, 1, 4)
    mean = torch.tensor([0.0, 0.0, 0.0, 0.0]).expand(1, 3, 1, 4)
    changed = torch.tensor([1.0, 0.0, 0.0, 1.0]).expand(1, 3, 1, 4)
    variance = torch.tensor([0.001, 0.001, 1.0, 1.0]).view(1, 1, 1, 4)
    target, weight = losses.counterfactual_target(picture, mean, changed, variance)
    torch.testing.assert_close(target[0, :, 0, :3], torch.tensor([1.0, 0.2, 0.3]).expand(3, 3), atol=0.003, rtol=0)
    assert (target[0, :, 0, 3] > 0.6).all()
    assert (weight[..., :3] > 0.9).all()
    assert (weight[..., 3] < 0.1).all()


def test_attention_is_a_share_of_where_labels_change_something() -> None:
    changed = torch.zeros(2, 3, 1, 8)
    changed[0, ..., :1] = 0.5
    changed[1, ..., 2:6] = 2.0
    found = losses.attention(torch.zeros_like(changed), changed)
    expected = torch.tensor([[1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0.25, 0.25, 0.25, 0.25, 0, 0]])
    torch.testing.assert_close(found[:, 0, 0], expected, atol=1e-6, rtol=0)


def test_attention_says_where_and_not_how_much() -> None:
    changed = torch.zeros(1, 3, 1, 8)
    changed[..., 0], changed[..., 1] = 2.0, 0.7  # a mouth, and a brow of a fifth of its contrast
    found = losses.attention(torch.zeros_like(changed), changed)[0, 0, 0]
    assert found[1] > 0.9 * found[0]
    assert found[2:].sum() < 1e-6


def test_counterfactual_loss_counts_only_what_is_known() -> None:
    target = torch.zeros(1, 3, 1, 2)
    picture = torch.tensor([2.0, 5.0]).expand(1, 3, 1, 2)
    weight = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    attended, shows = torch.tensor([0.25, 0.75]).view(1, 1, 1, 2), torch.tensor([0])
    loss = losses.counterfactual_loss(picture, target, weight, shows, attended, 0.0)
    assert loss.item() == pytest.approx((2 + 4) / 2)
    loss = losses.counterfactual_loss(picture, target, weight, shows, attended, 2.0)
    assert loss.item() == pytest.approx(3 + 2 * 6 / 4)
    # No label differs.
    nowhere = losses.counterfactual_loss(picture, target, weight, shows[:0], attended[:0], 2.0)
    assert nowhere.item() == pytest.approx(3)


def test_counterfactual_loss_counts_labels_alike_and_more_where_they_are_worse() -> None:
    mouth, hair = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    mouth[..., 0, 0] = 1
    hair[..., 1:3, :] = 1 / 8
    attended, shows = torch.cat([mouth, hair]), torch.tensor([0, 0])
    target, weight = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4)

    def focused(where: torch.Tensor) -> tuple[float, torch.Tensor]:
        picture = (where > 0).float().expand(1, 3, 4, 4).clone().requires_grad_()  # wrong by 1 there
        plain = losses.counterfactual_loss(picture, target, weight, shows, attended, 0.0)
        loss = losses.counterfactual_loss(picture, target, weight, shows, attended, 1.0) - plain
        (gradient,) = torch.autograd.grad(loss, picture)
        return loss.item(), gradient.sum().item()

    for where in (mouth, hair, mouth + hair):
        assert focused(where) == pytest.approx((2, 3), rel=1e-4)


def _speed(points: torch.Tensor) -> float:
    """`path_loss` of a way [S, pixels] of which every step is looked at."""
    distances = points.diff(dim=0).abs().mean(dim=1)
    direct = (points[-1] - points[0]).abs().mean()
    return losses.path_loss(distances.unsqueeze(0), 1 / len(distances), direct.unsqueeze(0)).item()


def test_the_best_path_is_short_and_even() -> None:
    def speed(*points: float) -> float:
        return _speed(torch.tensor(points).unsqueeze(1))

    straight = speed(0, 0.25, 0.5, 0.75, 1)
    assert straight == pytest.approx(1, rel=0.02)
    assert speed(0, 0, 0.5, 1, 1) > 1.5 * straight  # a jump in the middle
    assert speed(0, 0.5, 0, 0.5, 1) > 1.5 * straight  # a way round
    # What stops half way is as fast as what arrives.
    assert speed(0, 0.125, 0.25, 0.375, 0.5) == pytest.approx(straight, rel=0.02)
    # The largest step counts more than it would in an energy.
    assert speed(0, 0.1, 0.2, 0.3, 1) > 1.5 * 4 * (3 * 0.1**2 + 0.7**2)


def test_the_best_pace_is_even_whatever_the_length() -> None:
    def pace(*distances: float) -> float:
        return losses.pace_loss(torch.tensor([distances], dtype=torch.float32)).item()

    assert pace(1, 1, 1, 1) == pytest.approx(1, rel=1e-4)
    assert pace(9, 9, 9, 9) == pytest.approx(1, rel=1e-4)
    assert pace(0, 2, 2, 0) == pytest.approx(2**0.5, rel=1e-4)
    assert pace(0, 0, 0, 4) == pytest.approx(2, rel=1e-4)


def test_an_edge_that_moves_costs_as_much_as_fading() -> None:
    fading = torch.linspace(0, 1, 5).view(5, 1).expand(5, 8)
    moving = (torch.arange(8) < 2 * torch.arange(5).view(5, 1)).float()
    assert _speed(moving) == pytest.approx(_speed(fading))


def test_nothing_is_concealed_from_a_reader_that_says_what_is_usual_only_then() -> None:
    labels = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    known = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    usual = torch.tensor([[0.25, 1.0]]).logit(eps=1e-7).expand(4, 2)
    assert losses.concealment_loss(usual, labels, known).item() == pytest.approx(0, abs=1e-6)
    right = 4 * (2 * labels - 1)
    assert losses.concealment_loss(right, labels, known).item() > 0.5
    assert losses.concealment_loss(-right, labels, known).item() > 0.5
    assert losses.concealment_loss(right, labels, known & False).item() == 0


def test_agreement_asks_for_what_both_show_and_for_nothing_else() -> None:
    a, b = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
    b[..., 1] = 1  # the second pixel differs
    frames = torch.zeros(1, 4, 3, 1, 2)
    frames[..., 1] = 7
    assert losses.agreement_loss(frames, a, b).item() == pytest.approx(0, abs=1e-6)
    frames[:, 0, :, :, 0] = 0.5  # one frame of four is off at the first pixel
    assert losses.agreement_loss(frames, a, b).item() == pytest.approx((0.5 + 0.25) / 8)
