"""Times one training step of a preset in each precision, and growing parts of it.

homomorph bench train --preset avatars64 --out out/bench

Pictures, labels and weights are random: time does not depend on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from homomorph.data.batches import ALL_GROUPS, Batch
from homomorph.data.labels import LabelledPictures
from homomorph.environment import environment
from homomorph.progress import Report, silent
from homomorph.runs.import_homointerpgan import CELEBA_GROUPS
from homomorph.training.loop import take_step
from homomorph.training.methods import make_method
from homomorph.training.morph_method import MorphMethod
from homomorph.training.parallel import Processes
from homomorph.training.settings import MorphPreset
from homomorph_bench.results import Record, compared
from homomorph_bench.timing import device_name, time_in_turns

_WARM_UP = 1
"""Turns that do not count."""
BASELINE = "whole step, fp32"


def run(
    preset: MorphPreset, *, repeats: int, threads: int, accelerator: str = "cpu", report: Report = silent
) -> list[Record]:
    """Time one training step of the last phase.

    Args:
        preset: networks, picture size, batch and recipe.
        repeats: turns that count, at least 10.
        threads: torch's threads within one operation.
        accelerator: `cpu` or `gpu`.
        report: called when each turn begins.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as training does
    try:
        fp32, bf16 = (Processes(accelerator, precision) for precision in ("fp32", "bf16"))
        steps = {BASELINE: prepare_step(preset, fp32), "whole step, bf16": prepare_step(preset, bf16)}
        timings = time_in_turns(
            steps | _parts_of_step(preset, fp32), repeats=repeats, warm_up=_WARM_UP, stage="steps", report=report
        )
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
    meta = {
        "preset": dataclasses.asdict(preset),
        "repeats": repeats,
        "warm_up": _WARM_UP,
        "device": device_name(str(fp32.device)),
        **environment(),
        "threads": threads,
    }
    return compared(timings, "training", baseline=BASELINE, meta=lambda _: meta)


def prepare_step(preset: MorphPreset, processes: Processes) -> Callable[[], dict[str, torch.Tensor]]:
    """Return a function that takes one more step on a random batch, and returns the values of its terms."""
    method, batch = _method_and_batch(preset, processes)
    step = preset.steps - 1
    for name, optimizer in method.optimizers.items():
        optimizer.param_groups[0]["lr"] = method.learning_rate(name, step)
    return lambda: take_step(method, batch, step, seed=0, processes=processes)


def _parts_of_step(preset: MorphPreset, processes: Processes) -> dict[str, Callable[[], object]]:
    """Return functions that compute growing parts of a step. The difference of two times is the time of a part."""
    method, batch = _method_and_batch(preset, processes)
    step = preset.steps - 1

    def forward() -> Any:
        draws = method.draw(batch, step, torch.Generator().manual_seed(0))
        return draws, method.forward(batch, draws)

    def judge() -> Any:
        draws, output = forward()
        for update in range(method.critic_updates):
            if terms := method.critic_terms(batch, draws, output, update):
                torch.stack(list(terms.values())).sum().backward()
        return draws, output

    def differentiate() -> None:
        draws, output = judge()
        torch.stack(list(method.terms(batch, draws, output).values())).sum().backward()

    return {
        "networks run": forward,
        "networks run, critics' gradients": judge,
        "networks run, all gradients": differentiate,
    }


def _method_and_batch(preset: MorphPreset, processes: Processes) -> tuple[MorphMethod[Any, Any], Any]:
    """Make networks for CelebA's groups, the same ones each time, and a random batch."""
    generator = np.random.default_rng(0)
    count, labels = preset.batch_size, sum(map(len, CELEBA_GROUPS.values()))
    table = generator.integers(2, size=(64, labels)).astype(np.uint8)
    data = LabelledPictures([Path(f"{index}.png") for index in range(len(table))], table, CELEBA_GROUPS)
    method = make_method(data, preset, processes=processes)
    assert isinstance(method, MorphMethod)
    group = torch.arange(count) % len(CELEBA_GROUPS)
    group[method.batches.rows_of_all_groups] = ALL_GROUPS
    size = preset.picture_size
    batch = Batch(
        pictures=torch.from_numpy(generator.integers(256, size=(count, 3, size, size)).astype(np.uint8)),
        labels=torch.from_numpy(table[:count]).float(),
        known=torch.ones(count, labels, dtype=torch.bool),
        placement=torch.eye(2, 3).repeat(count, 1, 1),
        source=torch.arange(count),
        target=torch.arange(count).roll(count // 2),
        group=group,
        bad={},
    )
    return method, method.prepare(batch)
