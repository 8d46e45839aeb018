"""`render.json` beside a rendered set: its style, seed and size, from which its pictures can be drawn again."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from homomorph.errors import ConfigError, DataError
from homomorph.models.config import checked
from homomorph.text_files import read_json

_PROVENANCE_FILE = "render.json"


@dataclass(frozen=True)
class Provenance:
    """The options of `homomorph render`."""

    style: str
    """DiceBear style."""
    seed: int
    """Seed of the set."""
    size: int
    """Height and width in pixels."""


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `render.json`."""
    (folder / _PROVENANCE_FILE).write_text(json.dumps(dataclasses.asdict(provenance)) + "\n")


def read_provenance(folder: Path) -> Provenance | None:
    """Read `render.json`; None if there is none, because the set was not rendered.

    Raises:
        DataError: the file is not one that `homomorph render` writes.
    """
    path = folder / _PROVENANCE_FILE
    try:
        return checked(Provenance, read_json(path, ConfigError))
    except FileNotFoundError:
        return None
    except ConfigError as error:
        raise DataError(f"{path} is not what `homomorph render` writes: {error}") from error
