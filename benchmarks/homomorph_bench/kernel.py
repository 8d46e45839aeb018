"""The operator `homomorph::interpolate` against `torch.baddbmm` and against a loop over the branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from homomorph.environment import environment
from homomorph_bench.results import Record, compared
from homomorph_bench.timing import time_in_turns
from homomorph_export.ops.interpolate import load

BASELINE = "torch.baddbmm"
"""The best that torch itself offers: the whole weighted sum in one call."""


@dataclass(frozen=True)
class Case:
    """Sizes of one measurement."""

    batch: int
    branches: int
    steps: int
    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"B={self.batch} K={self.branches} S={self.steps} features {self.channels}x{self.height}x{self.width}"


CASES = (
    Case(1, 7, 9, 128, 8, 8),  # a strip of 9 frames of 64 px
    Case(1, 7, 17, 128, 32, 32),  # 17 frames of 256 px
    Case(8, 7, 17, 128, 8, 8),  # a full dynamic batch of 64 px
)


def run(*, repeats: int, threads: int, report: Callable[[str], None] = lambda step: None) -> list[Record]:
    """Measure every case.

    Args:
        repeats: turns that count, at least 10.
        threads: torch's threads within one operation.
        report: called with what is measured next.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        records = []
        for case in CASES:
            report(str(case))
            records += measure(case, repeats=repeats)
        return records
    finally:
        torch.set_num_threads(before)


def measure(case: Case, *, repeats: int) -> list[Record]:
    """Measure one case in float32, after checking that all candidates compute the same."""
    generator = torch.Generator().manual_seed(0)
    features = (case.channels, case.height, case.width)
    source = torch.randn(case.batch, *features, generator=generator)
    deltas = torch.randn(case.batch, case.branches, *features, generator=generator)
    strengths = torch.rand(case.batch, case.steps, case.branches, generator=generator)
    native = load()

    def baddbmm() -> Tensor:
        sums = torch.baddbmm(source.flatten(1).unsqueeze(1), strengths, deltas.flatten(2))
        return sums.view(case.batch, case.steps, *features)

    candidates: dict[str, Callable[[], Tensor]] = {
        "homomorph::interpolate": lambda: native(source, deltas, strengths),
        BASELINE: baddbmm,
        "loop over branches": lambda: _loop(source, deltas, strengths),
    }
    warm_up = 3
    with torch.inference_mode():
        for candidate in candidates.values():
            torch.testing.assert_close(candidate(), baddbmm())
        timings = time_in_turns(candidates, repeats=repeats, warm_up=warm_up)
    meta = {"case": vars(case), "dtype": "float32", "repeats": repeats, "warm_up": warm_up, **environment()}
    return compared(timings, str(case), baseline=BASELINE, meta=lambda _: meta)


def _loop(source: Tensor, deltas: Tensor, strengths: Tensor) -> Tensor:
    """Add one branch after the other, as the formula is read."""
    result = source.unsqueeze(1).expand(-1, strengths.shape[1], -1, -1, -1)
    for column in range(strengths.shape[2]):
        result = result + strengths[:, :, column, None, None, None] * deltas[:, column].unsqueeze(1)
    return result
