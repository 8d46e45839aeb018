"""Figures along the path from a to b, with all strengths equal."""

from __future__ import annotations

import numpy as np

from homomorph.evaluation import figures
from homomorph.evaluation.chunk import Chunk
from homomorph.evaluation.distance import Distance
from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.inception import InceptionDistance
from homomorph.evaluation.judge import Judge
from homomorph.evaluation.pair_values import PairValues
from homomorph.evaluation.results import Figures

PATH_FRAMES = 17
"""Frames from a to b, both included."""


def collect_path(
    values: PairValues,
    chunk: Chunk,
    judge: Judge,
    distance: Distance,
    generator: np.random.Generator,
    inception: InceptionDistance | None,
) -> Pictures:
    """Morph from a to b, and measure the frames.

    Args:
        values: receives the measurements.
        chunk: B pairs.
        judge: whose features `frechet` compares.
        distance: d.
        generator: chooses two frames a pair for `frechet`.
        inception: takes the same frames for `fid`; None to leave that out.

    Returns:
        The frames, uint8 [B, PATH_FRAMES, 3, H, W].
    """
    strengths = np.linspace(0, 1, PATH_FRAMES, dtype=np.float32)[None, :, None]
    frames = chunk.method.morph(chunk.a, chunk.b, np.tile(strengths, (len(chunk.rows), 1, len(chunk.branches))))
    distances = distance.around(frames)
    values.add("steps", distances[:, :-1])
    values.add("direct", distances[:, -1])
    if chunk.reconstructed_b is not None:
        values.add("endpoint", figures.absolute_error(frames[:, -1], chunk.reconstructed_b))
    white = ((chunk.a == 255) & (chunk.b == 255)).all(axis=1)
    # The unchanged frames of a method that switches would hide the loss in the changed frame.
    generated = frames[:, -1:] if chunk.method.switches else frames
    errors = [figures.white_error(frame, white) for frame in generated.swapaxes(0, 1)]
    values.add("white.morph", np.mean(errors, axis=0))

    two = np.stack([generator.choice(PATH_FRAMES, size=2, replace=False) for _ in chunk.rows])
    sampled = np.take_along_axis(frames, two[:, :, None, None, None], axis=1).reshape(-1, *chunk.a.shape[1:])
    real = np.concatenate([chunk.a, chunk.b])
    values.add("features", judge.judge(sampled)[1])
    values.add("features.real", judge.judge(real)[1])
    if inception is not None:
        inception.add(sampled, real)
    return frames


def path_figures(values: PairValues) -> Figures:
    """`jump`, `ppl`, `pdv`, `pps`, `frechet`, `background` and `endpoint`."""
    steps = values.all("steps")
    return {
        "jump": float(figures.jump(steps).mean()),
        "ppl": float(figures.ppl(steps).mean()),
        "pdv": float(figures.pdv(steps).mean()),
        "pps": float(figures.pps(steps, values.all("direct")).mean()),
        "frechet": figures.frechet(values.all("features"), values.all("features.real")),
        "background": {name: values.mean(f"white.{name}") for name in ("reconstruction", "morph")},
        "endpoint": values.mean("endpoint"),
    }
