"""The published recipe: its losses against their equations, and which networks each term updates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from homomorph.data.labels import LabelledPictures
from homomorph.training.published import losses
from homomorph.training.published.method import MORPHS, PHI, PublishedMethod
from homomorph.training.published.recipe import PublishedRecipe
from homomorph.training.settings import MorphPreset

UPDATES = {
    "phi3": {"model.encoder", "model.decoder"},
    "pixel": {"model.encoder", "model.decoder"},
    "guidance": {"model.encoder", "guidance"},
    "gan": {"model.encoder", "model.branches"},
    "homomorphism": {"model.branches"},
    "total": {"model.branches"},
}


@pytest.fixture
def method(data: LabelledPictures, tiny: MorphPreset) -> PublishedMethod:
    made = PublishedMethod(data, tiny, PublishedRecipe(phi_steps=1, critic_updates=2), steps=10)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.networks.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    return made


def _step(method: PublishedMethod, step: int = 1) -> tuple[Any, Any, Any]:
    batch = method.prepare(method.batches[step])
    draws = method.draw(batch, step, torch.Generator().manual_seed(step))
    return batch, draws, method.forward(batch, draws)


def test_phi_learns_first_and_alone(method: PublishedMethod) -> None:
    assert [method.phase(step) for step in range(3)] == [PHI, MORPHS, MORPHS]
    assert method.learners(0) == ("phi",)
    assert set(method.learners(1)) == {"model.encoder", "model.branches", "model.decoder", "guidance"}
    assert method.terms(*_step(method, 0)).keys() == {"phi"}
    assert method.critic_terms(*_step(method, 0), 0) == {}


@pytest.mark.parametrize("term", UPDATES)
def test_a_term_updates_its_own_networks_only(method: PublishedMethod, term: str) -> None:
    method.terms(*_step(method))[term].backward()
    learners = method.learners(1)
    reached = {
        name
        for name in learners
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in method.networks.get_submodule(name).parameters())
    }
    assert reached == UPDATES[term]


def test_the_critics_losses_reach_the_critic_alone_and_fall(method: PublishedMethod) -> None:
    optimizer = method.optimizers["critic"]
    optimizer.param_groups[0]["lr"] = 1e-3
    sums = []
    for _ in range(8):
        terms = method.critic_terms(*_step(method), 1)
        assert terms.keys() == {"wasserstein", "penalty", "head"} == method.critic_weights.keys()
        loss = torch.stack([method.critic_weights[name] * value for name, value in terms.items()]).sum()
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is None for parameter in method.model.parameters())
        optimizer.step()
        sums.append(loss.item())
    assert sums[-1] < sums[0]


def test_critic_and_generator_pull_in_opposite_directions() -> None:
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([1.0, -1.0])
    assert losses.critic_loss(real, fake).item() == pytest.approx(0.0 - 3.0)
    assert losses.generator_loss(fake).item() == pytest.approx(0.0)
    assert losses.generator_loss(fake + 1).item() == pytest.approx(-1.0)
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


def test_mixed_labels_are_known_where_both_are() -> None:
    labels = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 0]])
    known = torch.tensor([[1.0, 0]]), torch.tensor([[1.0, 1]])
    mixed, mixed_known = losses.mixed_labels(labels, known, torch.tensor([[0.25, 1.0]]))
    assert mixed.tolist() == [[0.75, 0]]
    assert mixed_known.tolist() == [[1, 0]]


def test_relative_error_does_not_depend_on_the_scale() -> None:
    value, target = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])
    assert losses.relative_error(value, target).item() == pytest.approx(0.25, rel=1e-4)
    assert losses.relative_error(10 * value, 10 * target).item() == pytest.approx(0.25, rel=1e-4)


def test_pixel_loss_is_absolute_plus_squared() -> None:
    picture = torch.tensor([[0.5, -2.0], [0.0, 0.0], [1.0, 0.0]]).view(1, 3, 1, 2)
    loss = losses.pixel_loss(picture, torch.zeros(1, 3, 1, 2))
    assert loss.item() == pytest.approx((0.75 + 2 + 2 + 4) / 6)


def test_total_loss_is_the_squared_distance_to_b() -> None:
    complete = torch.zeros(2, requires_grad=True)
    losses.total_loss(complete, torch.ones(2)).backward()
    assert complete.grad is not None
    torch.testing.assert_close(complete.grad, torch.full((2,), -1.0))
