"""Whole folders: each picture, or each pair, becomes one file in another folder; files that exist are skipped.

homomorph morph faces others --out films
homomorph batch faces --out edited --run avatars64 --set glasses=round_glasses --engine ray
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from homomorph.data.parquet_pictures import picture_of, read_rows
from homomorph.data.picture_names import PictureNames
from homomorph.errors import DataError
from homomorph.progress import Progress, Report, silent
from homomorph.text_files import read_text
from homomorph_client.errors import PictureError
from homomorph_client.files import write_text
from homomorph_client.output import write_output
from homomorph_client.pictures import Picture

_SETTINGS_FILE = "batch.json"
"""File in the folder of results with their settings. Results of other settings are refused there."""
Format = Literal["png", "gif", "mp4", "frames"]
"""Form of each result: all frames side by side, a loop, a film, or a folder of one PNG each."""
Compute = Callable[[Sequence[Picture]], NDArray[np.uint8]]
"""Makes frames, uint8 [S, H, W, 3], of a picture or a pair."""

_log = logging.getLogger(__name__)


class Work(Protocol):
    """The work on each item. It can be pickled, so that other processes and machines can do it too."""

    def settings(self) -> dict[str, Any]:
        """Return the settings that the results depend on, in plain values."""
        ...

    def open(self) -> AbstractContextManager[Compute]:
        """Connect to a server, or load a model."""
        ...


@dataclass(frozen=True)
class Item:
    """One or two pictures, and the name of what becomes of them."""

    name: str
    """Relative path of the result, without an ending."""
    pictures: tuple[Path | bytes, ...]
    """Files, or their content."""


@dataclass
class Outcome:
    """Counts of the results, and the failures."""

    written: int = 0
    """Results that were made now."""
    skipped: int = 0
    """Results that were there already."""
    failed: dict[str, str] = field(default_factory=dict)
    """Names of the items without a result -> the reason."""

    def add(self, name: str, status: str) -> None:
        """Count an item by what `make` returned for it."""
        if status == "written":
            self.written += 1
        elif status == "skipped":
            self.skipped += 1
        else:
            self.failed[name] = status
            _log.warning("failed: %s", status)


def folder_items(folder: Path) -> Iterator[Item]:
    """Yield the pictures in a folder and below it; where there are none, those in its parquet files.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}")
    names = _picture_names(folder)
    if names:
        yield from (Item(result, (folder / name,)) for result, name in names.items())
        return
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no pictures, nor parquet files with pictures")
    for file in files:
        for row in read_rows(file):
            yield row_item(row, file)


def row_item(row: dict[str, Any], file: Path | str) -> Item:
    """Return the picture in a row of a parquet file; its name has a part of its checksum, so that it is unique.

    Raises:
        DataError: there is none in it.
    """
    picture = picture_of(row)
    if picture is None:
        raise DataError(f"{file} holds no pictures: expected is a column of bytes, or of bytes and path")
    _, content, path = picture
    stem = PurePosixPath(path or "").stem or "picture"
    return Item(f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}", (content,))


def paired_items(source: Path, target: Path) -> tuple[list[Item], str]:
    """Pair the pictures of two folders, or one picture with each of a folder.

    Pictures of the same name (endings aside) are a pair. Where no name is in both folders and they hold equally many,
    the first is paired with the first, and so on.

    Returns:
        The pairs, and how they were made and what was left out, in words.

    Raises:
        DataError: no pairs can be made.
    """
    if not source.is_dir() or not target.is_dir():
        folder, single = (source, target) if source.is_dir() else (target, source)
        if not single.exists():
            raise DataError(f"there is no picture or folder {single}")
        names = _picture_names(folder)
        if not names:
            raise DataError(f"{folder} holds no pictures")
        pairs = [(source / name, target) if folder is source else (source, target / name) for name in names.values()]
        return [Item(result, pair) for result, pair in zip(names, pairs, strict=True)], "one picture with each"
    ours, others = _picture_names(source), _picture_names(target)
    for folder, names in ((source, ours), (target, others)):
        if not names:
            raise DataError(f"{folder} holds no pictures")
    both = [name for name in ours if name in others]
    if both:
        left = len(ours) + len(others) - 2 * len(both)
        note = "pictures of the same name" + (f"; left out: {left} without a partner" if left else "")
        return [Item(name, (source / ours[name], target / others[name])) for name in both], note
    if len(ours) != len(others):
        raise DataError(
            f"{source} ({len(ours)} pictures) and {target} ({len(others)}) have no picture of the same name, and are "
            "not equally many: name those that belong together alike"
        )
    pairs = [(source / one, target / other) for one, other in zip(ours.values(), others.values(), strict=True)]
    return [Item(name, pair) for name, pair in zip(ours, pairs, strict=True)], "in order, as no name is in both"


def check_results(out: Path, work: Work, kind: Format) -> str:
    """Check that the folder of results is new, or that those in it were made with the same settings.

    Returns:
        The settings, for `make` to write.

    Raises:
        DataError: they were not, or the folder holds something else.
    """
    settings = json.dumps({**work.settings(), "format": kind}, indent=2, sort_keys=True) + "\n"
    file = out / _SETTINGS_FILE
    if file.is_file():
        if read_text(file, DataError) != settings:
            raise DataError(f"{out} holds results of other settings ({_SETTINGS_FILE}): give a new folder")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} already holds something else: give a new folder")
    return settings


def make(item: Item, compute: Compute, out: Path, kind: Format, settings: str) -> str:
    """Make and write one result, unless it is there; before the first one, write the settings.

    Returns:
        `written` or `skipped`, or the reason why it failed.

    Raises:
        HomomorphError: the other items would fail in the same way, for example because no server answers.
    """
    path = out / (item.name if kind == "frames" else f"{item.name}.{kind}")
    if path.exists():
        return "skipped"
    try:
        frames = compute(item.pictures)
    except PictureError as error:
        return str(error)
    if not (out / _SETTINGS_FILE).exists():
        write_text(out / _SETTINGS_FILE, settings)
    write_output(path, frames)
    return "written"


def run_local(
    items: Iterable[Item],
    work: Work,
    out: Path,
    *,
    kind: Format = "png",
    total: int | None = None,
    concurrency: int = 1,
    report: Report = silent,
) -> Outcome:
    """Make the results of all items in this process.

    Args:
        items: the pictures or pairs; read when they are needed.
        work: the work on each.
        out: folder of results, see `check_results`.
        kind: form of each result.
        total: number of items, for reports.
        concurrency: number of items that are worked on at the same time, by a server.
        report: called after each item.

    Raises:
        DataError: `out` holds something else.
        HomomorphError: the work cannot go on; what was written stays, and the next run goes on from there.
    """
    settings = check_results(out, work, kind)
    items = iter(items)
    first = next(items, None)  # before a server is asked: `folder_items` raises where there is no picture
    outcome, done = Outcome(), count(1)
    waiting: deque[tuple[str, Future[str]]] = deque()

    def finish_oldest() -> None:
        name, future = waiting.popleft()
        outcome.add(name, future.result())
        report(Progress("pictures", next(done), total))

    with work.open() as compute, ThreadPoolExecutor(concurrency) as pool:
        try:
            for item in chain([] if first is None else [first], items):
                waiting.append((item.name, pool.submit(make, item, compute, out, kind, settings)))
                if len(waiting) == 2 * concurrency:
                    finish_oldest()
            while waiting:
                finish_oldest()
        finally:
            for _, future in waiting:
                future.cancel()
    return outcome


def _picture_names(folder: Path) -> dict[str, str]:
    """Return the names of a folder's pictures by the names of their results.

    A result has no ending, except where pictures differ in nothing else: results of a.jpg and a.png must not be one.
    """
    names = list(PictureNames(folder).pictures())
    count = Counter(map(_stem, names))
    return {_stem(name) if count[_stem(name)] == 1 else name: name for name in names}


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()
