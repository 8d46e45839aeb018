"""Writes a picture set as a labelled folder: `images/`, `attributes.csv`, `groups.yaml`, `render.json`."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from homomorph.data import avatars
from homomorph.data.labels import IMAGES_FOLDER, check_new_folder, write_labels
from homomorph.data.provenance import Provenance, write_provenance
from homomorph.data.styles import Style, find_style
from homomorph.errors import DataError
from homomorph.progress import Progress, Report, silent
from homomorph_client.files import replacing

_Job = tuple[Path, Style, int, int, int, float]
"""Folder, style, seed, picture number, height and width in pixels, share of pictures with mixed colours."""
_Rendered = tuple[str, list[int | str]]
"""File name and labels; an empty label is unknown."""


def _render_one(job: _Job) -> _Rendered:
    folder, style, seed, index, size, between = job
    looks = style.draw_looks(seed, index)
    name = f"{index:06d}.png"
    colours: dict[str, str] = {}
    unknown: set[str] = set()
    if np.random.default_rng((seed, index, 2)).random() < between:
        colours, unknown = avatars.draw_between(seed, index, looks)
    (folder / name).write_bytes(style.render_png(looks, size, colours))
    labels = style.labels(looks)
    return name, ["" if group in unknown else labels[name] for group, names in style.groups.items() for name in names]


def render_set(
    folder: Path,
    *,
    count: int,
    size: int,
    seed: int = 0,
    workers: int | None = None,
    style: str = avatars.STYLE,
    between: float = 0.0,
    report: Report = silent,
) -> None:
    """Render `count` pictures into `folder`, which appears only when the set is complete.

    The same seed gives the same pictures on every machine. A larger set begins with the pictures of a smaller one.

    Args:
        folder: new or empty folder.
        count: number of pictures, at least 1.
        size: height and width in pixels, 16 to 4096.
        seed: seed of the set; sets of different seeds are independent.
        workers: number of processes; None: one for each usable core; 0: render in this process.
        style: one of `styles.style_names()`.
        between: share of the pictures with mixtures of two of the palette's colours, in [0, 1]; the labels of mixed
            colours are unknown.
        report: called after each picture.

    Raises:
        DataError: `folder` is not empty, a number is out of range, or the style does not exist.
        OutputError: the folder cannot be written.
    """
    if count < 1:
        raise DataError(f"--count must be at least 1, not {count}")
    if not 16 <= size <= 4096:
        raise DataError(f"--size must be from 16 to 4096 pixels, not {size}")
    if seed < 0:
        raise DataError(f"--seed must not be negative, not {seed}")
    check_new_folder(folder)
    if not 0 <= between <= 1:
        raise DataError(f"--between must be from 0 to 1, not {between:g}")
    if between and style != avatars.STYLE:
        raise DataError(f"--between is for --style {avatars.STYLE}, whose colours are known")
    drawn = find_style(style)
    began = time.perf_counter()
    with replacing(folder) as partial:
        images = partial / IMAGES_FOLDER
        images.mkdir(parents=True)

        def rendered() -> Iterator[_Rendered]:
            jobs = ((images, drawn, seed, index, size, between) for index in range(count))
            for done, row in enumerate(render_all(jobs), start=1):
                yield row
                report(Progress("rendering", done, count, {"pictures/s": done / (time.perf_counter() - began)}))

        with _render_processes(workers) as render_all:
            write_labels(partial, drawn.groups, rendered())
        write_provenance(partial, Provenance(style, seed, size))


@contextlib.contextmanager
def _render_processes(workers: int | None) -> Iterator[Callable[[Iterable[_Job]], Iterator[_Rendered]]]:
    """Yield a function that renders pictures in order, in `workers` processes; 0: in this process."""
    if workers == 0:
        yield lambda jobs: map(_render_one, jobs)
        return
    with ProcessPoolExecutor(
        workers or len(os.sched_getaffinity(0)),
        mp_context=multiprocessing.get_context("spawn"),
        # Ctrl-C signals every process of a terminal. The workers ignore it, and this process ends them.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        yield lambda jobs: pool.map(_render_one, jobs, chunksize=16)
