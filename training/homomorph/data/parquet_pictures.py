"""Data sets of Hugging Face: parquet (or Arrow) files that hold the pictures themselves.

They are unpacked once, into a folder of the user's cache, so that training reads single pictures in any order.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from homomorph.errors import DataError
from homomorph_client.files import cache_folder, open_regular, replacing

_ENDINGS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}
_ROWS = 256
"""Rows that are in memory at once."""


def unpack_pictures(folder: Path) -> Path | None:
    """Unpack the parquet files in a folder, or below it, that have a column of pictures.

    Args:
        folder: holds `*.parquet`, as `huggingface-cli download` leaves them, or `*.arrow`, as `save_to_disk` does.

    Returns:
        A data folder with `images/` and `attributes.csv`, made now or earlier; None if there are no such files.

    Raises:
        DataError: pyarrow is missing, or a file is damaged or holds no pictures.
        OutputError: the cache cannot be written.
    """
    files = sorted([*folder.rglob("*.parquet"), *folder.rglob("data-*.arrow")])
    if not files:
        return None
    known = hashlib.sha256()
    for file in files:
        found = file.stat()
        known.update(f"{file.resolve()}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="surrogateescape"))
    target = cache_folder() / "unpacked" / known.hexdigest()[:32]
    if not target.is_dir():
        with replacing(target) as partial:
            (partial / "images").mkdir(parents=True)
            _unpack(files, partial)
    return target


def count_row_groups(file: Path) -> int:
    """Return how many parts a parquet file has that can be read alone.

    Raises:
        DataError: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        open_regular(file).close()
        return int(pq.ParquetFile(file).metadata.num_row_groups)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def read_rows(file: Path, *, row_group: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet or Arrow file, or of one row group of it, a few at a time in memory.

    Raises:
        DataError: pyarrow is missing, or the file is damaged.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(f"{file} needs pyarrow: pip install 'homomorph-interpolation[tables]'") from error
    try:
        open_regular(file).close()
        if file.suffix == ".arrow":
            batches = iter(pa.ipc.open_stream(pa.memory_map(str(file))))
        else:
            groups = None if row_group is None else [row_group]
            batches = pq.ParquetFile(file).iter_batches(_ROWS, row_groups=groups)
        for batch in batches:
            for start in range(0, batch.num_rows, _ROWS):
                yield from batch.slice(start, _ROWS).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def picture_of(row: dict[str, Any]) -> tuple[str, bytes, str | None] | None:
    """Return the column, content and name of the picture in a row; None if it has none."""
    for column, value in row.items():
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            return column, value["bytes"], value.get("path")
        if isinstance(value, bytes):
            return column, value, None
    return None


def _unpack(files: list[Path], target: Path) -> None:
    header: list[str] | None = None
    count = 0
    with (target / "attributes.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        for file in files:
            for row in read_rows(file):
                picture = picture_of(row)
                if picture is None:
                    raise DataError(f"{file} holds no pictures: expected is a column of bytes, or of bytes and path")
                column, content, _ = picture
                others = [name for name in row if name != column]
                if header is None:
                    header = others
                    writer.writerow(["image", *(name if name != "image" else "image_2" for name in header)])
                elif header != others:
                    raise DataError(f"{file} has other columns than {files[0]}: {', '.join(others)}")
                ending = next((end for start, end in _ENDINGS.items() if content.startswith(start)), ".img")
                count += 1
                name = f"{count:08d}{ending}"
                (target / "images" / name).write_bytes(content)
                writer.writerow([name, *("" if row[key] is None else row[key] for key in header)])
