"""Which network each term updates, and in which direction: the whole training step with one term switched on."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from homomorph.data.augmented import Jitter
from homomorph.data.batches import Batch, PairedBatches
from homomorph.data.labels import LabelledPictures
from homomorph.models.config import ModelConfig
from homomorph.models.perceptual import SmallVgg
from homomorph.models.pixels import normalise
from homomorph.training.networks import Networks, make_optimizers
from homomorph.training.parallel import Processes
from homomorph.training.recipe import PUBLISHED, Preset, Recipe
from homomorph.training.step import TrainingStep

OFF = Recipe(
    **{
        field.name: 0.0
        for field in dataclasses.fields(Recipe)
        if field.name.startswith(("l_", "lambda_")) or field.name in ("anchor", "feature_noise")
    }
)
PARTS = {
    "encoder": "model.encoder",
    "branches": "model.branches",
    "decoder": "model.decoder",
    "guidance": "guidance",
    "prototypes": "prototypes",
    "label_prior": "label_prior",
    "critic": "critic",
    "part_reader": "part_reader",
    "rest_reader": "rest_reader",
    "picture_critic": "picture_critic",
    "phi": "phi",
}
CRITICS = {"critic", "picture_critic", "rest_reader"}

# The weights that switch a term on, its phase, the networks that it may update, and the terms that have to fall.
CASES = {
    "reconstruction": ({"l_recon": 1.0, "l_pixel": 1.0}, "warm-up", {"encoder", "decoder"}, ("pixel", "phi3")),
    "guidance": ({"l_kg": 1.0}, "warm-up", {"encoder", "guidance"}, ("guidance",)),
    "scale": ({"l_scale": 1.0}, "warm-up", {"encoder"}, ("scale",)),
    "projection": ({"l_projection": 1.0}, "warm-up", {"encoder", "branches", "prototypes"}, ("projection",)),
    "residual": ({"l_residual": 1.0}, "warm-up", {"encoder", "branches"}, ("residual",)),
    "part": ({"l_part": 1.0}, "warm-up", {"encoder", "branches", "part_reader"}, ("part",)),
    "total": ({"l_total": 1.0}, "warm-up", {"branches"}, ("total",)),
    "detail": ({"l_detail": 1.0}, "morphs", {"encoder", "decoder"}, ("detail",)),
    "counterfactual": (
        {"l_counterfactual": 1.0},
        "morphs",
        {"encoder", "branches", "decoder"},
        ("counterfactual",),
    ),
    "rest": ({"l_rest": 1.0}, "morphs", {"encoder", "branches"}, ("rest",)),
    "gan": ({"l_gan": 1.0, "anchor": 1.0}, "critics", {"encoder", "branches"}, ("gan",)),
    "homomorphism": ({"l_hom": 1.0}, "critics", {"branches"}, ("homomorphism",)),
    "path": ({"l_path": 1.0}, "critics", {"encoder", "branches", "decoder"}, ("path",)),
    "pace": ({"l_pace": 1.0}, "critics", {"encoder", "branches", "decoder"}, ("pace",)),
    "agreement": ({"l_agreement": 1.0}, "critics", {"encoder", "branches", "decoder"}, ("agreement",)),
    "picture": ({"l_picture": 1.0}, "critics", {"encoder", "branches", "decoder"}, ("picture",)),
}


@pytest.fixture
def batch(data: LabelledPictures) -> Batch:
    batches = PairedBatches(data, batch_size=8, picture_size=32, jitter=Jitter(), seed=0)
    return batches[0]


@pytest.fixture
def nets(data: LabelledPictures, tiny: Preset) -> Networks:
    torch.manual_seed(0)
    config = ModelConfig(groups=data.groups, picture_size=32, network=tiny.network)
    networks = Networks(config, SmallVgg(len(config.attributes)))
    networks.phi.requires_grad_(False)
    networks.label_prior.requires_grad_(False)
    with torch.no_grad():
        for parameter in networks.parameters():
            # A weight of 0 would hide what lies behind it, and the branches start as what `total` asks for.
            parameter += 0.02 * torch.randn(parameter.shape)
    return networks


def _run(
    nets: Networks, batch: Batch, tiny: Preset, recipe: Recipe, phase: str, *, steps: int = 1, learning: set[str]
) -> list[dict[str, float]]:
    """Steps on one batch; only the networks in `learning` have a learning rate."""
    optimizers = make_optimizers(nets, tiny, recipe)
    for name, optimizer in optimizers.items():
        if name not in learning:
            optimizer.param_groups[0]["lr"] = 0.0
    pictures = normalise(batch.pictures, nets.model.config.network)
    balance = torch.ones(batch.labels.shape[1])
    take_step = TrainingStep(nets, optimizers, recipe, balance, seed=0, processes=Processes())
    return [take_step(batch, pictures, step=0, phase=phase) for _ in range(steps)]


def _changed(before: Networks, after: Networks) -> set[str]:
    changed = set()
    for name, path in PARTS.items():
        pairs = zip(before.get_submodule(path).parameters(), after.get_submodule(path).parameters(), strict=True)
        if any(not torch.equal(a, b) for a, b in pairs):
            changed.add(name)
    return changed


@pytest.mark.parametrize("term", CASES)
def test_a_term_updates_its_own_networks_only(term: str, nets: Networks, batch: Batch, tiny: Preset) -> None:
    weights, phase, networks, _ = CASES[term]
    before = copy.deepcopy(nets)
    _run(nets, batch, tiny, dataclasses.replace(OFF, **weights), phase, learning=set(PARTS))
    # The critics learn by their own losses in every step of their phase.
    expected = networks | ({"critic"} if phase == "critics" else set())
    expected |= {"picture": {"picture_critic"}, "rest": {"rest_reader"}}.get(term, set())
    assert _changed(before, nets) == expected


@pytest.mark.parametrize("term", CASES)
def test_a_term_falls_when_its_networks_learn(term: str, nets: Networks, batch: Batch, tiny: Preset) -> None:
    weights, phase, networks, falling = CASES[term]
    reports = _run(nets, batch, tiny, dataclasses.replace(OFF, **weights), phase, steps=8, learning=networks)
    for name in falling:
        assert reports[-1][name] < reports[0][name], name


@pytest.mark.parametrize(
    ("recipe", "falling"),
    [
        (OFF, "wasserstein"),
        (dataclasses.replace(OFF, lambda_p=1000.0), "penalty"),
        (OFF, "head"),
        (dataclasses.replace(OFF, l_picture=1e-9), "picture_critic"),
        (dataclasses.replace(OFF, l_rest=1e-9), "rest_reader"),
    ],
)
def test_a_critic_learns_its_own_losses(
    recipe: Recipe, falling: str, nets: Networks, batch: Batch, tiny: Preset
) -> None:
    faster = dataclasses.replace(tiny, critic_learning_rate=2e-3)
    reports = _run(nets, batch, faster, recipe, "critics", steps=8, learning=CRITICS)
    assert reports[-1][falling] < reports[0][falling]


def test_nothing_is_learned_without_terms(nets: Networks, batch: Batch, tiny: Preset) -> None:
    before = copy.deepcopy(nets)
    _run(nets, batch, tiny, OFF, "morphs", learning=set(PARTS))
    assert _changed(before, nets) == set()


def test_the_published_recipe_updates_every_network_of_the_paper(nets: Networks, batch: Batch, tiny: Preset) -> None:
    before = copy.deepcopy(nets)
    _run(nets, batch, tiny, PUBLISHED, "critics", learning=set(PARTS))
    assert _changed(before, nets) == {"encoder", "branches", "decoder", "guidance", "critic"}
