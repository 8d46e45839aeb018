"""`homomorph bench train`: both orders of work are the same step, and what is counted is what they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from homomorph.models.config import PublishedConfig
from homomorph.models.perceptual import SmallVgg, Vgg19
from homomorph.progress import Progress, Report
from homomorph.runs.import_homointerpgan import CELEBA_GROUPS
from homomorph.training.recipe import Preset
from homomorph_bench import train
from homomorph_bench.timing import Timing
from homomorph_bench.train import (
    OUR_PASSES,
    PUBLISHED_PASSES,
    Passes,
    Way,
    measure,
    prepare,
    take_our_step,
    take_published_step,
)

PRESET = Preset(picture_size=32, network=PublishedConfig(feature_channels=16, widths=(4, 6, 8, 12)), batch_size=4)
NETWORKS = ("model.encoder", "model.branches", "model.decoder", "guidance", "critic")
# E's update comes after D's and P's in the published order, and beside them in ours.
FIRST = ("decoder", "guidance")


@pytest.fixture
def exact() -> Iterator[None]:
    """Numbers in float64, so that differences are not of rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def ways() -> tuple[Way, Way]:
    """Narrow networks and a batch for the published order and for ours."""
    torch.manual_seed(1)
    phi = SmallVgg(sum(map(len, CELEBA_GROUPS.values())))
    published, ours = (prepare(PRESET, phi, layout) for layout in (torch.contiguous_format, torch.channels_last))
    ours.nets.phi.requires_grad_(False)
    return published, ours


@pytest.mark.parametrize(("held", "same"), [((), set(NETWORKS) - {"model.encoder"}), (FIRST, set(NETWORKS))])
def test_both_orders_of_work_are_the_same_step(
    exact: None, ways: tuple[Way, Way], held: tuple[str, ...], same: set[str]
) -> None:
    for way in ways:
        for name in held:
            way.optimizers[name].param_groups[0]["lr"] = 0.0
    published, ours = ways
    before = {name: value.clone() for name, value in published.nets.named_parameters()}
    torch.testing.assert_close(dict(ours.nets.named_parameters()), before, rtol=0, atol=0)
    terms, our_terms = take_published_step(published), take_our_step(ours, PRESET)
    assert set(terms) == {
        *("pixel", "phi3", "guidance", "total"),
        *("wasserstein", "penalty", "head", "gan", "homomorphism"),
    }
    assert all(value != 0 for value in terms.values())
    torch.testing.assert_close(our_terms, terms, rtol=1e-9, atol=1e-9)
    for network in same:
        after, ours_after = (dict(way.nets.get_submodule(network).named_parameters()) for way in ways)
        torch.testing.assert_close(
            ours_after, after, rtol=1e-6, atol=1e-9, msg=lambda text, of=network: f"{of}: {text}"
        )
        learns = network.removeprefix("model.") not in held
        assert any(not torch.equal(after[name], before[f"{network}.{name}"]) for name in after) == learns, network


def test_passes_are_those_of_a_step(ways: tuple[Way, Way]) -> None:
    published, ours = ways
    assert _passes(published, lambda: take_published_step(published)) == {
        **PUBLISHED_PASSES,
        "Phi deep": Passes(PUBLISHED_PASSES["Phi"].forward, 0),
    }
    assert _passes(ours, lambda: take_our_step(ours, PRESET)) == {**OUR_PASSES, "Phi deep": Passes(1, 0)}


def _passes(way: Way, step: Callable[[], object]) -> dict[str, Passes]:
    """Count what goes through each network and back."""
    forward: Counter[str] = Counter()
    backward: Counter[str] = Counter()

    def watch(name: str, network: nn.Module) -> None:
        def passed(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            forward[name] += 1
            if output.requires_grad:
                output.register_hook(lambda gradient: backward.update([name]))

        network.register_forward_hook(passed)

    nets = way.nets
    phi: Any = nets.phi
    watched = {
        "E": nets.model.encoder,
        "T": nets.model.branches["residual"],
        "D": nets.model.decoder,
        "Phi": phi.conv3_1,
        "Phi deep": phi.conv5_1,
    }
    for name, network in watched.items():
        watch(name, network)
    step()
    return {name: Passes(forward[name], backward[name]) for name in watched}


def test_a_record_for_the_step_and_for_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_one_turn(
        candidates: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int, stage: str, report: Report
    ) -> dict[str, Timing]:
        report(Progress(stage, warm_up + repeats, warm_up + repeats))
        for candidate in candidates.values():
            candidate()
        return {name: Timing(4.0 / (index + 1), 0.0) for index, name in enumerate(candidates)}

    monkeypatch.setattr(train, "time_in_turns", take_one_turn)
    reported: list[Progress] = []
    records = measure(PRESET, SmallVgg(15), repeats=10, report=reported.append)
    by_name = {record.name: record for record in records}
    order = "published order of work"
    whole = (order, f"{order} in channels_last", "ours in contiguous format", "ours")
    parts = ("E", "T", "D", "Phi", "critic", "Adam")
    cases = {"whole step": whole} | dict.fromkeys(parts, (order, "ours"))
    assert list(by_name) == [f"{name}, {case}" for case, names in cases.items() for name in names]
    for record in records:
        assert record.ratio == by_name[record.baseline].value / record.value
        assert (record.unit, record.meta["repeats"], record.meta["recipe"]) == ("ms", 10, "published")
    assert by_name["ours, whole step"].ratio == 4.0
    assert by_name["ours, E"].meta["passes"] == {"forward": 1, "backward": 1}
    assert Progress("whole step", 11, 11) in reported


def test_vgg19_can_do_without_its_weights() -> None:
    with torch.device("meta"):
        phi = Vgg19((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), pretrained=False)
        shallow = phi.relu3_1(torch.zeros(2, 3, 128, 128))
        assert shallow.shape == (2, 256, 32, 32)
        assert phi.relu5_1(shallow).shape == (2, phi.deep_channels, 8, 8)


def test_an_unknown_preset_is_refused(homomorph: Callable[..., Any], tmp_path: object) -> None:
    outcome = homomorph("bench", "train", "--out", tmp_path, "--preset", "none")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "--preset must be avatars64 or avatars128 or celeba128 or published, not 'none'" in outcome.err
