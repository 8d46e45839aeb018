"""`manifest.json` at the root of an exported repository: its models, their origin and their parity."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homomorph.text_files import read_json
from homomorph_client.files import sha256
from homomorph_client.names import HOMOMORPH
from homomorph_export.contract import MANIFEST_FILE
from homomorph_export.errors import ExportError

_NAME = re.compile(r"(?!\.)[\w.-]+", re.ASCII)
"""A valid name of a model. It cannot be a path."""
_WEIGHTS = (".pt", ".onnx", ".pt2", ".so")
"""Endings of files that nobody edits, the operator's library among them. Configurations may be changed."""


@dataclass(frozen=True)
class Parity:
    """How far the frames of one file format are from the run's own float32 frames, in grey levels 0-255."""

    precision: str
    """Number format of these files, which is not always the one that was chosen."""
    mean: float
    """Mean absolute difference over all compared pixels."""
    max: float
    """Largest absolute difference."""
    batch_sizes: tuple[int, ...]
    """Batch sizes compared."""
    picture_sizes: tuple[tuple[int, int], ...]
    """Heights and widths compared, in pixels, each with every batch size."""


Record = dict[str, Any]
"""One export's entries in the file: those of `Manifest`, as JSON has them."""


@dataclass(frozen=True)
class Manifest:
    """The record of one export."""

    picture_size: int
    """Height and width in pixels that the models were trained at."""
    stride: int
    """Heights and widths must be multiples of this."""
    precision: str
    """Number format that was chosen; `parity` says what each file format has."""
    versions: dict[str, str]
    """Versions of homomorph, Python and the libraries that wrote the files."""
    models: tuple[str, ...]
    """The folders that this export wrote; others in the repository are not its own."""
    files: dict[str, str]
    """SHA-256 of each file written, by its path below the repository."""
    parity: dict[str, Parity]
    """By file format: `torchscript`, `onnx`, `aotinductor`."""
    method: str = HOMOMORPH
    """The runs' method: `homomorph` or `cyclegan`. A repository holds one export of each."""
    groups: tuple[str, ...] = ()
    """Names of a homomorph run's branches in the order of the strengths' columns; the last is the residual one."""
    directions: tuple[str, ...] = ()
    """Names of the directions of CycleGANs, in the order of their indices in requests."""

    def write(self, path: Path, *, others: Sequence[Record]) -> None:
        """Write the manifest as JSON, with the records of other exports that the repository holds as `others`."""
        path.write_text(json.dumps(dataclasses.asdict(self) | {"others": others}, indent=2) + "\n")


def exports(repository: Path) -> dict[str, Record]:
    """Return the records of the exports in a repository, by their methods; none if there was no export.

    Raises:
        ExportError: the manifest is there but damaged.
    """
    path = repository / MANIFEST_FILE
    try:
        latest = read_json(path, ValueError)
        records: list[Record] = [latest, *latest.pop("others", ())]
        for record in records:
            _check_record(record)
        return {record.get("method", HOMOMORPH): record for record in records}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{path} is damaged ({error}): delete it together with the folders that it lists") from error


def _check_record(record: Record) -> None:
    if any(not _NAME.fullmatch(name) for name in record["models"]):
        raise ValueError("a name of a model is not valid")
    files = record.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(checksum, str) for checksum in files.values()):
        raise ValueError("`files` must map the paths of files to their checksums")


def check_weights(repository: Path) -> None:
    """Compare the weights in a repository with what was exported.

    Raises:
        ExportError: a file is damaged, or the manifest is.
    """
    for record in exports(repository).values():
        for name, expected in record.get("files", {}).items():
            file = repository / name
            if file.suffix in _WEIGHTS and file.is_file() and sha256(file) != expected:
                raise ExportError(
                    f"{file} is damaged: it is not what was exported, by its checksum; write it again with "
                    "`homomorph export`"
                )
