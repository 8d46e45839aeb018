"""Reads what a labelled folder says: which attributes, in which groups, of which pictures.

A data folder holds `groups.yaml` and either `attributes.csv` (`image,attr1,...`, values 0 and 1) or CelebA's own
`list_attr_celeba.txt` (a count, a header line, rows of a name and 1/-1). Pictures lie in `images/` or beside the
labels. A label that nobody knows is an empty cell, `?` or `nan`; among CelebA's 1/-1 it is 0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import yaml
from numpy.typing import NDArray

from homomorph.errors import ConfigError, DataError
from homomorph.models.config import check_groups

IMAGES_FOLDER = "images"
ATTRIBUTES_FILE = "attributes.csv"
CELEBA_FILE = "list_attr_celeba.txt"
GROUPS_FILE = "groups.yaml"

UNKNOWN = 2
"""The label that nobody knows. It stands among the labels, so that it stays with them whatever is selected."""
_UNKNOWN_CELLS = ("", "?", "nan")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Endings of the files that are taken for pictures where no table names them."""


class PicturePaths(Sequence[Path]):
    """Files of one folder, put together when asked for: kept as `Path`s, 200,000 of them would take 100 MB."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> PicturePaths: ...

    def __getitem__(self, index: int | slice) -> Path | PicturePaths:
        if isinstance(index, slice):
            return PicturePaths(self.folder, self.names[index])
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

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which labels are known, [N, L]."""
        return np.not_equal(self.labels, UNKNOWN)


def read_labelled(folder: Path, *, unlisted: bool = False) -> LabelledPictures:
    """Read a data folder's groups and labels; pictures are looked up but not opened.

    Args:
        folder: the data folder.
        unlisted: whether to add the pictures that the table does not name, all their labels unknown.

    Raises:
        DataError: a file or column is missing, a value is not a label, or a named picture is not there.
    """
    if not folder.is_dir():
        raise DataError(f"no data folder at {folder}: `homomorph render {folder}` makes one")
    groups = read_groups(folder / GROUPS_FILE)
    wanted = [name for names in groups.values() for name in names]
    if (folder / ATTRIBUTES_FILE).is_file():
        file, rows = folder / ATTRIBUTES_FILE, _csv_rows(folder / ATTRIBUTES_FILE)
        values = {"0": 0, "1": 1} | dict.fromkeys(_UNKNOWN_CELLS, UNKNOWN)
        allowed = "0 or 1, or empty where it is not known"
    elif (folder / CELEBA_FILE).is_file():
        file, rows = folder / CELEBA_FILE, _celeba_rows(folder / CELEBA_FILE)
        values = {"-1": 0, "1": 1, "0": UNKNOWN} | dict.fromkeys(_UNKNOWN_CELLS, UNKNOWN)
        allowed = "-1 or 1, or 0 where it is not known"
    else:
        raise DataError(f"{folder} has neither {ATTRIBUTES_FILE} nor {CELEBA_FILE}")
    header = next(rows)[1]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(
            f"{file} has no column {', '.join(missing)}, which {GROUPS_FILE} names; it has {', '.join(header)}"
        )
    columns = [header.index(name) for name in wanted]
    images = images_folder(folder)
    names: list[str] = []
    labels = bytearray()
    for line, (name, *cells) in rows:
        if len(cells) != len(header):
            raise DataError(
                f"{file}, line {line}: expected {len(header)} labels after the picture's name, found {len(cells)}"
            )
        try:
            labels.extend([values[cells[column].strip().lower()] for column in columns])
        except KeyError as error:
            raise DataError(f"{file}, line {line}: a label must be {allowed}, not {error.args[0]!r}") from error
        if not (images / name).is_file():
            raise DataError(f"{file}, line {line}: there is no picture {images / name}")
        names.append(name)
    if unlisted:
        listed = set(names)
        found = sorted(
            path.name for path in images.iterdir() if path.suffix.lower() in _PICTURES and path.name not in listed
        )
        names += found
        labels.extend([UNKNOWN] * (len(columns) * len(found)))
    if len(names) < 2:
        raise DataError(f"{file} names {len(names)} pictures; a morph needs at least 2")
    table = np.frombuffer(labels, dtype=np.uint8).reshape(len(names), len(columns))
    return LabelledPictures(PicturePaths(images, names), table, groups)


def images_folder(folder: Path) -> Path:
    """Return where a data folder's pictures lie."""
    return folder / IMAGES_FOLDER if (folder / IMAGES_FOLDER).is_dir() else folder


def occurrence(data: LabelledPictures) -> NDArray[np.float64]:
    """Return the share of the pictures that have each label, of those where it is known; NaN where it never is, [L]."""
    counts = data.known.sum(axis=0)
    share = np.full(len(counts), np.nan)
    np.divide((data.labels == 1).sum(axis=0), counts, out=share, where=counts > 0)
    return share


def label_balance(share: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what a label has to count where it is 0 and where it is 1, so that a rare one is learned at all, [2, L].

    What occurs in at least a tenth of the pictures counts 1. Rarer values count as if they occurred in a tenth, but at
    most ten times: beyond that a handful of pictures would be learned by heart.

    Args:
        share: of the pictures that have the label, [L], as `occurrence` returns it.
    """
    shares = np.nan_to_num(np.stack([1 - share, share]), nan=1.0)
    weights: NDArray[np.float32] = np.clip(0.1 / np.maximum(shares, 0.01), 1, 10).astype(np.float32)
    return weights


def read_groups(file: Path) -> dict[str, tuple[str, ...]]:
    """Read `groups.yaml`: a mapping of group names to lists of attributes.

    Raises:
        DataError: the file is missing, is no such mapping, or has names that cannot be used.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"there is no {file}: it names the attributes of each group, as `glasses: [round, square]`"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not YAML: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise DataError(f"{file} must map group names to lists of attributes, as `glasses: [round, square]`")
    groups = {str(group): tuple(str(name) for name in names) for group, names in content.items()}
    try:
        check_groups(groups)
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from error
    return groups


def _csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (0, attribute names), then (line, [name, value, ...])."""
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream)
        header = [name.strip() for name in next(reader, [])]
        if not header or header[0] != "image":
            raise DataError(f"{file}: the first column must be 'image', not {header[0] if header else 'nothing'!r}")
        yield 0, header[1:]
        for row in reader:
            if row:
                yield reader.line_num, row


def _celeba_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (0, attribute names), then (line, [name, value, ...])."""
    with file.open(encoding="utf-8") as stream:
        count = stream.readline().strip()
        if not count.isdecimal():
            raise DataError(f"{file}: the first line must be the number of pictures, not {count!r}")
        yield 0, stream.readline().split()
        rows = 0
        for line, text in enumerate(stream, start=3):
            if cells := text.split():
                rows += 1
                yield line, cells
        if rows != int(count):
            raise DataError(f"{file}: the first line promises {count} pictures, but {rows} follow")
