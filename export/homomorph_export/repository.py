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
from onnx import ModelProto

from homomorph.run import sha256
from homomorph_export import onnx_graphs, torchscript
from homomorph_export.contract import Axis, Model
from homomorph_export.errors import ExportError
from homomorph_export.flavours import FLAVOURS, LIBTORCH, ONNX, PYTHON
from homomorph_export.manifest import MANIFEST_FILE, Manifest, exported_models
from homomorph_export.pbtxt import model_config

TORCHSCRIPT_FILE = f"1/{LIBTORCH.model_file}"
"""Where a model's TorchScript lies in its folder, in version 1, the only one. The Python backend runs it too."""
ONNX_FILE = f"1/{ONNX.model_file}"
"""The same of its ONNX."""
AOTINDUCTOR_FILE = "1/model.pt2"
"""The same of its package of AOTInductor, which no configuration names."""

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
    onnx_model: ModelProto | None,
    *,
    lengths: Mapping[str, int],
    parameters: Mapping[str, Mapping[str, str]],
    library: Path,
) -> None:
    """Write the folder of a model that is not an ensemble, with a configuration for each backend.

    Args:
        folder: where to; named like the model.
        model: its entry in the contract.
        module: what it computes, as TorchScript.
        onnx_model: the same as ONNX; None if that was not asked for, and there is no configuration for it then.
        lengths: a typical length of each axis that requests choose, by its letter, for the warm-up.
        parameters: what each backend reads, by the flavour's name.
        library: the operator's library; a model that needs it gets a copy, so that the repository can be moved.
    """
    shapes = {
        tensor.name: tuple(lengths[dim.letter] if isinstance(dim, Axis) else dim for dim in tensor.dims)
        for tensor in model.inputs
    }
    for name in ("1", "warmup", "configs"):
        (folder / name).mkdir(parents=True)
    for tensor in model.inputs:
        # Ones, not zeros: strengths of 0 would leave the branches cold.
        np.ones(shapes[tensor.name], _NUMPY_TYPES[tensor.type]).tofile(folder / "warmup" / tensor.name)
    torchscript.save(module, folder / TORCHSCRIPT_FILE)
    if onnx_model is not None:
        onnx_graphs.save(onnx_model, folder / ONNX_FILE)
    _write_backend(folder, "model.py")
    if model.needs_operator:
        shutil.copyfile(library, folder / "1" / library.name)
    for flavour in FLAVOURS.values():
        if flavour is not ONNX or onnx_model is not None:
            config = model_config(model, flavour=flavour, parameters=parameters[flavour.name], warmup=shapes)
            (folder / flavour.config_file).write_text(config)


def write_ensemble(folder: Path, model: Model, *, parameters: Mapping[str, str]) -> None:
    """Write the folder of a model that is made of others; `parameters` are for its clients."""
    (folder / "1").mkdir(parents=True)
    if model.streams:
        _write_backend(folder, "stream.py")
    else:
        # Triton wants a version folder, and an empty one would be lost in version control and in some archives.
        (folder / "1" / ".keep").touch()
    (folder / "config.pbtxt").write_text(model_config(model, parameters=parameters, warmup={}))


def _write_backend(folder: Path, file: str) -> None:
    backend = resources.files("homomorph_export") / "backend" / file
    (folder / "1" / PYTHON.model_file).write_text(backend.read_text())


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
