"""Reads and writes a labelled folder: its groups, its attributes, and the labels of its pictures.

A data folder holds `groups.yaml`, a table of labels (`attributes.csv`, CelebA's own files and others, see `tables`) and
pictures, in `images/` or anywhere below the folder. Parquet files with pictures inside are unpacked first.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import yaml
from numpy.typing import NDArray

from homomorph.data.parquet_pictures import unpack_pictures
from homomorph.data.picture_names import PictureNames
from homomorph.data.tables import TABLE_FILES, UNKNOWN, LabelTable, find_table, read_table
from homomorph.errors import ConfigError, DataError
from homomorph.models.config import check_groups
from homomorph.text_files import read_yaml
from homomorph_client.picture_files import is_picture

__all__ = ["UNKNOWN", "LabelledPictures", "read_groups", "read_labelled"]

IMAGES_FOLDER = "images"
ATTRIBUTES_FILE = "attributes.csv"
GROUPS_FILE = "groups.yaml"


class _PicturePaths(Sequence[Path]):
    """Paths of the files of one folder, made on demand: 200,000 stored `Path`s would take 100 MB."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> _PicturePaths: ...

    def __getitem__(self, index: int | slice) -> Path | _PicturePaths:
        if isinstance(index, slice):
            return _PicturePaths(self.folder, self.names[index])
        return self.folder / self.names[index]


@dataclass(frozen=True)
class LabelledPictures:
    """The pictures of a folder and their labels."""

    paths: Sequence[Path]
    """N picture files."""
    labels: NDArray[np.uint8]
    """0, 1 or `UNKNOWN` [N, L], columns in the order of the groups' attributes."""
    groups: dict[str, tuple[str, ...]]
    """Attributes of each group."""
    notes: tuple[str, ...] = ()
    """How the table was read, and what was left out and why."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which labels are known, [N, L]."""
        return np.not_equal(self.labels, UNKNOWN)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the L labels."""
        return tuple(name for names in self.groups.values() for name in names)

    def name(self, row: int) -> str:
        """Return a picture's name as a table of this folder writes it."""
        paths = self.paths
        return paths.names[row] if isinstance(paths, _PicturePaths) else paths[row].name

    def summary(self) -> str:
        """Return one line: the number of pictures, the counts of their labels, and what was left out and why."""
        known, present = self.known.sum(axis=0), (self.labels == 1).sum(axis=0)
        counts = []
        for name, total, yes in zip(self.attributes, known.tolist(), present.tolist(), strict=True):
            unknown = len(self.labels) - total
            counts.append(f"{name} {yes} yes, {total - yes} no" + (f", {unknown} unknown" if unknown else ""))
        parts = [f"{len(self.paths)} pictures", "; ".join(counts)]
        if alike := [name for name, one in zip(self.attributes, self.one_valued(), strict=True) if one]:
            parts.append(f"nothing can be learned about {', '.join(alike)}: all known labels are the same")
        return ": ".join(parts[:2]) + "".join(f". {part[0].upper()}{part[1:]}" for part in (*parts[2:], *self.notes))

    def one_valued(self) -> NDArray[np.bool_]:
        """Which labels have fewer than two known values, [L]. Nothing can be learned about them."""
        both: NDArray[np.bool_] = (self.labels == 0).any(axis=0) & (self.labels == 1).any(axis=0)
        return ~both


def read_labelled(folder: Path, *, unlisted: bool = False, allow_missing: bool = False) -> LabelledPictures:
    """Read a data folder's groups and labels. Checks that the table's pictures exist, without opening them.

    Args:
        folder: the data folder.
        unlisted: whether to add the pictures that the table does not name, all their labels unknown.
        allow_missing: whether to leave out rows whose picture does not exist; otherwise they are an error.

    Raises:
        DataError: a file or column is missing, a value is not a label, a named picture does not exist, or a name
            occurs twice.
    """
    if not folder.is_dir():
        raise DataError(f"no data folder at {folder}: `homomorph render {folder}` makes one")
    groups = read_groups(folder / GROUPS_FILE)
    wanted = [name for names in groups.values() for name in names]
    notes: list[str] = []
    file = find_table(folder)
    if file is None and (unpacked := unpack_pictures(folder)) is not None:
        notes.append(f"pictures unpacked from parquet to {unpacked}")
        folder, file = unpacked, find_table(unpacked)
    if file is None:
        raise DataError(f"{folder} has no table of labels, such as {', '.join(TABLE_FILES[:3])}, or parquet files")
    table = read_table(file, wanted)
    notes.insert(0, f"labels by {file.name}" + (f" ({table.form})" if table.form else ""))
    images = folder / IMAGES_FOLDER if (folder / IMAGES_FOLDER).is_dir() else folder
    found = PictureNames(images, others=frozenset((GROUPS_FILE, "render.json", *TABLE_FILES)))
    rows, names, left_out = _named_pictures(table, found, allow_missing)
    labels = table.labels[rows]
    rest = sorted(frozenset(found.files).difference(names))
    if unlisted:
        more = [name for name in rest if is_picture(images / name)]
        if no_picture := len(rest) - len(more):
            left_out.append(f"{_count(no_picture, 'file')} without a picture in it")
        names += more
        labels = np.concatenate([labels, np.full((len(more), len(wanted)), UNKNOWN, np.uint8)])
    elif rest:
        left_out.append(f"{_count(len(rest), 'file')} that no row names, such as {rest[0]}")
    if found.not_text:
        left_out.append(f"{_count(len(found.not_text), 'file')} with a name that is not UTF-8: {found.not_text[0]}")
    if found.hidden:
        left_out.append(_count(found.hidden, "hidden file"))
    if left_out:
        notes.append(f"left out: {'; '.join(left_out)}")
    if len(names) < 2:
        raise DataError(f"{file} names {len(names)} pictures; a morph needs at least 2")
    return LabelledPictures(_PicturePaths(images, names), labels, groups, tuple(notes))


def _named_pictures(
    table: LabelTable, found: PictureNames, allow_missing: bool
) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """Return the rows whose pictures exist, the pictures' names, and what was left out.

    Raises:
        DataError: a picture does not exist, or two rows name the same one.
    """
    rows: list[int] = []
    names: list[str] = []
    missing: list[int] = []
    line_of: dict[str, int] = {}
    for row, written in enumerate(table.names):
        line = int(table.lines[row])
        try:
            name = found.find(written)
        except DataError as error:
            raise DataError(f"{table.file}, line {line}: {error}") from error
        if name is None:
            missing.append(row)
            continue
        if name in line_of:
            raise DataError(
                f"{table.file}, line {line}: {name} stands in line {line_of[name]} already: keep one of the two"
            )
        line_of[name] = line
        rows.append(row)
        names.append(name)
    left_out: list[str] = []
    if missing:
        written = table.names[missing[0]]
        if not allow_missing:
            near = found.near(written)
            raise DataError(
                f"{table.file}, line {table.lines[missing[0]]}: there is no picture {found.folder / written}"
                + (f" (did you mean {near}?)" if near else "")
                + (f", nor those of {len(missing) - 1} other rows" if len(missing) > 1 else "")
                + "; --allow-missing leaves such rows out"
            )
        left_out.append(f"{_count(len(missing), 'row')} without a picture, such as {written}")
    return np.asarray(rows, np.int64), names, left_out


def check_new_folder(folder: Path) -> None:
    """Check that a folder can be written without losing anything.

    Raises:
        DataError: it exists and is not empty, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} already exists; give a new folder, nothing is overwritten")


def write_labels(
    folder: Path, groups: Mapping[str, Sequence[str]], rows: Iterable[tuple[str, Sequence[int | str]]]
) -> None:
    """Write `attributes.csv` and `groups.yaml`.

    Args:
        folder: the data folder.
        groups: attributes of each group.
        rows: names of pictures, each with its labels in the order of the groups' attributes: 0, 1, or "" if unknown.
    """
    with (folder / ATTRIBUTES_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", *(name for names in groups.values() for name in names)])
        writer.writerows([name, *labels] for name, labels in rows)
    plain = {group: list(names) for group, names in groups.items()}
    (folder / GROUPS_FILE).write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def group_columns(groups: Mapping[str, Sequence[str]]) -> dict[str, slice]:
    """Return the columns of each group's labels among all labels."""
    ends = list(itertools.accumulate(map(len, groups.values())))
    return {group: slice(end - len(names), end) for (group, names), end in zip(groups.items(), ends, strict=True)}


def occurrence(data: LabelledPictures) -> NDArray[np.float64]:
    """Return each label's share of 1 among its known values, [L]; NaN for a label that is never known."""
    counts = data.known.sum(axis=0)
    share = np.full(len(counts), np.nan)
    np.divide((data.labels == 1).sum(axis=0), counts, out=share, where=counts > 0)
    return share


def fingerprint(data: LabelledPictures) -> str:
    """Return a SHA-256 of the groups, the labels, and the names and sizes of the picture files."""
    digest = hashlib.sha256(json.dumps(data.groups).encode())
    digest.update(data.labels.tobytes())
    for path in data.paths:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
    return digest.hexdigest()


def label_balance(share: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the loss weights of each label's values 0 and 1, [2, L]. Rare values weigh more, so that they are learned.

    A value that occurs in at least a tenth of the pictures weighs 1. A rarer value weighs as much as if it occurred in
    a tenth, but at most 10: with a larger weight, the model would memorise a few pictures.

    Args:
        share: share of the pictures that have each label, [L], as `occurrence` returns it.
    """
    shares = np.nan_to_num(np.stack([1 - share, share]), nan=1.0)
    weights: NDArray[np.float32] = np.clip(0.1 / np.maximum(shares, 0.01), 1, 10).astype(np.float32)
    return weights


def read_groups(file: Path) -> dict[str, tuple[str, ...]]:
    """Read `groups.yaml`: a mapping of group names to lists of attributes.

    Raises:
        DataError: the file is missing, is not such a mapping, or has invalid names.
    """
    try:
        content = read_yaml(file, DataError)
    except FileNotFoundError as error:
        raise DataError(
            f"there is no {file}: it names the attributes of each group, as `glasses: [round, square]`"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise DataError(f"{file} must map group names to lists of attributes, as `glasses: [round, square]`")
    for name in (name for group, names in content.items() for name in (group, *names)):
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise DataError(f"{file}: YAML does not read {str(name)[:40]!r} as a name: write it in quotes")
    groups = {str(group): tuple(str(name) for name in names) for group, names in content.items()}
    try:
        check_groups(groups)
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from error
    return groups
