"""Reads tables of labels: CSV with any separator, CelebA's text files, Excel, parquet.

Each format gives a `LabelTable`: the pictures' names and their labels. docs/your-data.md lists the formats.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from homomorph.errors import DataError

UNKNOWN = 2
"""Value of an unknown label. Stored in the label array itself, so indexing keeps it aligned."""
TABLE_FILES = (
    "attributes.csv",
    "list_attr_celeba.txt",
    "list_attr_celeba.csv",
    "CelebAMask-HQ-attribute-anno.txt",
    "attributes.tsv",
    "attributes.txt",
    "attributes.xlsx",
    "attributes.parquet",
    "labels.csv",
    "metadata.csv",
    "metadata.jsonl",
)
"""Names of tables in a data folder. The first one that exists is read."""
NAME_COLUMNS = ("image", "image_id", "file_name", "filename", "file", "image_name", "image_path", "path", "img", "name")
"""Headers of the column with the pictures' names, in small letters. The first one that exists is used."""

_NO_LABEL = 255
_MAX_BYTES = 2**30
_MAX_COLUMNS = 10_000
_SEPARATORS = (",", ";", "\t", "|")
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNKNOWN_WORDS = ("", "?", "nan", "na", "n/a", "#n/a", "none", "null", "<na>", "-")
_WORDS = {"true": 1, "yes": 1, "t": 1, "y": 1, "false": 0, "no": 0, "f": 0, "n": 0}


@dataclass(frozen=True)
class LabelTable:
    """Names and labels of N pictures, as read from a table."""

    file: Path
    names: list[str]
    """Names of the N pictures, as the table writes them."""
    lines: NDArray[np.int64]
    """Line number of each picture in the file, [N]."""
    labels: NDArray[np.uint8]
    """0, 1 or `UNKNOWN`, [N, L]."""
    form: str
    """How the values were understood, such as `-1 is no, 1 is yes`."""


def find_table(folder: Path) -> Path | None:
    """Return the table of labels in a folder or in one of its subfolders; None if there is none.

    Raises:
        DataError: several subfolders have one.
    """
    if here := next((folder / name for name in TABLE_FILES if (folder / name).is_file()), None):
        return here
    below = [found for name in TABLE_FILES for found in sorted(folder.glob(f"*/{name}")) if found.is_file()]
    if len(below) > 1:
        raise DataError(f"{folder} has several tables, {below[0]} and {below[1]}: put the one to read into {folder}")
    return below[0] if below else None


def read_table(file: Path, attributes: Sequence[str]) -> LabelTable:
    """Read a table of labels.

    Args:
        file: CSV, CelebA's text, Excel or parquet; the content decides which.
        attributes: names of the L columns to read, in this order.

    Raises:
        DataError: the file cannot be read, a column is missing or occurs twice, or a value is not a label.
    """
    frame, first_line, form = _read_frame(file)
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    frame = _without_index(frame)
    if twice := sorted({name for name in frame.columns if list(frame.columns).count(name) > 1}):
        raise DataError(f"{file} has the column {', '.join(twice[:3])} twice: remove one of them")
    name_column = _name_column(file, list(frame.columns))
    if name_column in attributes:
        raise DataError(f"{file}: the column {name_column} names the pictures: remove it from groups.yaml")
    if missing := [name for name in attributes if name not in frame.columns]:
        have = ", ".join(name for name in list(frame.columns)[:60] if name != name_column)
        raise DataError(
            f"{file} has no column {', '.join(missing)}, which groups.yaml names; it has {_short(have, 600)}"
            + (f" ({form})" if form else "")
        )
    lines = frame.index.to_numpy(np.int64) + first_line
    names = frame[name_column].astype(str).tolist()
    columns = {column: _Column(frame[column]) for column in frame.columns if column != name_column}
    values, meaning = _meaning(file, columns, attributes)
    labels = np.empty((len(frame), len(attributes)), np.uint8)
    for place, attribute in enumerate(attributes):
        column = columns[attribute]
        table = np.array([values.get(word, _NO_LABEL) for word in column.words], np.uint8)
        labels[:, place] = table[column.codes]
    if (wrong := np.argwhere(labels == _NO_LABEL)).size:
        row, place = wrong[0].tolist()
        column = columns[attributes[place]]
        cell = _short(column.words[column.codes[row]])
        raise DataError(
            f"{file}, line {lines[row]}: a label must be 0 or 1, -1 or 1, yes or no, true or false, or empty where it "
            f"is not known, not {cell!r} ({attributes[place]})"
        )
    return LabelTable(file, names, lines, labels, ", ".join(part for part in (form, meaning) if part))


class _Column:
    """A column's different values, in small letters, and the index of each row's value."""

    def __init__(self, series: pd.Series[Any]) -> None:
        try:
            category = series.astype("category")
        except TypeError:  # JSON lines and parquet can hold lists and mappings
            category = series.astype(str).astype("category")
        self.words = [str(value).strip().lower() for value in category.cat.categories]
        codes = category.cat.codes.to_numpy(np.int64).copy()
        if (codes < 0).any():  # pandas' own mark of a missing value
            codes[codes < 0] = len(self.words)
            self.words.append("")
        self.codes = codes

    def numbers(self) -> set[float] | None:
        """Numbers among the values; None if a value is not a label."""
        found: set[float] = set()
        for word in self.words:
            if word in _UNKNOWN_WORDS or word in _WORDS:
                continue
            if (number := _number(word)) not in (-1.0, 0.0, 1.0):
                return None
            found.add(number)
        return found


def _meaning(file: Path, columns: dict[str, _Column], attributes: Sequence[str]) -> tuple[dict[str, int], str | None]:
    """Return the label of every value, and a phrase that says how numbers were understood; None without numbers.

    The meaning of 0 depends on all label columns of the table, including those that are not read.
    """
    words = {word for name in attributes for word in columns[name].words}
    numbers: set[float] = set()
    for name, column in columns.items():
        found = column.numbers()
        if found is None and name in attributes:
            # The column's labels count. The caller reports its value that is no label.
            found = {number for word in column.words if (number := _number(word)) in (-1.0, 0.0, 1.0)}
        numbers |= found or set()
    if {-1.0, 0.0} <= numbers:
        raise DataError(
            f"{file} has both -1 and 0 among its labels, and 0 could mean no or not known: leave the cells of unknown "
            "labels empty, and write no as one of the two"
        )
    values = {word: UNKNOWN for word in words if word in _UNKNOWN_WORDS}
    values |= {word: _WORDS[word] for word in words if word in _WORDS}
    values |= {word: int(number == 1) for word in words if (number := _number(word)) in (-1.0, 0.0, 1.0)}
    if -1.0 in numbers:
        return values, "-1 is no, 1 is yes"
    if numbers:
        return values, "0 is no, 1 is yes"
    return values, None


def _number(word: str) -> float | None:
    """Return a whole number, written as 1, 1.0, 1,0 (decimal comma) or 1.000e+00 (numpy); None for other words."""
    match = re.fullmatch(r"([+-]?\d+)([.,]0*)?(e[+-]?0+)?", word) if len(word) <= 30 else None
    return float(match[1]) if match else None


def _without_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop the row numbers that pandas writes as a first column, and empty columns at the end."""
    if frame.shape[1] > 1 and (frame.columns[0] == "" or str(frame.columns[0]).startswith("Unnamed")):
        counted = [str(value).removesuffix(".0") for value in frame.iloc[:, 0]]
        if counted in ([str(i) for i in range(len(frame))], [str(i + 1) for i in range(len(frame))]):
            frame = frame.iloc[:, 1:]
    while frame.shape[1] and frame.columns[-1] == "" and (frame.iloc[:, -1].astype(str).str.strip() == "").all():
        frame = frame.iloc[:, :-1]
    return frame


def _name_column(file: Path, columns: Sequence[str]) -> str:
    lower = {name.lower(): name for name in reversed(columns)}
    for name in NAME_COLUMNS:
        if name in lower:
            return lower[name]
    header = _short(", ".join(columns[:20]), 200) or "nothing"
    raise DataError(f"{file}: a column must be called 'image' and name the pictures; the columns are {header}")


def _read_frame(file: Path) -> tuple[pd.DataFrame, int, str | None]:
    """Return the rows, the line number of the first row, and the file's form unless it is text in UTF-8."""
    try:
        if not file.is_file():
            raise DataError(f"{file} is no regular file")
        if file.stat().st_size > _MAX_BYTES:
            raise DataError(f"{file} has more than {_MAX_BYTES >> 20} MiB: it is no table of labels")
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if content.startswith(b"PK\x03\x04"):
        return _read_excel(file, content), 2, "an Excel sheet"
    if content.startswith(b"PAR1"):
        return _read_parquet(file), 1, "parquet"
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise DataError(f"{file} is an Excel file of the old kind (.xls): save it as CSV")
    text, encoding = _decode(file, content)
    if text.startswith("{"):
        return _read_json_lines(file, text), 1, encoding
    frame, first_line = _read_text(file, text)
    return frame, first_line, encoding


def _decode(file: Path, content: bytes) -> tuple[str, str | None]:
    """Return a file's text, and the name of its encoding; None for UTF-8."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding), None if mark == codecs.BOM_UTF8 else encoding.upper()
            except UnicodeDecodeError as error:
                raise DataError(f"{file} begins as {encoding.upper()} and is damaged: {error.reason}") from error
    if b"\0" in content[:4096]:
        for encoding in ("utf-16-le", "utf-16-be"):
            zeros = content[1:4096:2] if encoding == "utf-16-le" else content[0:4096:2]
            if zeros.count(0) > 0.9 * len(zeros):
                try:
                    return content.decode(encoding), "UTF-16"
                except UnicodeDecodeError:
                    break
        raise DataError(f"{file} is no text: give a CSV in UTF-8")
    try:
        return content.decode("utf-8"), None
    except UnicodeDecodeError:
        # This encoding accepts every byte. If it is wrong, names do not match the pictures and are reported later.
        return content.decode("cp1252", errors="replace"), "not UTF-8, read as Windows-1252"


def _read_text(file: Path, text: str) -> tuple[pd.DataFrame, int]:
    """Read CSV, or CelebA's text: a count, a header without the pictures' column, rows."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # Excel on a Mac can end lines by CR alone
    first, _, rest = text.partition("\n")
    if first.strip().isdecimal():
        header = rest.partition("\n")[0].split()
        frame = _parse(file, text, ["image", *header], r"\s+", skipped=2)
        if len(frame) != int(first[:20]):
            raise DataError(f"{file}: the first line promises {first.strip()[:20]} pictures, but {len(frame)} follow")
        return frame, 3
    separator = max(_SEPARATORS, key=first.count)
    if separator not in first and file.suffix.lower() == ".txt":
        raise DataError(f"{file}: the first line must be the number of pictures, not {_short(first.strip())!r}")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)  # a name may have several lines, in quotes
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise DataError(f"{file}, line 1: {error}") from error
    _name_column(file, header)  # before rows are compared with a first line that is no header
    return _parse(file, text, header, separator, skipped=1), rows.line_num + 1


def _parse(file: Path, text: str, header: list[str], separator: str, *, skipped: int) -> pd.DataFrame:
    """Parse rows that all have as many cells as the header. Empty lines at the end are dropped."""
    if len(header) > _MAX_COLUMNS:
        raise DataError(f"{file} has {len(header)} columns: it is no table of labels")
    _check_rows(file, text, len(header), separator, skipped)
    numbers = range(len(header))
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            names=list(numbers),  # a header may repeat a name; that is refused later
            skiprows=skipped,
            dtype="category",
            na_filter=False,
            index_col=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        )
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame({number: [] for number in numbers}, dtype="category")
    except (pd.errors.ParserError, ValueError) as error:
        raise DataError(f"{file} cannot be read as a table: {_short(str(error), 200)}") from error
    nameless = frame.index[frame[0].astype(str).str.strip() == ""]
    blank = nameless[(frame.loc[nameless].astype(str) == "").all(axis=1).to_numpy()]
    frame = frame.drop(index=blank)
    frame.columns = pd.Index(header)
    return frame


def _check_rows(file: Path, text: str, columns: int, separator: str, skipped: int) -> None:
    """Check that every row has as many cells as the header has names."""
    if separator == r"\s+":
        counts = ((line, len(row.split())) for line, row in enumerate(text.split("\n"), 1))
    elif '"' not in text:
        counts = (
            (line, row.count(separator) + 1 if row.strip() else 0) for line, row in enumerate(text.split("\n"), 1)
        )
    else:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        counts = ((reader.line_num, len(row)) for row in reader)
    try:
        for line, count in counts:
            if line > skipped and count not in (0, columns):
                raise DataError(
                    f"{file}, line {line}: expected {columns - 1} labels after the picture's name, found {count - 1}"
                )
    except csv.Error as error:  # a field of more than 131,072 characters, among others
        raise DataError(f"{file} cannot be read as a table: {error}") from error


def _read_json_lines(file: Path, text: str) -> pd.DataFrame:
    try:
        return pd.read_json(io.StringIO(text), lines=True, dtype=False, convert_dates=False)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} begins as JSON lines and cannot be read: {_short(str(error), 200)}") from error


def _read_excel(file: Path, content: bytes) -> pd.DataFrame:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(item.file_size for item in archive.infolist()) > _MAX_BYTES:
                raise DataError(f"{file} unpacks to more than {_MAX_BYTES >> 20} MiB: it is no table of labels")
        return pd.read_excel(io.BytesIO(content), dtype=object, na_filter=False, engine="openpyxl").fillna("")
    except ImportError as error:
        raise DataError(
            f"{file} is an Excel file, which needs openpyxl: pip install openpyxl, or save it as CSV"
        ) from error
    except DataError:
        raise
    except Exception as error:  # a damaged archive can raise any exception
        raise DataError(
            f"{file} is no CSV but begins like an Excel file, and cannot be read: {_short(str(error), 200)}"
        ) from error


def _read_parquet(file: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(file, dtype_backend="numpy_nullable")
        return frame.reset_index(drop=frame.index.name is None)
    except ImportError as error:
        raise DataError(f"{file} is parquet, which needs pyarrow: pip install pyarrow") from error
    except Exception as error:  # a damaged file can raise any exception
        raise DataError(f"{file} is damaged parquet: {_short(str(error), 200)}") from error


def _short(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[:length] + " ..."
