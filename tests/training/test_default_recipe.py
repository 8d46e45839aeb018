"""The default recipe: its phases, what a step draws and composes, and which networks each term updates."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from homomorph.data import avatars
from homomorph.data.augmented import Jitter
from homomorph.data.batches import ALL_GROUPS
from homomorph.data.labels import LabelledPictures
from homomorph.errors import ConfigError
from homomorph.training.default.draws import KEPT, Draws
from homomorph.training.default.method import DefaultMethod
from homomorph.training.default.recipe import DECODER, MORPHS, TERMS, DefaultRecipe
from homomorph.training.loop import take_step
from homomorph.training.morph_method import NormalisedBatch
from homomorph.training.parallel import Processes
from homomorph.training.settings import MorphPreset

ALL_TERMS: dict[str, Any] = dict.fromkeys(TERMS, 1.0)
UPDATES = {
    "reconstruction": {"encoder", "branches", "decoder"},
    "arrive": {"encoder", "branches", "decoder"},
    "real": {"encoder", "branches", "decoder"},
    "labels": {"encoder", "branches", "decoder"},
    "keep": {"encoder", "branches", "decoder"},
    "total": {"encoder", "branches"},
    "read": {"encoder", "branches"},
    "front": {"decoder"},
    "sweep": {"decoder"},
}


def _method(data: LabelledPictures, tiny: MorphPreset, **terms: float) -> DefaultMethod:
    recipe = DefaultRecipe(**{"critic_from": 0, "decoder_from": 1.0, **terms}, blended=("hair_colour", "skin"))
    made = DefaultMethod(data, tiny, recipe, steps=10)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.networks.parameters():
            # The T_i start as what `total` asks for, and blocks as the identity.
            parameter += 0.02 * torch.randn(parameter.shape)
    return made


@pytest.fixture
def method(data: LabelledPictures, tiny: MorphPreset) -> DefaultMethod:
    return _method(data, tiny, **ALL_TERMS)


@pytest.fixture
def decoder_alone(data: LabelledPictures, tiny: MorphPreset) -> DefaultMethod:
    return _method(data, tiny, arrive=1.0, decoder_from=0)


@pytest.fixture
def method_of_term(data: LabelledPictures, tiny: MorphPreset, term: str) -> DefaultMethod:
    if term in ("front", "sweep"):
        return _method(data, tiny, arrive=1.0, decoder_from=0)
    # Where a critic judges frames, hardly any has all labels of b.
    return _method(data, tiny, **ALL_TERMS | ({"real": 0.0, "labels": 0.0} if term == "arrive" else {}))


def _step(method: DefaultMethod, step: int = 0) -> tuple[NormalisedBatch, Any, Any]:
    batch = method.prepare(method.batches[step])
    draws = method.draw(batch, step, torch.Generator().manual_seed(step))
    return batch, draws, method.forward(batch, draws)


def test_a_recipe_has_nine_terms_and_each_has_a_weight() -> None:
    assert len(TERMS) == 9
    assert set(UPDATES) == set(TERMS) == set(DefaultRecipe().weights)


def test_a_term_of_weight_0_is_not_computed(data: LabelledPictures, tiny: MorphPreset) -> None:
    for recipe, expected in (
        (DefaultRecipe(real=1, critic_from=0, decoder_from=1), {"reconstruction", "real", "total"}),
        (DefaultRecipe(arrive=1, decoder_from=0), {"reconstruction", "arrive", "total", "front", "sweep"}),
        (DefaultRecipe(total=0, front=0, decoder_from=0), {"reconstruction", "sweep"}),
    ):
        method = DefaultMethod(data, tiny, recipe, steps=10)
        assert method.terms(*_step(method, 9)).keys() == expected
    without_fronts = DefaultMethod(data, tiny, DefaultRecipe(front=0, sweep=0, decoder_from=0), steps=10)
    assert _step(without_fronts)[2].way is None, "no frame on the way is decoded"
    without_critic = DefaultMethod(data, tiny, DefaultRecipe(arrive=1), steps=10)
    assert without_critic.critic_terms(*_step(without_critic, 9), 0) == {}


# In the first batch, no pair is moved alike that has all labels of b.
@pytest.mark.parametrize("term", TERMS)
def test_a_term_updates_its_own_networks_only(method_of_term: DefaultMethod, term: str) -> None:
    method = method_of_term
    method.terms(*_step(method, int(term == "arrive")))[term].backward()
    changed = {
        name
        for name, part in method.model.named_children()
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
    }
    assert changed == UPDATES[term]


@pytest.mark.parametrize("term", TERMS)
def test_a_term_falls_when_the_model_learns(method_of_term: DefaultMethod, term: str) -> None:
    method = method_of_term
    optimizer = torch.optim.Adam(method.model.parameters(), 1e-3)
    values = []
    for _ in range(16):
        value = method.terms(*_step(method, int(term == "arrive")))[term]
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


def test_the_critic_joins_later(data: LabelledPictures, tiny: MorphPreset) -> None:
    recipe = DefaultRecipe(**ALL_TERMS, critic_from=0.2, decoder_from=1)
    method = DefaultMethod(data, tiny, recipe, steps=10)
    assert {method.phase(step) for step in range(10)} == {MORPHS}
    batch, draws, output = _step(method)
    assert method.critic_terms(batch, draws, output, 0) == {}
    alone = {"reconstruction", "arrive", "keep", "total", "read"}
    assert method.terms(batch, draws, output).keys() == alone
    assert method.terms(*_step(method, 2)).keys() == alone | {"real", "labels"}


def test_the_decoder_learns_alone_at_last(data: LabelledPictures, tiny: MorphPreset) -> None:
    method = DefaultMethod(data, tiny, DefaultRecipe(arrive=1, decoder_from=0.5, decoder_rate=3e-3), steps=10)
    assert [method.phase(step) for step in range(10)] == [MORPHS] * 5 + [DECODER] * 5
    every = {"model.encoder", "model.branches", "model.decoder"}
    assert [set(method.learners(step)) for step in (0, 4, 5, 9)] == [every, every, {"model.decoder"}, {"model.decoder"}]

    # Its rate falls, rises to one of its own, and falls again.
    rates = [method.learning_rate("model.decoder", step) for step in range(10)]
    assert max(rates[:5]) == tiny.learning_rate
    assert max(rates[5:]) == 3e-3
    assert rates[4] < rates[3]
    assert rates[9] < rates[6]

    assert not _step(method, 5)[2].deltas.requires_grad, "activations of E and the T_i are not kept"
    # It learns frames on the way then.
    terms = [method.terms(*_step(method, step)).keys() for step in (4, 5)]
    assert terms == [{"reconstruction", "arrive", "total"}, {"reconstruction", "arrive", "total", "front", "sweep"}]

    for step, learning in ((4, {"encoder", "branches", "decoder"}), (5, {"decoder"})):
        before = {name: value.clone() for name, value in method.model.state_dict().items()}
        for name, optimizer in method.optimizers.items():
            optimizer.param_groups[0]["lr"] = method.learning_rate(name, step)
        take_step(method, method.prepare(method.batches[step]), step, seed=0, processes=Processes())
        changed = {name for name, value in method.model.state_dict().items() if not torch.equal(value, before[name])}
        assert {name.split(".")[0] for name in changed} == learning


def test_ways_lead_to_what_the_decoder_showed_when_it_began_to_learn_alone(
    data: LabelledPictures, tiny: MorphPreset
) -> None:
    method = DefaultMethod(data, tiny, DefaultRecipe(arrive=1, decoder_from=0.5), steps=10)
    teacher, mean = method.networks.teacher, method.mean_model.decoder
    for step in range(10):
        before = {name: value.clone() for name, value in mean.state_dict().items()}
        for name, optimizer in method.optimizers.items():
            optimizer.param_groups[0]["lr"] = method.learning_rate(name, step)
        take_step(method, method.prepare(method.batches[step]), step, seed=0, processes=Processes())
        if step == 5:
            finished = before
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, finished[name])
    assert any(not torch.equal(value, finished[name]) for name, value in mean.state_dict().items())


def test_most_pictures_are_still_while_the_decoder_learns_alone(data: LabelledPictures, tiny: MorphPreset) -> None:
    jittered = dataclasses.replace(tiny, jitter=Jitter(probability=1))
    method = DefaultMethod(data, jittered, DefaultRecipe(arrive=1, decoder_from=0.5), steps=16)
    still = [torch.equal(method.batches[step].placement, torch.eye(2, 3).expand(8, 2, 3)) for step in range(16)]
    assert still == [False] * 8 + [False, True, True, True] * 2


def test_frames_are_clamped_as_served_pictures_are(data: LabelledPictures, tiny: MorphPreset) -> None:
    method = DefaultMethod(data, tiny, DefaultRecipe(arrive=1, decoder_from=0), steps=10)
    with torch.no_grad():
        for parameter in method.model.decoder.parameters():
            parameter.mul_(3)
    batch, _, output = _step(method)
    frames = torch.cat([output.kept, output.whole, output.way.frame, output.way.before, output.way.after])
    assert frames.abs().max().item() == pytest.approx(1)
    # What lies beyond white still learns to be grey.
    features = method.model.encoder(batch.pictures).detach()
    beyond = method.model.decoder(features).detach().abs() > 1.1
    assert beyond.any()
    output.kept.mean().backward()
    last = list(method.model.decoder.parameters())[-1]
    assert last.grad is not None
    assert last.grad.abs().max() > 0


def test_what_a_step_draws_does_not_depend_on_weights(data: LabelledPictures, tiny: MorphPreset) -> None:
    first, second = (DefaultMethod(data, tiny, DefaultRecipe(decoder_from=0, keep=keep), steps=10) for keep in (0, 1))
    (_, draws, _), (_, other, _) = _step(first), _step(second)
    for name, value in vars(draws).items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(getattr(other, name)))


def _codes(method: DefaultMethod, batch: NormalisedBatch) -> list[list[tuple[float, ...]]]:
    """The labels of each picture, group by group."""
    sizes = [len(names) for names in method.config.groups.values()]
    return [[tuple(part.tolist()) for part in row.split(sizes)] for row in batch.labels]


def test_pictures_stand_in_only_for_those_that_they_agree_with(data: LabelledPictures, tiny: MorphPreset) -> None:
    for recipe in (DefaultRecipe(arrive=1), DefaultRecipe(**ALL_TERMS, decoder_from=1)):
        method = DefaultMethod(data, tiny, recipe, steps=10)
        swaps = 0
        for step in range(6):
            batch, draws, _ = _step(method, step)
            agree, codes = method._composition.agree(batch), _codes(method, batch)
            kept, moved = (
                method._composition.stand_ins_for_kept(batch, agree, draws),
                method._composition.stand_ins_for_whole(batch, agree, draws),
            )
            for pair, (a, b) in enumerate(zip(batch.source.tolist(), batch.target.tolist(), strict=True)):
                for group in range(len(method.config.groups)):
                    assert codes[kept[pair, group]][group] == codes[a][group]
                    # Without a critic, nothing but b says what is right, so all groups move.
                    moves = not recipe.has_critic or batch.group[pair] in (ALL_GROUPS, group)
                    wanted = b if moves else a
                    assert codes[moved[pair, group]][group] == codes[wanted][group]
                    swaps += int(kept[pair, group] != a)
                    others = sum(code[group] == codes[wanted][group] for code in codes) - 1
                    assert (moved[pair, group] == wanted) == (others == 0), "another one where there is one"
        assert swaps > 20


def test_unknown_labels_have_no_stand_in(method: DefaultMethod) -> None:
    batch, draws, _ = _step(method)
    known = torch.zeros_like(batch.known)
    agree = method._composition.agree(dataclasses.replace(batch, known=known))
    assert torch.equal(agree, torch.eye(len(known), dtype=torch.bool).unsqueeze(2).expand_as(agree))
    stand_ins = method._composition._stand_ins(agree, draws.scores[KEPT], batch.source)
    assert torch.equal(stand_ins, batch.source.unsqueeze(1).expand_as(stand_ins))


def test_a_composed_frame_takes_each_group_from_its_picture(method: DefaultMethod) -> None:
    batch, _, _ = _step(method)
    with torch.no_grad():
        features = method.model.encoder(batch.pictures)
        base, pictures = torch.tensor([0]), (torch.arange(len(avatars.GROUPS)) % 6).flip(0).unsqueeze(0)
        composed = method._composed(features, base, pictures)
        expected = features[0].clone()
        for group, index in zip(method.config.groups, pictures[0].tolist(), strict=True):
            expected += method.model.branches[group]((features[index] - features[0]).unsqueeze(0))[0]
    torch.testing.assert_close(composed[0], expected)


def test_whole_frames_shall_show_known_labels(method: DefaultMethod) -> None:
    batch, draws, _ = _step(method)
    strengths = torch.where(torch.arange(len(batch.source)) % 3 == 0, 0.5, 1.0)
    shown, counts = method._composition.frame_labels(batch, dataclasses.replace(draws, strengths=strengths))
    groups = list(method.config.groups)
    for pair, group in enumerate(batch.group.tolist()):
        moved = set(groups) if group == ALL_GROUPS else {groups[group]}
        taken = torch.tensor([name in moved for name, names in method.config.groups.items() for _ in names])
        expected = torch.where(taken, batch.labels[batch.target[pair]], batch.labels[batch.source[pair]])
        assert torch.equal(shown[pair], expected)
        # What moves counts twice as much as what does not, however many labels either has; on the way, nothing does.
        arrived = float(group != ALL_GROUPS and strengths[pair] == 1)
        assert counts[pair][taken].sum().item() == pytest.approx(arrived)
        if not taken.all():
            assert counts[pair][~taken].sum().item() == pytest.approx(0.5 * arrived)


def test_the_critic_sees_frames_on_the_way_and_whole_ones(method: DefaultMethod) -> None:
    batch, draws, output = _step(method)
    assert 0 < (draws.strengths < 1).sum() < len(draws.strengths)
    deltas, own = output.deltas, output.features_a
    every = batch.group == ALL_GROUPS
    way = own[every] + draws.times[every].view(-1, 1, 1, 1) * deltas[every].sum(dim=1)
    torch.testing.assert_close(output.whole[every], method.model.decoder(way), rtol=1e-3, atol=1e-4)
    still = dataclasses.replace(draws, strengths=torch.zeros_like(draws.strengths))
    frames = method.forward(batch, still).whole[~every]
    torch.testing.assert_close(frames, method.model.decoder(own[~every]), rtol=1e-3, atol=1e-4)
    before = DefaultMethod(
        method._data, method._preset, DefaultRecipe(real=1, critic_from=0.5, decoder_from=1), steps=10
    )
    assert _step(before)[2].whole is None


def test_fewer_groups_of_a_kept_frame_come_from_other_pictures(data: LabelledPictures, tiny: MorphPreset) -> None:
    share = []
    for swap in (0.0, 0.3, 1.0):
        method = DefaultMethod(data, tiny, DefaultRecipe(arrive=1, swap=swap), steps=10)
        drawn = [
            method.draw(method.prepare(method.batches[step]), step, torch.Generator().manual_seed(step)).swapped
            for step in range(20)
        ]
        share.append(torch.stack(drawn).float().mean().item())
    assert share == pytest.approx([0, 0.15, 0.5], abs=0.05)


def test_rates_fall_before_the_critic_joins_and_rise_again(data: LabelledPictures, tiny: MorphPreset) -> None:
    recipe = DefaultRecipe(real=1, critic_from=0.25, judged_rate=1e-3, decoder_from=1)
    method = DefaultMethod(data, tiny, recipe, steps=400)
    rates = [method.learning_rate("model.decoder", step) for step in range(400)]
    assert max(rates[:100]) == pytest.approx(tiny.learning_rate)
    assert rates[99] < 0.1 * tiny.learning_rate
    assert max(rates[100:]) == pytest.approx(1e-3)
    assert rates[399] < 1e-4
    assert rates[100] < rates[150]


@pytest.mark.parametrize("critic", [0.0, 0.2])
def test_a_whole_frame_is_compared_with_b_where_it_has_bs_labels(
    data: LabelledPictures, tiny: MorphPreset, critic: float
) -> None:
    method = DefaultMethod(data, tiny, DefaultRecipe(arrive=1, labels=critic, decoder_from=1), steps=10)
    batch, draws, output = _step(method)
    known = batch.known.clone()
    known[batch.target[0], 0] = 0
    batch = dataclasses.replace(batch, known=known)
    codes = _codes(method, batch)
    compared = torch.zeros(len(batch.group), dtype=torch.bool)
    for pair, group in enumerate(batch.group.tolist()):
        a, b = codes[batch.source[pair]], codes[batch.target[pair]]
        rest = [index for index in range(len(a)) if critic and group not in (ALL_GROUPS, index)]
        compared[pair] = all(a[index] == b[index] for index in rest) and bool(known[batch.target[pair]].all())
    compared &= method._composition.same_augmentation(batch) > 0
    if critic:
        compared &= (draws.strengths == 1) & (batch.group != ALL_GROUPS)
    assert compared[1:].any() or critic
    spoiled = torch.where(compared.view(-1, 1, 1, 1), output.whole, 100.0)
    value = method.terms(batch, draws, dataclasses.replace(output, whole=spoiled))["arrive"].item()
    assert value == pytest.approx(method.terms(batch, draws, output)["arrive"].item())
    if compared.any():
        spoiled = torch.where(compared.view(-1, 1, 1, 1), 100.0, output.whole)
        assert method.terms(batch, draws, dataclasses.replace(output, whole=spoiled))["arrive"].item() > 50


def _way(method: DefaultMethod, start: list[str], moving: list[str]) -> tuple[Any, ...]:
    """Give every pair of all groups the same way; return the batch, the draws and the step's frames."""
    batch, draws, _ = _step(method)
    branches = method.config.branches
    strengths = (
        torch.tensor([float(name in names) for name in branches]).expand_as(draws.start) for names in (start, moving)
    )
    changed: Draws = dataclasses.replace(draws, **dict(zip(("start", "moving"), strengths, strict=True)))
    return batch, changed, method.forward(batch, changed)


@pytest.mark.parametrize(
    ("start", "moving"),
    [
        ([], [*avatars.GROUPS, "residual"]),
        (["glasses"], ["hair_colour", "hair_style"]),
    ],
)
def test_the_ends_of_a_way_have_the_colours_that_are_due(
    decoder_alone: DefaultMethod, start: list[str], moving: list[str]
) -> None:
    method = decoder_alone
    batch, draws, output = _way(method, start, moving)
    branches, blended = method.config.branches, {"hair_colour", "skin", "residual"}
    a, b = batch.pictures[batch.source], batch.pictures[batch.target]

    def decoded(pair: int, names: set[str]) -> torch.Tensor:
        if not names:
            return a[pair]
        if names == set(branches):
            return b[pair]
        strengths = torch.tensor([float(name in names) for name in branches])
        moved = torch.einsum("k,kchw->chw", strengths, output.deltas[pair])
        own = output.features_a[pair]
        there, of_a = method.networks.teacher(torch.stack([own + moved, own])).clamp(-1, 1)
        # What the strengths do not change is as sharp as in a.
        return (a[pair] + there - of_a).clamp(-1, 1)

    for pair, group in enumerate(batch.group.tolist()):
        at, moves = (set(start), set(moving)) if group == ALL_GROUPS else (set(), {branches[group]})
        t = draws.times[pair]
        before = (1 - t) * decoded(pair, at) + t * decoded(pair, at | moves & blended)
        after = (1 - t) * decoded(pair, at | moves - blended) + t * decoded(pair, at | moves)
        torch.testing.assert_close(output.way.before[pair], before, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.way.after[pair], after, rtol=1e-4, atol=1e-5)
    assert not output.way.before.requires_grad
    assert not output.way.after.requires_grad


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"front": -1.0}, r"recipe\.front must not be negative"),
        ({"critic_from": 2}, r"recipe\.critic_from is a share"),
        ({"decoder_from": 1.5}, r"recipe\.decoder_from is a share"),
        ({"swap": 1.5}, r"recipe\.swap is a share"),
        ({"real": 1.0, "decoder_from": 0.5}, r"recipe\.decoder_from must be 1 where"),
        ({"penalty_every": 0}, r"recipe\.penalty_every must be at least 1"),
    ],
)
def test_weights_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DefaultRecipe(**values)


def test_pairs_of_one_group_are_moved_alike(data: LabelledPictures, tiny: MorphPreset) -> None:
    jittered = dataclasses.replace(tiny, jitter=Jitter(probability=1), batch_size=16)
    method = DefaultMethod(data, jittered, DefaultRecipe(), steps=10)
    batch = method.prepare(method.batches[0])
    alike = method._composition.same_augmentation(batch)
    assert alike.mean().item() == pytest.approx(12 / 16)
    assert alike[batch.group != ALL_GROUPS].min().item() == 1
