"""A whole sequence of frames between two pictures: the exported model in each runtime against the published way.

The published way encodes both pictures, runs all T_i and D again for every frame, eagerly in contiguous float32, as the
code published with HomoInterpGAN does. Weights are random: time does not depend on them. They are drawn so that
frames have contrast: without it, any two candidates would seem to compute the same.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from homomorph.environment import environment
from homomorph.models.config import Family, ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.models.pixels import from_normalised, normalise
from homomorph.progress import Progress, Report, silent
from homomorph.runs.import_homointerpgan import CELEBA_GROUPS
from homomorph_bench import branches
from homomorph_bench.results import Record, compared
from homomorph_bench.runtime_processes import ALL_BRANCHES, ONE_BRANCH, PARTS, SEQUENCE, Setup, started, time_ms
from homomorph_bench.runtimes import formats
from homomorph_bench.timing import Timing, time_in_turns
from homomorph_export.precision import DTYPES, TOLERANCES

BASELINE = "published way"
SIX_GROUPS = ALL_BRANCHES
ONE_GROUP = ONE_BRANCH
_MATMUL_SIZE = 2048
_TURN_MS = 30.0
"""Each turn calls its candidate as often as fits into this: the first call of a turn finds the caches cold."""
_LEAST_CONTRAST = 20.0
"""Standard deviation of the frames, in grey levels."""
_BF16_SHARE = 0.02
"""Of that, what bfloat16 may lose on average: five times the rounding of one number."""


@dataclass
class ModelMeasurements:
    """What was measured, and where the time goes."""

    records: list[Record] = field(default_factory=list)
    parts: dict[str, dict[str, Timing]] = field(default_factory=dict)
    """By runtime and precision: E, the T_i with the interpolation, and D, in one sequence."""
    gmac: dict[str, float] = field(default_factory=dict)
    """By the same parts: 10^9 multiplications and additions that a sequence takes."""
    matmul: dict[str, Timing] = field(default_factory=dict)
    """By number format: a large product of matrices, measured in the same run."""

    def rate(self, candidate: str, part: str) -> float:
        """Return how many 10^9 multiplications and additions a part does in a second."""
        return self.gmac[part] / self.parts[candidate][part].median_ms * 1e3

    def matmul_rate(self, precision: str) -> float:
        """Return the same of the product of matrices."""
        return _MATMUL_SIZE**3 / 1e6 / self.matmul[precision].median_ms


def run(
    network: Family,
    *,
    groups: Mapping[str, tuple[str, ...]] = CELEBA_GROUPS,
    picture_size: int,
    frames: int,
    runtimes: tuple[str, ...],
    repeats: int,
    threads: int,
    packages: Path | None = None,
    report: Report = silent,
) -> ModelMeasurements:
    """Measure a sequence, its parts, and one frame from features that are at hand.

    Args:
        network: sizes of the networks.
        groups: of attributes, each of which has a branch beside the residual one. Those of HomoInterpGAN's pretrained
            model make six branches.
        picture_size: height and width of both pictures, in pixels.
        frames: length S of the sequence.
        runtimes: some of `torchscript`, `onnxruntime`, `openvino` and `aotinductor`.
        repeats: turns that count, at least 10.
        threads: threads within one operation, in every runtime.
        packages: a folder for AOTInductor's packages, so that a later measurement need not compile them again.
        report: called with what is done next.

    Raises:
        AssertionError: a runtime computes other frames than the published one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(prefix="homomorph-bench-") as folder, torch.inference_mode():
            config = ModelConfig(dict(groups), picture_size, network)
            setup = Setup(config, frames, threads, Path(folder), packages)
            return _measure(setup, runtimes, repeats, report)
    finally:
        torch.set_num_threads(before)


def _measure(setup: Setup, runtimes: tuple[str, ...], repeats: int, report: Report) -> ModelMeasurements:
    frames, size, model, pictures, ramp = (
        setup.frames,
        setup.config.picture_size,
        setup.model(),
        setup.pictures(),
        setup.ramp(),
    )
    source, target = pictures[:1], pictures[1:2]
    measured = ModelMeasurements(gmac=_gmac(model, source, ramp))
    expected = published_way(model, source, target, ramp)
    if (contrast := float(expected.float().std())) < _LEAST_CONTRAST:
        raise AssertionError(f"the frames' contrast is {contrast:.1f} grey levels: whatever is compared looks the same")
    network = setup.config.network.family
    meta = {
        "network": network,
        "branches": len(model.branches),
        "picture_size": size,
        "frames": frames,
        **environment(),
    }
    with contextlib.ExitStack() as stack:
        by_runtime = {name: stack.enter_context(started(name, setup, report)) for name in runtimes}
        found = [candidate for candidates in by_runtime.values() for candidate in candidates]

        # What is timed computes the same, as exactly as its number format can.
        errors: dict[str, float] = {BASELINE: 0.0}
        for candidate in found:
            report(Progress(f"comparing {candidate.name}"))
            errors[candidate.name] = float((candidate.morph().int() - expected.int()).abs().float().mean())
            # Random weights make no pictures, and int8 is made for pictures: its error is only recorded. Nor do they
            # damp what bfloat16 rounds, as trained ones do: it may lose a share of the frames' contrast.
            largest = {"fp32": TOLERANCES["fp32"].mean, "bf16": _BF16_SHARE * contrast, "int8": float("inf")}
            if not errors[candidate.name] <= largest[candidate.precision]:
                raise AssertionError(
                    f"{candidate.name} is {errors[candidate.name]:.3f} grey levels off, of a contrast of {contrast:.1f}"
                )

        calls: dict[str, Callable[[], object]] = {BASELINE: lambda: published_way(model, source, target, ramp)}
        calls |= {candidate.name: candidate.call(SEQUENCE) for candidate in found}
        measured.records += compared(
            _time(calls, repeats, "a whole sequence", report),
            f"{frames} frames of {size}x{size}",
            baseline=BASELINE,
            meta=lambda name: {**meta, "repeats": repeats, "mean_error_grey_levels": errors[name]},
        )
        for candidate in found:
            report(Progress(f"its parts, {candidate.name}"))
            measured.parts[candidate.name] = _time({part: candidate.call(part) for part in PARTS}, 10)

        # A slider that is being moved: both pictures are encoded already. Some runtimes have compiled for a sequence.
        for candidate in (candidate for candidate in found if candidate.any_length):
            report(Progress(f"one frame, {candidate.name}"))
            one = {name: candidate.call(name) for name in (SIX_GROUPS, ONE_GROUP)}
            timed = _time(one, max(repeats, 20))
            measured.records += compared(
                timed, candidate.name, baseline=SIX_GROUPS, meta=lambda _: {**meta, "frames": 1}
            )

        for candidate in by_runtime.get("torchscript", ()):
            for count in sorted({1, frames}):
                report(Progress(f"branches at once, {candidate.name}, {count} frames"))
                conditions = {**meta, "frames": count}
                timings: dict[str, Timing] = candidate.ask("branches", candidate.precision, count, max(repeats, 20))
                measured.records += compared(
                    timings,
                    f"{candidate.name}, {count} frames",
                    baseline=branches.ONE_BY_ONE,
                    meta=dict.fromkeys(timings, conditions).__getitem__,
                )

    for name in formats():
        report(Progress(f"matmul {name}"))
        matrix = torch.randn(_MATMUL_SIZE, _MATMUL_SIZE).to(DTYPES[name])
        measured.matmul |= time_in_turns({name: _call(torch.matmul, matrix, matrix)}, repeats=10, warm_up=1)
    measured.records += _rates(measured, meta)
    return measured


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
    """Return a record for each part's rate, its ratio to that of a product of matrices in float32."""
    rates = {f"matmul {name}": (measured.matmul_rate(name), timing) for name, timing in measured.matmul.items()}
    for candidate, parts in measured.parts.items():
        rates |= {f"{part}, {candidate}": (measured.rate(candidate, part), timing) for part, timing in parts.items()}
    matmul = measured.matmul_rate("fp32")
    return [
        Record(name, rate, "10^9 multiply-adds/s", "matmul fp32", rate / matmul, timing.spread, meta)
        for name, (rate, timing) in rates.items()
    ]


def published_way(model: MorphModel, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
    """Compute every frame from the pictures, as the published code does.

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
    """Count what the convolutions of each part multiply in one sequence; the interpolation counts with the T_i."""
    counts = {"E": 0, "T": 0, "D": 0}
    part = "E"

    def add(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        kernel = layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels // layer.groups
        counts[part] += output.numel() * kernel

    hooks = [layer.register_forward_hook(add) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    network = model.config.network
    features = model.encoder(normalise(picture.permute(0, 3, 1, 2), network).repeat(2, 1, 1, 1))[:1]
    part = "T"
    model.deltas(features, features)
    counts["T"] += features.numel() * strengths.shape[1] * strengths.shape[2]
    part = "D"
    model.decoder(features.repeat(strengths.shape[1], 1, 1, 1))
    for hook in hooks:
        hook.remove()
    return {name: count / 1e9 for name, count in counts.items()}


def _call(function: Callable[..., object], *arguments: Tensor) -> Callable[[], object]:
    return lambda: function(*arguments)
