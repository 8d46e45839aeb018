"""The default recipe: its losses against their equations, and which networks each term updates."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from homomorph.data.augmented import Jitter
from homomorph.data.batches import ALL_GROUPS
from homomorph.data.labels import LabelledPictures
from homomorph.errors import ConfigError
from homomorph.training.default import losses
from homomorph.training.default.method import DefaultMethod
from homomorph.training.default.recipe import FRONTS, MORPHS, RECONSTRUCTION, TERMS, DefaultRecipe
from homomorph.training.losses import attribute_loss, weighted_mean
from homomorph.training.morph_method import NormalisedBatch
from homomorph.training.settings import MorphPreset

ALL_TERMS: dict[str, Any] = dict.fromkeys(TERMS, 1.0)
UPDATES = {
    "reconstruction": {"encoder", "decoder"},
    "arrive": {"encoder", "branches", "decoder"},
    "real": {"encoder", "branches", "decoder"},
    "labels": {"encoder", "branches", "decoder"},
    "keep": {"encoder", "branches", "decoder"},
    "total": {"encoder", "branches"},
    "idle": {"encoder", "branches"},
    "front": {"decoder"},
    "share": {"decoder"},
    "symmetry": {"decoder"},
}


@pytest.fixture
def method(data: LabelledPictures, tiny: MorphPreset) -> DefaultMethod:
    recipe = DefaultRecipe(**ALL_TERMS, morphs_from=0, fronts_from=0, blended=("hair_colour", "skin"))
    made = DefaultMethod(data, tiny, recipe, steps=10)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.networks.parameters():
            # The T_i start as what `total` asks for, and blocks as the identity.
            parameter += 0.02 * torch.randn(parameter.shape)
    return made


def _step(method: DefaultMethod, step: int = 0) -> tuple[NormalisedBatch, Any, Any]:
    batch = method.prepare(method.batches[step])
    draws = method.draw(batch, step, torch.Generator().manual_seed(step))
    return batch, draws, method.forward(batch, draws)


def test_a_recipe_has_ten_terms_and_each_has_a_weight() -> None:
    assert len(TERMS) == 10
    assert set(UPDATES) == set(TERMS) == set(DefaultRecipe().weights)


def test_a_term_of_weight_0_is_not_computed(data: LabelledPictures, tiny: MorphPreset) -> None:
    for recipe in (DefaultRecipe(morphs_from=0, fronts_from=0, arrive=1), DefaultRecipe(real=1, front=0, symmetry=0)):
        method = DefaultMethod(data, tiny, recipe, steps=10)
        terms = method.terms(*_step(method, 9))
        assert terms.keys() == {name for name, weight in recipe.weights.items() if weight > 0}
    without_critic = DefaultMethod(data, tiny, DefaultRecipe(arrive=1), steps=10)
    assert without_critic.critic_terms(*_step(without_critic, 9), 0) == {}


@pytest.mark.parametrize("term", TERMS)
def test_a_term_updates_its_own_networks_only(method: DefaultMethod, term: str) -> None:
    method.terms(*_step(method))[term].backward()
    changed = {
        name
        for name, part in method.model.named_children()
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
    }
    assert changed == UPDATES[term]


@pytest.mark.parametrize("term", TERMS)
def test_a_term_falls_when_the_model_learns(method: DefaultMethod, term: str) -> None:
    optimizer = torch.optim.Adam(method.model.parameters(), 1e-3)
    values = []
    for _ in range(8):
        value = method.terms(*_step(method))[term]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]


def test_the_critics_losses_reach_the_critic_alone_and_fall(method: DefaultMethod) -> None:
    optimizer = method.optimizers["critic"]
    optimizer.param_groups[0]["lr"] = 1e-3
    sums = []
    for _ in range(8):
        terms = method.critic_terms(*_step(method), 0)
        assert terms.keys() == {"judgement", "classifier", "penalty"}
        loss = torch.stack([method.critic_weights[name] * value for name, value in terms.items()]).sum()
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is None for parameter in method.model.parameters())
        optimizer.step()
        sums.append(loss.item())
    assert sums[-1] < sums[0]


def test_first_e_and_d_learn_alone(data: LabelledPictures, tiny: MorphPreset) -> None:
    recipe = DefaultRecipe(**ALL_TERMS, morphs_from=0.2, fronts_from=0.5)
    method = DefaultMethod(data, tiny, recipe, steps=10)
    assert [method.phase(step) for step in range(10)] == [RECONSTRUCTION] * 2 + [MORPHS] * 3 + [FRONTS] * 5
    batch, draws, output = _step(method)
    assert method.critic_terms(batch, draws, output, 0) == {}
    assert method.terms(batch, draws, output).keys() == {"reconstruction"}
    assert method.terms(*_step(method, 2)).keys() == set(TERMS) - {"front", "share", "symmetry"}


def test_what_a_step_draws_does_not_depend_on_the_weights(data: LabelledPictures, tiny: MorphPreset) -> None:
    first, second = (
        DefaultMethod(data, tiny, DefaultRecipe(morphs_from=0, fronts_from=0, keep=keep), steps=10) for keep in (0, 1)
    )
    (_, draws, _), (_, other, _) = _step(first), _step(second)
    assert torch.equal(draws.times, other.times)


def test_whole_frames_have_known_labels(method: DefaultMethod) -> None:
    batch, _, output = _step(method)
    wholes = output.wholes
    pairs, every = len(batch.source), method.batches.rows_of_all_groups.tolist()
    assert wholes.pair.tolist() == [*range(pairs), *every, *every]
    branches = method.config.branches
    blended = {"hair_colour", "skin", "residual"}
    for row, pair in enumerate(wholes.pair.tolist()):
        group = int(batch.group[pair])
        moved = {name for name, v in zip(branches, wholes.strengths[row].tolist(), strict=True) if v}
        if group != ALL_GROUPS:
            assert moved == {branches[group]}
        elif row < pairs:
            assert moved == set(branches) - {"residual"}
        else:
            assert moved == (set(branches) - blended if row < pairs + len(every) else blended)
        columns = [name in moved for name, names in method.config.groups.items() for _ in names]
        taken = torch.tensor(columns)
        expected = torch.where(taken, batch.labels[batch.target[pair]], batch.labels[batch.source[pair]])
        assert torch.equal(wholes.labels[row], expected)
        # What moved counts twice as much as what did not, however many labels either has.
        counts = wholes.counts[row]
        assert counts[taken].sum().item() == pytest.approx(1)
        if not taken.all():
            assert counts[~taken].sum().item() == pytest.approx(0.5)


def test_only_pairs_that_agree_otherwise_say_what_a_group_changes(data: LabelledPictures, tiny: MorphPreset) -> None:
    method = DefaultMethod(data, tiny, DefaultRecipe(arrive=1, morphs_from=0, fronts_from=1), steps=10)
    batch, draws, output = _step(method)
    ends = list(itertools.accumulate(len(names) for names in data.groups.values()))
    whole = output.whole.clone()
    for pair, group in enumerate(batch.group.tolist()):
        if group == ALL_GROUPS:
            continue
        own = slice(ends[group] - len(list(data.groups.values())[group]), ends[group])
        a, b = batch.labels[batch.source[pair]].clone(), batch.labels[batch.target[pair]].clone()
        a[own] = b[own] = 0
        if not torch.equal(a, b):
            whole[pair] = 100  # must not count
    changed = dataclasses.replace(output, whole=whole)
    assert method.terms(batch, draws, changed)["arrive"].item() < 10


def test_the_ends_of_a_way_have_the_colours_that_are_due(method: DefaultMethod) -> None:
    batch, draws, output = _step(method)
    a, b = batch.pictures[batch.source], batch.pictures[batch.target]
    before, after = method._ends(batch, draws, output, a, b)
    blended = [method.config.branches.index(name) for name in ("hair_colour", "skin")]
    every = method.batches.rows_of_all_groups.tolist()
    switching = dict(zip(every, output.whole[len(a) :], strict=False))
    blending = dict(zip(every, output.whole[len(a) + len(every) :], strict=True))
    for pair, group in enumerate(batch.group.tolist()):
        t, whole = draws.times[pair], output.whole[pair]
        if group == ALL_GROUPS:
            expected = (1 - t) * a[pair] + t * blending[pair], (1 - t) * switching[pair] + t * b[pair]
        elif group in blended:
            expected = ((1 - t) * a[pair] + t * whole,) * 2
        else:
            expected = a[pair], whole
        torch.testing.assert_close((before[pair], after[pair]), expected)
    assert not before.requires_grad
    assert not after.requires_grad


def test_weighted_mean_is_zero_where_nothing_counts() -> None:
    values = torch.tensor([[1.0, 2], [3, 4]])
    assert weighted_mean(values, torch.tensor([[1.0, 0], [1, 2]])).item() == pytest.approx((1 + 3 + 8) / 4)
    assert weighted_mean(values, torch.zeros(2, 2)).item() == 0


def test_reconstruction_counts_pixels_regions_and_edges() -> None:
    target = torch.zeros(1, 3, 8, 8)
    assert losses.reconstruction_loss(target, target).item() == 0
    grey = losses.reconstruction_loss(target + 0.1, target).item()
    assert grey == pytest.approx(0.1 + 0.05)
    checked = 0.1 * (1 - 2 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)).float().expand(1, 3, 8, 8)
    assert losses.reconstruction_loss(checked, target).item() == pytest.approx(0.1 + 0.5 * 0.2)


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
        residual = losses.residual_share(scale * deltas[:, -1], scale * (target - source))
        assert residual.item() == pytest.approx(0.1)
    size = torch.tensor(1.0, requires_grad=True)
    source, target, deltas = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.randn(2, 3, 4, 2, 2)
    loss = losses.total_loss(size * source, size * deltas, size * target)
    loss = loss + losses.residual_share(size * deltas[:, -1], size * (target - source))
    (gradient,) = torch.autograd.grad(loss, size)
    assert gradient.item() == pytest.approx(0, abs=1e-5)  # nothing is gained by smaller features


def test_idle_is_what_a_branch_carries_where_nothing_differs() -> None:
    sizes = torch.tensor([[3.0, 1.0], [1.0, 1.0], [4.0, 7.0]])
    distances = torch.tensor([4.0, 5.0, 6.0])
    agree = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    differ = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    for scale in (1, 10):
        idle = losses.idle_loss(scale * sizes, scale * distances, agree, differ)
        assert idle.item() == pytest.approx((1 / 3 + 1 / 7) / 2 + (1 + 1) / 5, rel=1e-4)
    # A group in which no two pictures differ says nothing of what it should carry.
    alone = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert losses.idle_loss(sizes, distances, agree, alone).item() == pytest.approx(1 / 3 + 2 / 5, rel=1e-4)
    assert losses.idle_loss(sizes, distances, torch.zeros(3, 2), torch.zeros(3, 2)).item() == 0


def test_groups_are_compared_by_what_is_known(method: DefaultMethod) -> None:
    batch, _, _ = _step(method)
    x, y = torch.tensor([0]), torch.tensor([1])
    labels, known = torch.zeros_like(batch.labels), torch.ones_like(batch.known)
    labels[0, 0] = 1  # expression differs
    known[1, 8] = 0  # a hair colour is unknown
    agree, differ = method._compared(dataclasses.replace(batch, labels=labels, known=known), x, y)
    groups = list(method.config.groups)
    assert differ[0].tolist() == [float(group == "expression") for group in groups]
    assert agree[0].tolist() == [float(group not in ("expression", "hair_colour")) for group in groups]


def test_arrive_counts_what_differs_however_small_it_is() -> None:
    a, b = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    b[..., 4:8, 4:8] = 1
    everything = losses.arrive_loss(a, a, b, torch.ones(1), 0.0).item()
    assert everything == pytest.approx(16 / 256)
    assert losses.arrive_loss(a, a, b, torch.ones(1), 1.0).item() == pytest.approx(16 / 256 + 16 / 36)
    assert losses.arrive_loss(b, a, b, torch.ones(1), 1.0).item() == 0
    assert losses.arrive_loss(a, a, b, torch.zeros(1), 1.0).item() == 0


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
    counts = torch.ones(1)
    ghost = losses.front_loss(torch.zeros(1, 3, 32, 32), *way, counts).item()
    front = losses.front_loss(_front_at(16), *way, counts).item()
    assert ghost == pytest.approx(1)
    assert front < 0.1
    assert losses.front_loss(way[0], *way, counts).item() == 0
    assert losses.front_loss(torch.zeros(1, 3, 32, 32), *way, torch.zeros(1)).item() == 0


def test_the_share_that_has_changed_is_the_time(way: tuple[torch.Tensor, torch.Tensor]) -> None:
    quarter = torch.tensor([0.25])
    assert losses.share_loss(_front_at(8), *way, quarter, torch.ones(1)).item() == pytest.approx(0, abs=1e-5)
    assert losses.share_loss(_front_at(24), *way, quarter, torch.ones(1)).item() == pytest.approx(0.25, rel=0.01)
    beyond = torch.zeros(1, 3, 32, 32) - 3  # an error, but in no direction to b
    assert losses.share_loss(beyond, *way, torch.tensor([0.0]), torch.ones(1)).item() == pytest.approx(1, rel=0.01)
    # Where both ends are alike there is no share.
    assert losses.share_loss(way[0], way[0], way[0], quarter, torch.ones(1)).item() == 0


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"front": -1.0}, r"recipe\.front must not be negative"),
        ({"morphs_from": 0.6}, r"recipe\.morphs_from must be at most fronts_from"),
        ({"twins": 2}, r"recipe\.twins is a share of the pairs"),
        ({"penalty_every": 0}, r"recipe\.penalty_every must be at least 1"),
    ],
)
def test_weights_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DefaultRecipe(**values)


def test_a_pair_that_is_moved_apart_has_no_front(data: LabelledPictures, tiny: MorphPreset) -> None:
    jittered = dataclasses.replace(tiny, jitter=Jitter(probability=1), batch_size=16)
    method = DefaultMethod(data, jittered, DefaultRecipe(morphs_from=0, fronts_from=0), steps=10)
    batch = method.prepare(method.batches[0])
    alike = method._moved_alike(batch)
    assert alike.mean().item() == pytest.approx(14 / 16)
    assert alike[batch.group != ALL_GROUPS].min().item() == 1
