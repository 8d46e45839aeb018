"""Figures of pictures that were encoded and decoded."""

from __future__ import annotations

import torch

from homomorph.data.labels import UNKNOWN
from homomorph.evaluation import figures
from homomorph.evaluation.chunk import Chunk
from homomorph.evaluation.distance import Distance
from homomorph.evaluation.judge import Judge
from homomorph.evaluation.pair_values import PairValues
from homomorph.evaluation.results import Figures


def collect_reconstruction(values: PairValues, chunk: Chunk, judge: Judge, lpips: Distance | None) -> None:
    """Compare pictures with themselves, encoded and decoded; a method without a way back has nothing to compare."""
    if chunk.reconstructed_a is None:
        return
    values.add("psnr", figures.psnr(chunk.reconstructed_a, chunk.a))
    values.add("ssim", figures.ssim(chunk.reconstructed_a, chunk.a))
    values.add("white.reconstruction", figures.white_error(chunk.reconstructed_a, (chunk.a == 255).all(axis=1)))
    if lpips is not None:
        values.add("lpips", lpips.of_pairs(torch.from_numpy(chunk.reconstructed_a), torch.from_numpy(chunk.a)))
    for real, reconstructed in ((chunk.a, chunk.reconstructed_a), (chunk.b, chunk.reconstructed_b)):
        if reconstructed is not None:
            read, features = judge.judge(reconstructed)
            read_before, features_before = judge.judge(real)
            values.add("features.reconstruction", features)
            values.add("features.reconstructed", features_before)
            if real is chunk.a:
                labels = chunk.held_out.labels_a[chunk.rows]
                known = labels != UNKNOWN
                values.add("read.before", ((read_before > 0.5) == labels)[known])
                values.add("read.after", ((read > 0.5) == labels)[known])


def reconstruction_figures(values: PairValues) -> Figures:
    """`reconstruction`, `label_loss`, `frechet_reconstruction`, and `lpips` where it was measured; NaN without data."""
    frechet = float("nan")
    if "features.reconstruction" in values:
        frechet = figures.frechet(values.all("features.reconstruction"), values.all("features.reconstructed"))
    return {
        "reconstruction": {"psnr": values.mean("psnr"), "ssim": values.mean("ssim")},
        "label_loss": values.mean("read.before") - values.mean("read.after"),
        "frechet_reconstruction": frechet,
        **({"lpips": values.mean("lpips")} if "lpips" in values else {}),
    }
