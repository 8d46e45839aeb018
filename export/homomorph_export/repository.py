"""Writes a Triton model repository: each model's folder appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from homomorph.run import sha256
from homomorph_export import torchscript
from homomorph_export.contract import Axis, Model
from homomorph_export.errors import ExportError
from homomorph_export.manifest import MANIFEST_FILE, Manifest, exported_models
from homomorph_export.pbtxt import model_config

MODEL_FILE = "1/model.pt"
"""Where a model's TorchScript lies in its folder: version 1, the only one."""

_NUMPY_TYPES = {"UINT8": np.uint8, "FP32": np.float32}


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """Yield an empty folder beside the repository, where moving into it is a rename, and remove it at the end.

    Raises:
        ExportError: it cannot be made, or what is done with it fails because of the file system.
    """
    parent = repository.resolve().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{repository.name}-", dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise ExportError(f"{repository} cannot be written: {error}") from error


def write_model(
    folder: Path,
    model: Model,
    module: torch.jit.ScriptModule,
    *,
    lengths: Mapping[str, int],
    parameters: Mapping[str, str],
    library: Path,
) -> None:
    """Write the folder of a model that has a TorchScript file.

    Args:
        folder: where to; named like the model.
        model: its entry in the contract.
        module: what it computes.
        lengths: a typical length of each axis that requests choose, by its letter, for the warm-up.
        parameters: what the backend reads.
        library: the operator's library; a model that needs it gets a copy, so that the repository can be moved.
    """
    shapes = {
        tensor.name: tuple(lengths[dim.letter] if isinstance(dim, Axis) else dim for dim in tensor.dims)
        for tensor in model.inputs
    }
    (folder / "1").mkdir(parents=True)
    (folder / "warmup").mkdir()
    for tensor in model.inputs:
        # Ones, not zeros: strengths of 0 would leave the branches cold.
        np.ones(shapes[tensor.name], _NUMPY_TYPES[tensor.type]).tofile(folder / "warmup" / tensor.name)
    torchscript.save(module, folder / MODEL_FILE)
    backend = resources.files("homomorph_export") / "backend" / "model.py"
    (folder / "1" / "model.py").write_text(backend.read_text())
    if model.needs_operator:
        shutil.copyfile(library, folder / "1" / library.name)
    (folder / "config.pbtxt").write_text(model_config(model, parameters=parameters, warmup=shapes))


def write_ensemble(folder: Path, model: Model, *, parameters: Mapping[str, str]) -> None:
    """Write the folder of an ensemble; `parameters` are for its clients."""
    (folder / "1").mkdir(parents=True)
    # Triton wants a version folder, and an empty one would be lost in version control and in some archives.
    (folder / "1" / ".keep").touch()
    (folder / "config.pbtxt").write_text(model_config(model, parameters=parameters, warmup={}))


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def publish(staged: Path, repository: Path, manifest: Manifest) -> None:
    """Move the staged model folders into the repository, and write its manifest last.

    Folders of an earlier export are replaced, or removed if this one has no such model; foreign ones stay.

    Raises:
        ExportError: a foreign folder has the name of a model, or the earlier manifest is damaged. The repository is
            then unchanged.
    """
    earlier = exported_models(repository)
    for name in manifest.models:
        if (repository / name).exists() and name not in earlier:
            raise ExportError(f"{repository / name} is not from an earlier export: move it away, or export elsewhere")
    repository.mkdir(parents=True, exist_ok=True)
    with staging(repository) as removed:
        for name in sorted(earlier.union(manifest.models)):
            if (repository / name).exists():
                shutil.move(repository / name, removed / name)
            if name in manifest.models:
                shutil.move(staged / name, repository / name)
        manifest.write(removed / MANIFEST_FILE)
        shutil.move(removed / MANIFEST_FILE, repository / MANIFEST_FILE)
