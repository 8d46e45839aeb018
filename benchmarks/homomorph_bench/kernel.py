"""The operator `homomorph::interpolate` against torch's own: `torch.baddbmm`, einsum, and a loop over the branches.

Two more candidates are timed in the same turns: the operator with one-hot strengths, which reads one delta instead of
all, and the operator on features of a single element, which is only the cost of a call. Memory bandwidth is measured
with batches larger than the cache, beside a large `copy_`. The usable size of the cache is measured first: a virtual
machine reports the whole cache although it shares it with others.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from homomorph.environment import environment
from homomorph.progress import Progress, Report, silent
from homomorph_bench.results import Record
from homomorph_bench.timing import Timing, device_name, time_in_turns, wall_ms
from homomorph_export.ops.interpolate import load_operator
from homomorph_export.serving.backend.memory import keep_freed_memory

OPERATOR = "homomorph::interpolate"
ONE_HOT = "homomorph::interpolate, one-hot"
CALL = "homomorph::interpolate, one element"
"""One-hot strengths with features of 1x1x1: the fixed cost of a call."""
BASELINE = "torch.baddbmm"
"""Torch's best candidate: the whole weighted sum in one call."""
EINSUM = "torch.einsum"
LOOP = "loop over branches"
COPY = "copy_"

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TOLERANCE = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 3e-1}
"""Largest difference between two candidates at values up to 30: a few rounding errors of each format."""

COPIED_BYTES = tuple(1 << power for power in range(19, 30))
"""Sizes of `copy_`, half a MiB to 512 MiB; each is read once and written once."""
_IN_CACHE_RATIO = 1.5
"""A `copy_` fits the cache if its bandwidth is this many times that of the largest one."""
_MAX_BATCH_BYTES = 1_500_000_000
_WARM_UP = 3


@dataclass(frozen=True)
class Case:
    """Sizes of one measurement."""

    branches: int
    steps: int
    features: tuple[int, int, int]
    """C, h, w."""
    dtype: str
    layout: str
    batch: int = 1

    def __str__(self) -> str:
        size = "x".join(map(str, self.features))
        batch = f"B={self.batch} " if self.batch > 1 else ""
        return f"{batch}K={self.branches} S={self.steps} {size} {self.dtype} {self.layout}"

    def memory_bytes(self, deltas: int) -> int:
        """Return the bytes of memory traffic: the source and `deltas` deltas are read once, the result written once."""
        elements = self.features[0] * self.features[1] * self.features[2]
        return self.batch * (1 + deltas + self.steps) * elements * DTYPES[self.dtype].itemsize

    def larger_than_cache(self, cache_bytes: int) -> Case:
        """Return the case with a batch whose source, one delta and result are together twice as large as the cache.

        The batch is smaller if its source, all deltas and result would need more than 1.5 GB.
        """
        one = dataclasses.replace(self, batch=1)
        wanted = -(-2 * cache_bytes // one.memory_bytes(1))
        largest = _MAX_BATCH_BYTES // one.memory_bytes(self.branches)
        return dataclasses.replace(self, batch=max(1, min(wanted, largest)))


@dataclass(frozen=True)
class Matrix:
    """The measured cases: all combinations of these values."""

    branches: Sequence[int] = (2, 6, 12)
    steps: Sequence[int] = (1, 9, 17, 64)
    features: Sequence[tuple[int, int, int]] = ((128, 8, 8), (512, 8, 8), (256, 32, 32))
    dtypes: Sequence[str] = tuple(DTYPES)
    layouts: Sequence[str] = tuple(_LAYOUTS)
    memory: bool = True
    """Whether to measure bandwidth with batches larger than the cache, for the largest features."""

    def cases(self) -> list[Case]:
        """Return the cases, the smallest features first."""
        combinations = itertools.product(self.features, self.dtypes, self.layouts, self.branches, self.steps)
        return [Case(k, steps, features, dtype, layout) for features, dtype, layout, k, steps in combinations]


QUICK = Matrix(branches=(6,), steps=(1, 9), features=((128, 8, 8),), memory=False)
"""Takes a few seconds."""


def run(
    matrix: Matrix,
    *,
    device: str = "cpu",
    repeats: int,
    threads: int,
    report: Report = silent,
) -> list[Record]:
    """Measure every case.

    Args:
        matrix: the cases.
        device: `cpu`, or a CUDA device, which is timed by CUDA events.
        repeats: turns that count, at least 10.
        threads: torch's threads within one operation.
        report: called before each case.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    keep_freed_memory(without_limit=True)  # otherwise page faults would be measured, which `copy_` does not have
    try:
        cases = matrix.cases()
        records = []
        for number, case in enumerate(cases, start=1):
            report(Progress("cases", number, len(cases), detail=str(case)))
            records += _measure_case(case, device=device, repeats=repeats)
        if not matrix.memory:
            return records
        report(Progress("copy_"))
        copies = measure_copies(device=device, repeats=repeats)
        records += copies
        largest = max(math.prod(case.features) for case in cases)
        memory_cases = [
            case.larger_than_cache(cache_bytes(copies)) for case in cases if math.prod(case.features) == largest
        ]
        for number, case in enumerate(memory_cases, start=1):
            report(Progress("memory", number, len(memory_cases), detail=str(case)))
            records += measure_memory(case, device=device, repeats=repeats)
        return records
    finally:
        torch.set_num_threads(before)


def _measure_case(case: Case, *, device: str = "cpu", repeats: int) -> list[Record]:
    """Check that all candidates compute the same result, then measure one case."""
    candidates = _candidates(case, device)
    with torch.inference_mode():
        result = candidates[OPERATOR]().float()
        for name in (BASELINE, EINSUM, LOOP):
            difference = (candidates[name]().view(result.shape) - result).abs().max().item()
            if difference > TOLERANCE[DTYPES[case.dtype]]:
                raise AssertionError(f"{name} and {OPERATOR} differ by {difference} in {case}")
        del result
    timings = _time_candidates(candidates, device, repeats)
    meta = {"case": vars(case), **_conditions(device, repeats)}

    def record(name: str, baseline: str, **more: Any) -> Record:
        timing = timings[name]
        ratio = timings[baseline].median_ms / timing.median_ms
        return Record(
            f"{name}, {case}", timing.median_ms, "ms", f"{baseline}, {case}", ratio, timing.spread, {**meta, **more}
        )

    ratio_of_bytes = case.memory_bytes(case.branches) / case.memory_bytes(1)
    return [
        *(record(name, BASELINE) for name in (OPERATOR, BASELINE, EINSUM, LOOP)),
        record(ONE_HOT, OPERATOR, ratio_of_bytes=ratio_of_bytes),
        record(CALL, OPERATOR),
    ]


def measure_copies(*, device: str = "cpu", repeats: int) -> list[Record]:
    """Measure `copy_` from small to large; this shows the size of the cache and the bandwidth of the memory."""
    # One size after the other, not in turns: a large copy would evict a small one from the cache.
    timings: dict[str, Timing] = {}
    for size in COPIED_BYTES:
        timings |= _time_candidates({_copy_name(size): _copy(size, device)}, device, repeats)
    largest = _copy_name(COPIED_BYTES[-1])
    slowest = timings[largest].median_ms / (2 * COPIED_BYTES[-1] / 1e9)
    records = []
    for size in COPIED_BYTES:
        timing = timings[_copy_name(size)]
        ms_per_gb = timing.median_ms / (2 * size / 1e9)
        meta = {"bytes": 2 * size, "gigabytes_per_second": 1e3 / ms_per_gb, **_conditions(device, repeats)}
        name = f"memory of {_copy_name(size)}"
        records.append(
            Record(name, ms_per_gb, "ms/GB", f"memory of {largest}", slowest / ms_per_gb, timing.spread, meta)
        )
    return records


def cache_bytes(copies: Sequence[Record]) -> int:
    """Return the size of the cache: the bytes of the largest `copy_` that it makes faster; 0 if none.

    On a GPU the result is at least the reported L2 size: the launch overhead hides the speed of small copies.
    """
    faster = [int(record.meta["bytes"]) for record in copies if record.ratio >= _IN_CACHE_RATIO]
    reported = [int(record.meta.get("l2_bytes", 0)) for record in copies]
    return max(faster + reported, default=0)


def measure_memory(case: Case, *, device: str = "cpu", repeats: int) -> list[Record]:
    """Measure the operator's bandwidth beside that of the largest `copy_`, in milliseconds a gigabyte.

    Source and needed deltas count as read once, the result as written once. A plain store also reads the cache line
    that it writes; this traffic is not counted, neither for the operator nor for `copy_`.
    """
    candidates = {name: call for name, call in _candidates(case, device).items() if name in (OPERATOR, ONE_HOT)}
    candidates[COPY] = _copy(COPIED_BYTES[-1], device)
    timings = _time_candidates(candidates, device, repeats)
    bytes_ = {OPERATOR: case.memory_bytes(case.branches), ONE_HOT: case.memory_bytes(1), COPY: 2 * COPIED_BYTES[-1]}
    ms_per_gb = {name: timings[name].median_ms / (count / 1e9) for name, count in bytes_.items()}
    meta = {"case": vars(case), **_conditions(device, repeats)}
    return [
        Record(
            f"memory of {name}, {case}",
            value,
            "ms/GB",
            f"memory of {COPY}, {case}",
            ms_per_gb[COPY] / value,
            timings[name].spread,
            {**meta, "bytes": bytes_[name], "gigabytes_per_second": 1e3 / value},
        )
        for name, value in ms_per_gb.items()
    ]


def _copy(size: int, device: str) -> Callable[[], Tensor]:
    source = torch.ones(size // 4, device=device)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)


def _copy_name(size: int) -> str:
    return f"{COPY} of {size / 2**20:g} MiB"


def _time_candidates(candidates: Mapping[str, Callable[[], Tensor]], device: str, repeats: int) -> dict[str, Timing]:
    clock = wall_ms if device == "cpu" else _events_ms
    with torch.inference_mode():
        return time_in_turns(candidates, repeats=repeats, warm_up=_WARM_UP, time_ms=clock)


def _conditions(device: str, repeats: int) -> dict[str, Any]:
    conditions = {"repeats": repeats, "warm_up": _WARM_UP, "device": device_name(device), **environment()}
    if device != "cpu":
        conditions["l2_bytes"] = torch.cuda.get_device_properties(device).L2_cache_size
    return conditions


def _candidates(case: Case, device: str) -> dict[str, Callable[[], Tensor]]:
    """Return the candidates by name. Torch's own get features in memory order, so that no layout costs them a copy."""
    generator = torch.Generator().manual_seed(0)
    dtype, memory_format = DTYPES[case.dtype], _LAYOUTS[case.layout]
    strengths = torch.rand(case.batch, case.steps, case.branches, generator=generator).to(device, dtype)
    one_hot = torch.zeros_like(strengths)
    one_hot[:, :, case.branches // 2] = strengths[:, :, 0] + 0.5
    # Every sample of a batch has the same values, each in its own memory.
    samples = torch.randn(1 + case.branches, *case.features, generator=generator).to(device, dtype)
    samples = samples.contiguous(memory_format=memory_format)
    in_memory = samples.permute(0, 2, 3, 1) if case.layout == "channels_last" else samples
    rows = in_memory.reshape(1, 1 + case.branches, -1).expand(case.batch, -1, -1)
    flat_source, flat_deltas = rows[:, :1].contiguous(), rows[:, 1:].contiguous()
    native = load_operator()

    def features(rows: Tensor) -> Tensor:
        channels, height, width = case.features
        if case.layout == "channels_last":
            return rows.view(case.batch, -1, height, width, channels).permute(0, 1, 4, 2, 3)
        return rows.view(case.batch, -1, channels, height, width)

    source, deltas = features(flat_source)[:, 0], features(flat_deltas)
    one_source, one_delta = (rows[:, :, :1, :1, :1].contiguous() for rows in (source.unsqueeze(1), deltas))
    one_source = one_source[:, 0]

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
        CALL: lambda: native(one_source, one_delta, one_hot),
    }


def _events_ms(candidate: Callable[[], object], calls: int) -> float:
    """Call the candidate `calls` times; return the milliseconds of one call by CUDA events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        candidate()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / calls
