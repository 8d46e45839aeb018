"""A whole sequence of frames between two pictures: the exported model in each runtime against the published way.

The published way runs E, all T_i and D again for every frame, eagerly in contiguous float32, as the code published with
HomoInterpGAN does. Weights are random, since time does not depend on them. They are drawn so that the frames have
contrast; on frames without contrast, a comparison would find no errors.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from homomorph.environment import environment
from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel, interpolate
from homomorph.models.pixels import from_normalised, normalise
from homomorph.progress import Progress, Report, silent
from homomorph_bench import branches
from homomorph_bench.results import Record, compared
from homomorph_bench.runtime_processes import (
    ALL_BRANCHES,
    ONE_BRANCH,
    PARTS,
    SEQUENCE,
    RemoteModel,
    Setup,
    start_runtime,
    time_ms,
)
from homomorph_bench.runtimes import formats
from homomorph_bench.timing import Timing, device_name, time_in_turns
from homomorph_export.precision import DTYPES, TOLERANCES

BASELINE = "published way"
_MATMUL_SIZE = 2048
_TURN_MS = 30.0
"""Length of a turn. Several calls fit into it, because the first call of a turn finds the caches cold."""
_MIN_CONTRAST = 20.0
"""Smallest standard deviation of the frames, in grey levels."""
_BF16_ERROR_SHARE = 0.02
"""Largest mean error of bfloat16, as a share of the contrast: five times the rounding error of one number."""


@dataclass
class ModelMeasurements:
    """All measurements: the records hold the figures, the other fields split the time into parts."""

    records: list[Record] = field(default_factory=list)
    parts: dict[str, dict[str, Timing]] = field(default_factory=dict)
    """Times of E, of the T_i with the interpolation, and of D in one sequence, by runtime with precision."""
    gmac: dict[str, float] = field(default_factory=dict)
    """10^9 multiply-adds of a sequence, by the same parts."""
    matmul: dict[str, Timing] = field(default_factory=dict)
    """Time of a large matrix product in the same run, by number format."""

    def rate(self, candidate: str, part: str) -> float:
        """Return the speed of a part, in 10^9 multiply-adds a second."""
        return self.gmac[part] / self.parts[candidate][part].median_ms * 1e3

    def matmul_rate(self, precision: str) -> float:
        """Return the speed of the matrix product, in 10^9 multiply-adds a second."""
        return _MATMUL_SIZE**3 / 1e6 / self.matmul[precision].median_ms


def run(
    config: ModelConfig,
    *,
    frames: int,
    runtimes: tuple[str, ...],
    repeats: int,
    threads: int,
    device: str = "cpu",
    packages: Path | None = None,
    report: Report = silent,
) -> ModelMeasurements:
    """Measure a sequence, its parts, and one frame from features that are already encoded.

    Args:
        config: the networks, their groups, and the height and width of both pictures.
        frames: length S of the sequence.
        runtimes: some of `torchscript`, `onnxruntime`, `openvino` and `aotinductor`.
        repeats: turns that count, at least 10.
        threads: threads within one operation, in every runtime.
        device: torch's name of the device; on another than the CPU, `torchscript` is the only runtime.
        packages: a folder that keeps AOTInductor's packages for later measurements, because compiling takes minutes.
        report: called before each stage.

    Raises:
        AssertionError: a runtime's frames differ from those of the published way.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # as in the served models: float32 is float32
    try:
        with tempfile.TemporaryDirectory(prefix="homomorph-bench-") as folder, torch.inference_mode():
            setup = Setup(config, frames, threads, Path(folder), packages, device)
            return _measure(setup, runtimes, repeats, report)
    finally:
        torch.set_num_threads(before)


def _measure(setup: Setup, runtimes: tuple[str, ...], repeats: int, report: Report) -> ModelMeasurements:
    model, ramp = setup.model(), setup.ramp()
    source, target = setup.pictures()[:2].split(1)
    published_way = partial(compute_published_way, model, source, target, ramp)
    meta = {
        "network": setup.config.network.family,
        "branches": len(model.branches),
        "picture_size": setup.config.picture_size,
        "frames": setup.frames,
        "device": device_name(setup.device),
        **environment(),
    }
    measured = ModelMeasurements(gmac=_gmac(model, source, ramp))
    reference = published_way().cpu()
    with contextlib.ExitStack() as stack:
        by_runtime = {}
        for name in runtimes:
            report(Progress(f"exporting for {name}" + ", which compiles for minutes" * (name == "aotinductor")))
            by_runtime[name] = stack.enter_context(start_runtime(name, setup))
        stages = _Stages(by_runtime, meta, repeats, report)
        errors = stages.compare_frames(reference)
        measured.records += stages.time_sequence(published_way, errors)
        measured.parts = stages.time_parts()
        measured.records += stages.time_one_frame()
        measured.records += stages.time_joint_branches()
    measured.matmul = _time_matmul(source.device, report)
    measured.records += _rates(measured, meta)
    return measured


@dataclass(frozen=True)
class _Stages:
    """The stages of a measurement in which the runtimes' processes run."""

    by_runtime: Mapping[str, Sequence[RemoteModel]]
    meta: dict[str, Any]
    """Settings and machine, for the records."""
    repeats: int
    report: Report

    @property
    def candidates(self) -> list[RemoteModel]:
        """The models of all runtimes."""
        return [candidate for candidates in self.by_runtime.values() for candidate in candidates]

    def compare_frames(self, reference: Tensor) -> dict[str, float]:
        """Compare each candidate's frames with those of the published way; return the mean errors in grey levels.

        Raises:
            AssertionError: a candidate's frames are further off than its number format explains.
        """
        contrast = float(reference.float().std())
        if contrast < _MIN_CONTRAST:
            raise AssertionError(f"the frames' contrast is {contrast:.1f} grey levels, too little for a comparison")
        # The error of int8 is recorded but not limited: its scales suit pictures, and random weights make none.
        # Random weights also do not damp the rounding of bfloat16 as trained ones do, so its limit is wider.
        largest = {"fp32": TOLERANCES["fp32"].mean, "bf16": _BF16_ERROR_SHARE * contrast, "int8": float("inf")}
        errors: dict[str, float] = {}
        for candidate in self.candidates:
            self.report(Progress(f"comparing {candidate.name}"))
            error = float((candidate.morph().int() - reference.int()).abs().float().mean())
            if not error <= largest[candidate.precision]:
                raise AssertionError(
                    f"{candidate.name} is {error:.3f} grey levels off, of a contrast of {contrast:.1f}"
                )
            errors[candidate.name] = error
        return errors

    def time_sequence(self, published_way: Callable[[], object], errors: Mapping[str, float]) -> list[Record]:
        """Time a whole sequence, compared with the published way; `errors` are of the candidates' frames."""
        calls = {BASELINE: published_way} | {candidate.name: candidate.call(SEQUENCE) for candidate in self.candidates}
        size = self.meta["picture_size"]
        return compared(
            _time(calls, self.repeats, "a whole sequence", self.report),
            f"{self.meta['frames']} frames of {size}x{size}",
            baseline=BASELINE,
            meta=lambda name: {
                **self.meta,
                "repeats": self.repeats,
                "mean_error_grey_levels": errors.get(name, 0.0),
            },
        )

    def time_parts(self) -> dict[str, dict[str, Timing]]:
        """Time E, the T_i with the interpolation, and D of a sequence."""
        timings = {}
        for candidate in self.candidates:
            self.report(Progress(f"its parts, {candidate.name}"))
            timings[candidate.name] = _time({part: candidate.call(part) for part in PARTS}, 10)
        return timings

    def time_one_frame(self) -> list[Record]:
        """Time one frame of pictures that are already encoded, as when a user moves a slider.

        This needs a runtime that accepts any number of frames.
        """
        records: list[Record] = []
        for candidate in self.candidates:
            if candidate.any_length:
                self.report(Progress(f"one frame, {candidate.name}"))
                calls = {name: candidate.call(name) for name in (ALL_BRANCHES, ONE_BRANCH)}
                timings = _time(calls, max(self.repeats, 20))
                records += compared(
                    timings, candidate.name, baseline=ALL_BRANCHES, meta=lambda _: {**self.meta, "frames": 1}
                )
        return records

    def time_joint_branches(self) -> list[Record]:
        """Time all T_i as one network, compared with one after the other, in TorchScript if that is measured."""
        records: list[Record] = []
        for candidate in self.by_runtime.get("torchscript", ()):
            for count in sorted({1, self.meta["frames"]}):
                self.report(Progress(f"branches at once, {candidate.name}, {count} frames"))
                conditions = {**self.meta, "frames": count}
                timings: dict[str, Timing] = candidate.call_worker(
                    "branches", candidate.precision, count, max(self.repeats, 20)
                )
                records += compared(
                    timings,
                    f"{candidate.name}, {count} frames",
                    baseline=branches.ONE_BY_ONE,
                    meta=dict.fromkeys(timings, conditions).__getitem__,
                )
        return records


def _time_matmul(device: torch.device, report: Report) -> dict[str, Timing]:
    """Time the product of two large matrices in each number format that the device computes with."""
    timings: dict[str, Timing] = {}
    for name in formats(device.type):
        report(Progress(f"matmul {name}"))
        matrix = torch.randn(_MATMUL_SIZE, _MATMUL_SIZE, device=device).to(DTYPES[name])
        timings |= time_in_turns({name: partial(torch.matmul, matrix, matrix)}, repeats=10, warm_up=1)
    return timings


def _time(
    candidates: Mapping[str, Callable[[], object]], repeats: int, stage: str = "timing", report: Report = silent
) -> dict[str, Timing]:
    return time_in_turns(
        candidates,
        repeats=repeats,
        warm_up=2,
        turn_ms=_TURN_MS,
        time_ms=time_ms,
        stage=stage,
        report=report,
    )


def _rates(measured: ModelMeasurements, meta: dict[str, Any]) -> list[Record]:
    """Return a record of each part's speed, compared with that of a float32 matrix product."""
    rates = {f"matmul {name}": (measured.matmul_rate(name), timing) for name, timing in measured.matmul.items()}
    for candidate, parts in measured.parts.items():
        rates |= {f"{part}, {candidate}": (measured.rate(candidate, part), timing) for part, timing in parts.items()}
    matmul = measured.matmul_rate("fp32")
    return [
        Record(name, rate, "10^9 multiply-adds/s", "matmul fp32", rate / matmul, timing.spread, meta)
        for name, (rate, timing) in rates.items()
    ]


def compute_published_way(model: MorphModel, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """Compute every frame from the two pictures, as the published code does.

    Args:
        model: in contiguous format.
        source: uint8 [B, H, W, 3].
        target: uint8 [B, H, W, 3].
        strengths: [B, S, K].

    Returns:
        uint8 [B, S, H, W, 3].
    """
    network = model.config.network
    frames = []
    for step in strengths.unbind(1):
        a, b = (normalise(picture.permute(0, 3, 1, 2), network).contiguous() for picture in (source, target))
        features, target_features = model.encoder(a), model.encoder(b)
        difference = target_features - features
        for column, branch in enumerate(model.branches.values()):
            features = features + step[:, column].view(-1, 1, 1, 1) * branch(difference)
        frames.append(from_normalised(model.decoder(features), network).permute(0, 2, 3, 1))
    return torch.stack(frames, dim=1)


def _gmac(model: MorphModel, picture: Tensor, strengths: Tensor) -> dict[str, float]:
    """Count the 10^9 multiply-adds of each part's products in one sequence; T includes the interpolation."""
    counts: dict[str, float] = {}

    def count(part: str, compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        with FlopCounterMode(display=False) as counter:
            output = compute(*inputs)
        counts[part] = counter.get_total_flops() / 2e9  # a multiply-add is two operations
        return output

    pictures = normalise(picture.permute(0, 3, 1, 2), model.config.network).repeat(2, 1, 1, 1)
    features = count("E", model.encoder, pictures)[:1]
    mixed = count("T", lambda a, b: interpolate(a, model.deltas(a, b), strengths), features, features)
    count("D", model.decoder, mixed.flatten(0, 1))
    return counts
