"""The operator `homomorph::interpolate` against what torch offers: `torch.baddbmm`, einsum, a loop over the branches.

Two more are timed in the same turns: the operator with one-hot strengths, where it needs one delta instead of all, and,
where a case is larger than the last-level cache, a large `copy_`, whose bandwidth is what the machine's memory gives.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from homomorph.environment import environment
from homomorph_bench.results import Record
from homomorph_bench.timing import Timing, time_in_turns, wall_ms
from homomorph_export.ops.interpolate import load

OPERATOR = "homomorph::interpolate"
ONE_HOT = "homomorph::interpolate, one-hot"
BASELINE = "torch.baddbmm"
"""The best that torch itself offers: the whole weighted sum in one call."""
EINSUM = "torch.einsum"
LOOP = "loop over branches"
COPY = "copy_"

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 3e-1}
"""Largest difference between two candidates at values up to 30: some rounding of each format."""

_COPIED_BYTES = 128 << 20
_WARM_UP = 3


@dataclass(frozen=True)
class Case:
    """Sizes of one measurement, of one sample."""

    branches: int
    steps: int
    features: tuple[int, int, int]
    """C, h, w."""
    dtype: str
    layout: str

    def __str__(self) -> str:
        size = "x".join(map(str, self.features))
        return f"K={self.branches} S={self.steps} {size} {self.dtype} {self.layout}"

    def bytes(self, deltas: int) -> int:
        """Return what goes through memory if source and so many deltas are read once and the result written once."""
        elements = self.features[0] * self.features[1] * self.features[2]
        return (1 + deltas + self.steps) * elements * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Matrix:
    """Which cases are measured: all combinations."""

    branches: Sequence[int] = (2, 6, 12)
    steps: Sequence[int] = (1, 9, 17, 64)
    features: Sequence[tuple[int, int, int]] = ((128, 8, 8), (512, 8, 8), (256, 32, 32))
    dtypes: Sequence[str] = tuple(DTYPES)
    layouts: Sequence[str] = tuple(LAYOUTS)

    def cases(self) -> list[Case]:
        """Return the cases, the smallest features first."""
        combinations = itertools.product(self.features, self.dtypes, self.layouts, self.branches, self.steps)
        return [Case(k, steps, features, dtype, layout) for features, dtype, layout, k, steps in combinations]


QUICK = Matrix(branches=(6,), steps=(1, 9), features=((128, 8, 8),))
"""A few seconds."""


def run(
    matrix: Matrix,
    *,
    device: str = "cpu",
    repeats: int,
    threads: int,
    report: Callable[[str], None] = lambda step: None,
) -> list[Record]:
    """Measure every case.

    Args:
        matrix: the cases.
        device: `cpu`, or a CUDA device, whose own clock then counts.
        repeats: turns that count, at least 10.
        threads: torch's threads within one operation.
        report: called with what is measured next.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    _keep_freed_memory()
    try:
        cases = matrix.cases()
        records = []
        for number, case in enumerate(cases, start=1):
            report(f"{number} of {len(cases)}: {case}")
            records += measure(case, device=device, repeats=repeats)
        return records
    finally:
        torch.set_num_threads(before)


def measure(case: Case, *, device: str = "cpu", repeats: int) -> list[Record]:
    """Measure one case, after checking that all candidates compute the same."""
    candidates = _candidates(case, device)
    cached = case.bytes(case.branches) <= last_level_cache_bytes(device)
    if not cached:
        source = torch.zeros(_COPIED_BYTES, dtype=torch.uint8, device=device)
        target = torch.zeros_like(source)
        candidates[COPY] = lambda: target.copy_(source)
    with torch.inference_mode():
        expected = candidates[OPERATOR]().float()
        for name in (BASELINE, EINSUM, LOOP):
            difference = (candidates[name]().view(expected.shape) - expected).abs().max().item()
            if difference > TOLERANCE[DTYPES[case.dtype]]:
                raise AssertionError(f"{name} and {OPERATOR} differ by {difference} in {case}")
        del expected
        clock = wall_ms if device == "cpu" else events_ms
        timings = time_in_turns(candidates, repeats=repeats, warm_up=_WARM_UP, time_ms=clock)
    conditions = {"repeats": repeats, "warm_up": _WARM_UP, "device": device_name(device), **environment()}
    return _records(case, timings, {"case": vars(case), **conditions})


def _records(case: Case, timings: dict[str, Timing], meta: dict[str, Any]) -> list[Record]:
    """Return a record for each timing, and for the bandwidths where memory was measured."""

    def record(name: str, timing: Timing, baseline: str, **more: Any) -> Record:
        ratio = timings[baseline].median_ms / timing.median_ms
        return Record(
            f"{name}, {case}", timing.median_ms, "ms", f"{baseline}, {case}", ratio, timing.spread, {**meta, **more}
        )

    records = [record(name, timings[name], BASELINE) for name in (OPERATOR, BASELINE, EINSUM, LOOP)]
    expected = case.bytes(case.branches) / case.bytes(1)
    records.append(record(ONE_HOT, timings[ONE_HOT], OPERATOR, ratio_of_bytes=expected))
    if COPY in timings:
        # Milliseconds for a gigabyte, so that a larger ratio is faster here as well.
        copy_ms_per_gb = timings[COPY].median_ms / (2 * _COPIED_BYTES / 1e9)
        for name, deltas in ((OPERATOR, case.branches), (ONE_HOT, 1), (COPY, 0)):
            gigabytes = (2 * _COPIED_BYTES if name == COPY else case.bytes(deltas)) / 1e9
            ms_per_gb = timings[name].median_ms / gigabytes
            records.append(
                Record(
                    f"memory of {name}, {case}",
                    ms_per_gb,
                    "ms/GB",
                    f"memory of {COPY}, {case}",
                    copy_ms_per_gb / ms_per_gb,
                    timings[name].spread,
                    {**meta, "gigabytes_per_second": 1e3 / ms_per_gb},
                )
            )
    return records


def _candidates(case: Case, device: str) -> dict[str, Callable[[], Tensor]]:
    """Return what is timed. Torch's ways see features as they lie in memory, so that no layout costs them a copy."""
    generator = torch.Generator().manual_seed(0)
    dtype, memory_format = DTYPES[case.dtype], LAYOUTS[case.layout]
    strengths = torch.rand(1, case.steps, case.branches, generator=generator).to(device, dtype)
    one_hot = torch.zeros_like(strengths)
    one_hot[:, :, case.branches // 2] = strengths[:, :, 0] + 0.5
    samples = torch.randn(1 + case.branches, *case.features, generator=generator).to(device, dtype)
    samples = samples.contiguous(memory_format=memory_format)
    source, deltas = samples[:1], samples[1:].unsqueeze(0)
    in_memory = samples.permute(0, 2, 3, 1) if case.layout == "channels_last" else samples
    rows = in_memory.reshape(1 + case.branches, -1)
    flat_source, flat_deltas = rows[None, :1], rows[None, 1:]
    native = load()

    def features(sums: Tensor) -> Tensor:
        channels, height, width = case.features
        if case.layout == "channels_last":
            return sums.view(1, case.steps, height, width, channels).permute(0, 1, 4, 2, 3)
        return sums.view(1, case.steps, channels, height, width)

    def loop() -> Tensor:
        sums = flat_source.expand(-1, case.steps, -1)
        for column in range(case.branches):
            sums = sums + strengths[:, :, column, None] * flat_deltas[:, column].unsqueeze(1)
        return features(sums)

    return {
        OPERATOR: lambda: native(source, deltas, strengths),
        BASELINE: lambda: features(torch.baddbmm(flat_source, strengths, flat_deltas)),
        EINSUM: lambda: features(flat_source + torch.einsum("bsk,bkn->bsn", strengths, flat_deltas)),
        LOOP: loop,
        ONE_HOT: lambda: native(source, deltas, one_hot),
    }


def last_level_cache_bytes(device: str) -> int:
    """Return the size of the cache before the device's memory; 32 MiB where a processor does not tell."""
    if device != "cpu":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    known = "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names
    reported = os.sysconf("SC_LEVEL3_CACHE_SIZE") if known else 0
    return reported if reported > 0 else 32 << 20


def device_name(device: str) -> str:
    """Return the GPU's name, or `cpu`."""
    return device if device == "cpu" else torch.cuda.get_device_name(device)


def events_ms(candidate: Callable[[], object], calls: int) -> float:
    """Call the candidate so many times; return the milliseconds of one call by the GPU's own clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        candidate()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / calls


def _keep_freed_memory() -> None:
    """Have the C library reuse large blocks, as a server's allocator does.

    Else each call would get its result's pages anew from the system, one page fault for 4 KiB, which costs several
    times what is measured; `copy_` writes into a tensor that is there, so it would be spared.
    """
    m_trim_threshold, m_mmap_max = -1, -4  # glibc's malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
