"""One training step of a preset and a recipe: memory formats and precisions against each other, on the CPU.

homomorph bench train --preset avatars64 --out out/bench

Pictures, labels and weights are random: time does not depend on them, and VGG-19's weights need no download.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch

from homomorph.data.batches import Batch
from homomorph.environment import environment
from homomorph.models.config import ModelConfig
from homomorph.models.perceptual import Perceptual
from homomorph.models.pixels import normalise
from homomorph.progress import Report, silent
from homomorph.runs.import_homointerpgan import CELEBA_GROUPS
from homomorph.training.networks import Networks, make_optimizers
from homomorph.training.parallel import Processes
from homomorph.training.phases import phase_of
from homomorph.training.recipe import Preset, Recipe
from homomorph.training.step import TrainingStep
from homomorph.training.updates import follow
from homomorph_bench.results import Record, compared
from homomorph_bench.timing import time_in_turns

WARM_UP = 1
"""Turns that do not count."""


@dataclass(frozen=True)
class StepCase:
    """How one step computes."""

    precision: str
    """`fp32` or `bf16`."""
    memory_format: torch.memory_format


CASES = {
    "fp32, contiguous": StepCase("fp32", torch.contiguous_format),
    "fp32, channels_last": StepCase("fp32", torch.channels_last),
    "bf16, channels_last": StepCase("bf16", torch.channels_last),
}
BASELINE = "fp32, contiguous"


def run(
    preset: Preset, recipe: Recipe, phi: Perceptual, *, repeats: int, threads: int, report: Report = silent
) -> list[Record]:
    """Time one training step in each case, with all terms of the recipe.

    Args:
        preset: networks, picture size and batch.
        recipe: weights of the terms.
        phi: perceptual network; its weights may be random.
        repeats: turns that count, at least 10.
        threads: torch's threads within one operation.
        report: called when each turn begins.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as training does
    try:
        steps = {name: prepare_step(case, preset, recipe, phi) for name, case in CASES.items()}
        timings = time_in_turns(steps, repeats=repeats, warm_up=WARM_UP, stage="steps", report=report)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
    meta = {
        "preset": dataclasses.asdict(preset),
        "recipe": dataclasses.asdict(recipe),
        "phi": f"{type(phi).__name__}, random weights",
        "repeats": repeats,
        "warm_up": WARM_UP,
        **environment(),
        "threads": threads,
    }
    return compared(timings, "training step", baseline=BASELINE, meta=lambda _: meta)


def prepare_step(case: StepCase, preset: Preset, recipe: Recipe, phi: Perceptual) -> Callable[[], dict[str, float]]:
    """Return a function that takes one more step on a random batch and returns the values of its terms."""
    torch.manual_seed(0)
    config = ModelConfig(groups=CELEBA_GROUPS, picture_size=preset.picture_size, network=preset.network)
    nets = Networks(config, copy.deepcopy(phi)).to(memory_format=case.memory_format)
    nets.phi.requires_grad_(False)
    nets.label_prior.requires_grad_(False)
    count, labels = preset.batch_size, len(config.attributes)
    batch = Batch(
        pictures=torch.randint(256, (count, 3, preset.picture_size, preset.picture_size), dtype=torch.uint8),
        labels=torch.randint(2, (count, labels)).float(),
        known=torch.ones(count, labels, dtype=torch.bool),
        placement=torch.eye(2, 3).repeat(count, 1, 1),
        source=torch.arange(count),
        target=torch.randperm(count),
        bad={},
    )
    pictures = normalise(batch.pictures, preset.network).contiguous(memory_format=case.memory_format)
    processes = Processes("cpu", case.precision)
    step = TrainingStep(
        nets, make_optimizers(nets, preset, recipe), recipe, torch.ones(2, labels), seed=0, processes=processes
    )

    def take_step() -> dict[str, float]:
        terms = step(batch, pictures, step=0, phase=phase_of(1.0, recipe))
        follow(nets.ema, nets.model, preset.ema)
        return terms

    return take_step
