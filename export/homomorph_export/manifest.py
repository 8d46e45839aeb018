"""`manifest.json` at the root of an exported repository: what it holds, how it was made, how exact it is."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from homomorph_export.errors import ExportError

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class Parity:
    """How far the frames of one file format are from the run's own float32 frames, in grey levels 0-255."""

    precision: str
    """Number format of these files, which is not always the one asked for."""
    mean: float
    """Mean absolute difference over all compared pixels."""
    max: float
    """Largest absolute difference."""
    batch_sizes: tuple[int, ...]
    """Batch sizes compared."""
    picture_sizes: tuple[tuple[int, int], ...]
    """Heights and widths compared, in pixels, each with every batch size."""


@dataclass(frozen=True)
class Manifest:
    """The record of one export."""

    groups: tuple[str, ...]
    """Names of the branches in the order of the strengths' columns; the last is the residual one."""
    picture_size: int
    """Height and width in pixels that the model was trained at."""
    stride: int
    """Heights and widths must be multiples of this."""
    precision: str
    """Number format that was asked for; `parity` says what each file format has."""
    versions: dict[str, str]
    """Versions of homomorph, Python and the libraries that wrote the files."""
    models: tuple[str, ...]
    """The folders that this export wrote; others in the repository are not its own."""
    files: dict[str, str]
    """SHA-256 of each file written, by its path below the repository."""
    parity: dict[str, Parity]
    """By file format: `torchscript`, `onnx`, `aotinductor`."""

    def write(self, path: Path) -> None:
        """Write the manifest as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def exported_models(repository: Path) -> set[str]:
    """Return the folders that an earlier export wrote into the repository; none if there was no export.

    Raises:
        ExportError: the manifest is there but damaged.
    """
    path = repository / MANIFEST_FILE
    try:
        models = set(json.loads(path.read_text())["models"])
        if any(Path(name).name != name for name in models):
            raise ValueError("a model's name is a path")
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path} is damaged ({error}): delete it together with the folders that it lists") from error
    return models
