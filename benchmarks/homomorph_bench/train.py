"""One training step as `homomorph train --recipe published` takes it, against the public code's order of work.

Either has the same terms and updates; what differs is what is computed anew (`published_order.py`), and the memory
format. Pictures, labels and weights are random: time does not depend on them, and VGG-19's weights need no download.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from homomorph.data.batches import Batch
from homomorph.environment import environment
from homomorph.models.config import ModelConfig
from homomorph.models.perceptual import Perceptual, Vgg19
from homomorph.models.pixels import normalise
from homomorph.progress import Progress, Report, silent
from homomorph.runs.import_homointerpgan import CELEBA_GROUPS
from homomorph.training.networks import Networks, make_optimizers
from homomorph.training.parallel import Processes
from homomorph.training.phases import phase_of
from homomorph.training.recipe import PUBLISHED, Preset
from homomorph.training.step import TrainingStep
from homomorph.training.updates import follow
from homomorph_bench.published_order import critic_loss, critic_terms, published_step, whole_phi
from homomorph_bench.results import Record, compared
from homomorph_bench.timing import time_in_turns

BASELINE = "published order of work"
OURS = "ours"
BASELINE_CHANNELS_LAST = f"{BASELINE} in channels_last"
OURS_CONTIGUOUS = f"{OURS} in contiguous format"
"""With the one before, what of the difference is memory format."""

WARM_UP = 1
"""Turns that do not count, after each way's step that is compared with the others', and two calls of each."""

_RATE = 1e-6
"""Adam's. Time does not depend on it, but terms do: the first steps are as long as it is, however small the gradients,
and so make updates of rounding. Five of them come before the last terms."""


@dataclass(frozen=True)
class Passes:
    """How often one step sends a batch through a network, and gradients back."""

    forward: int
    backward: int


PUBLISHED_PASSES = {
    "E": Passes(PUBLISHED.critic_steps, 3),
    "T": Passes(PUBLISHED.critic_steps + 1, 2),
    "D": Passes(2, 2),
    "Phi": Passes(6, 2),
}
OUR_PASSES = {"E": Passes(1, 1), "T": Passes(1, 2), "D": Passes(1, 1), "Phi": Passes(2, 1)}
"""One pass of Phi is of the pictures, up to relu5_1 and without gradients, the other of D's, up to relu3_1."""


@dataclass(frozen=True)
class Way:
    """What one way of training holds: networks with random weights, their Adam, and the batch in its memory format."""

    nets: Networks
    optimizers: dict[str, torch.optim.Adam]
    batch: Batch
    pictures: Tensor
    """Normalised."""
    balance: Tensor


def run(preset: Preset, *, repeats: int, threads: int, report: Report = silent) -> list[Record]:
    """Measure a whole step and its parts, with a Phi of VGG-19's shape.

    Args:
        preset: networks, picture size and batch.
        repeats: turns that count, at least 10.
        threads: torch's threads within one operation.
        report: called with what is measured next.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as training does
    try:
        network = preset.network
        phi = Vgg19(network.picture_mean, network.picture_std, pretrained=False)
        return measure(preset, phi, repeats=repeats, report=report)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def measure(preset: Preset, phi: Perceptual, *, repeats: int, report: Report = silent) -> list[Record]:
    """Measure with any Phi, in float32, after checking that all ways compute the same terms.

    Raises:
        AssertionError: they do not.
    """
    report(Progress("the values of all terms"))
    preset = dataclasses.replace(preset, learning_rate=_RATE, critic_learning_rate=_RATE)
    published = prepare(preset, phi, torch.contiguous_format)
    published_channels_last = prepare(preset, phi, torch.channels_last)
    ours_contiguous = prepare(preset, phi, torch.contiguous_format)
    ours = prepare(preset, phi, torch.channels_last)
    for way in (ours_contiguous, ours):
        way.nets.phi.requires_grad_(False)
    steps: dict[str, Callable[[], object]] = {
        BASELINE: lambda: take_published_step(published),
        BASELINE_CHANNELS_LAST: lambda: take_published_step(published_channels_last),
        OURS_CONTIGUOUS: lambda: take_our_step(ours_contiguous, preset),
        OURS: lambda: take_our_step(ours, preset),
    }
    terms = {name: step() for name, step in steps.items()}
    for values in terms.values():
        torch.testing.assert_close(values, terms[BASELINE], rtol=2e-2, atol=1e-2)

    meta = {
        "preset": dataclasses.asdict(preset),
        "recipe": "published",
        "phi": f"{type(phi).__name__}, random weights",
        "dtype": "float32",
        "repeats": repeats,
        "warm_up": WARM_UP,
        **environment(),
    }

    def compare(case: str, candidates: Mapping[str, Callable[[], object]]) -> list[Record]:
        passes = {BASELINE: PUBLISHED_PASSES, OURS: OUR_PASSES}
        timings = time_in_turns(
            candidates,
            repeats=repeats,
            warm_up=WARM_UP,
            stage=case,
            report=report,
        )

        def described(name: str) -> dict[str, Any]:
            return meta | ({"passes": vars(passes[name][case])} if case in passes.get(name, {}) else {})

        return compared(timings, case, baseline=BASELINE, meta=described)

    records = compare("whole step", steps)
    published_parts, our_parts = parts_of_published(published), parts_of_ours(ours, preset)
    for case in our_parts:
        records += compare(case, {BASELINE: published_parts[case], OURS: our_parts[case]})
    return records


def prepare(preset: Preset, phi: Perceptual, memory_format: torch.memory_format) -> Way:
    """Make networks for the published groups, the same ones each time, and a random batch."""
    torch.manual_seed(0)
    config = ModelConfig(groups=CELEBA_GROUPS, picture_size=preset.picture_size, network=preset.network)
    nets = Networks(config, copy.deepcopy(phi)).to(memory_format=memory_format)
    count, labels = preset.batch_size, len(config.attributes)
    batch = Batch(
        pictures=torch.randint(256, (count, 3, preset.picture_size, preset.picture_size), dtype=torch.uint8),
        labels=torch.randint(2, (count, labels)).to(torch.get_default_dtype()),
        known=torch.ones(count, labels, dtype=torch.bool),
        placement=torch.eye(2, 3).repeat(count, 1, 1),
        source=torch.arange(count),
        target=torch.randperm(count),
        bad={},
    )
    pictures = normalise(batch.pictures, preset.network).to(torch.get_default_dtype())
    return Way(
        nets,
        make_optimizers(nets, preset, PUBLISHED),
        batch,
        pictures.contiguous(memory_format=memory_format),
        torch.ones(2, labels),
    )


def take_published_step(way: Way) -> dict[str, float]:
    """Train one step in the published order of work; returns the terms' values."""
    return published_step(way.nets, way.optimizers, way.batch, way.pictures, way.balance, step=0, seed=0)


def take_our_step(way: Way, preset: Preset) -> dict[str, float]:
    """Train one step as `homomorph train` does, with the running mean of the weights; returns the terms' values."""
    step = TrainingStep(way.nets, way.optimizers, PUBLISHED, way.balance, seed=0, processes=Processes())
    terms = step(way.batch, way.pictures, step=0, phase=phase_of(0.0, PUBLISHED))
    follow(way.nets.ema, way.nets.model, preset.ema)
    return terms


def parts_of_published(way: Way) -> dict[str, Callable[[], object]]:
    """Return what one step spends on each network in the published order of work."""
    phi = way.nets.phi

    def look() -> None:
        passes = PUBLISHED_PASSES["Phi"]
        for index in range(passes.forward):
            compared = index < passes.backward
            shallow, _unused = whole_phi(phi, way.pictures.detach().requires_grad_(compared))
            if compared:
                shallow.sum().backward()
        phi.zero_grad()

    return {**_networks(way, PUBLISHED_PASSES), "Phi": look, "critic": _critic(way), "Adam": _adam(way)}


def parts_of_ours(way: Way, preset: Preset) -> dict[str, Callable[[], object]]:
    """Return what one step of the trainer spends on each network; with Adam, the running mean of the weights."""
    phi, adam = way.nets.phi, _adam(way)

    def look() -> None:
        with torch.no_grad():
            whole_phi(phi, way.pictures)
        phi.relu3_1(way.pictures.detach().requires_grad_(True)).sum().backward()

    def update() -> None:
        adam()
        follow(way.nets.ema, way.nets.model, preset.ema)

    return {**_networks(way, OUR_PASSES), "Phi": look, "critic": _critic(way), "Adam": update}


def _networks(way: Way, passes: Mapping[str, Passes]) -> dict[str, Callable[[], object]]:
    model = way.nets.model
    with torch.no_grad():
        features = model.encoder(way.pictures)
    features.requires_grad_(True)

    def repeat(network: nn.Module, forward: Callable[[], Tensor], count: Passes) -> Callable[[], None]:
        def run_passes() -> None:
            network.zero_grad()
            # Gradients may pass one result more than once.
            again = count.backward > count.forward
            for index in range(max(count.forward, count.backward)):
                if index < count.forward:
                    result = forward()
                if index < count.backward:
                    result.sum().backward(retain_graph=again)
            features.grad = None

        return run_passes

    return {
        "E": repeat(model.encoder, lambda: model.encoder(way.pictures), passes["E"]),
        "T": repeat(model.branches, lambda: model.deltas(features, features[way.batch.target]), passes["T"]),
        "D": repeat(model.decoder, lambda: model.decoder(features), passes["D"]),
    }


def _critic(way: Way) -> Callable[[], object]:
    """All updates of Dis and A', and their judgement of morphs."""
    with torch.no_grad():
        real = way.nets.model.encoder(way.pictures)
    fake = real[way.batch.target].requires_grad_(True)
    critic, mix = way.nets.critic, torch.full((len(real),), 0.5)

    def update() -> None:
        for _ in range(PUBLISHED.critic_steps):
            critic.zero_grad()
            labels, known = way.batch.labels, way.batch.known
            critic_loss(critic_terms(critic, real, fake.detach(), mix, labels, known, way.balance)).backward()
            way.optimizers["critic"].step()
        for output in (0, 1):
            critic(fake)[output].sum().backward()
        fake.grad = None

    return update


def _adam(way: Way) -> Callable[[], object]:
    """Shorten gradients, and update all but the critic."""
    optimizers = [way.optimizers[name] for name in ("encoder", "branches", "decoder", "guidance")]

    def update() -> None:
        for optimizer in optimizers:
            parameters = optimizer.param_groups[0]["params"]
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.full_like(parameter, 1e-3)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()

    return update
