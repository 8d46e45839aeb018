"""Writes a Triton model repository: each model's folder appears whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import torch
from onnx import ModelProto

from homomorph.runs.run import sha256
from homomorph_export import onnx_graphs, torchscript
from homomorph_export.configuration import config_text, first_line, flavours, is_ours, model_config
from homomorph_export.contract import MANIFEST_FILE, Model
from homomorph_export.errors import ExportError
from homomorph_export.examples import warm_up
from homomorph_export.flavours import LIBTORCH, ONNX, PYTHON
from homomorph_export.manifest import Manifest, exports
from homomorph_export.servable import JOINT_METHODS

TORCHSCRIPT_FILE = f"1/{LIBTORCH.model_file}"
"""Where a model's TorchScript lies in its folder, in version 1, the only one. The Python backend runs it too."""
ONNX_FILE = f"1/{ONNX.model_file}"
"""The same of its ONNX."""
AOTINDUCTOR_FILE = "1/model.pt2"
"""The same of its package of AOTInductor, which no configuration names."""


@contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """Yield an empty folder beside the repository, where moving into it is a rename, and remove it at the end.

    Raises:
        ExportError: the folder cannot be made, or writing into it fails.
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
    *,
    method: str,
    module: torch.jit.ScriptModule | None = None,
    graph: ModelProto | None = None,
    onnx: bool = True,
    threads: int | None = None,
    library: Path | None = None,
) -> None:
    """Write the folder of a served model.

    Args:
        folder: where to; named like the model.
        model: its entry in the catalogue.
        method: the run's, as in the manifest.
        module: its TorchScript; None for an ensemble.
        graph: the same as ONNX; None if there is none.
        onnx: whether the repository holds ONNX, so that there are configurations for it.
        threads: as for `model_config`.
        library: the operator's library; a model that needs it gets a copy, so that the repository can be moved.
    """
    write_description(folder, model, method=method, onnx=onnx, threads=threads)
    if module is not None:
        (folder / "warmup").mkdir()
        for tensor in model.inputs:
            warm_up(tensor).tofile(folder / "warmup" / tensor.name)
        torchscript.save(module, folder / TORCHSCRIPT_FILE, methods=JOINT_METHODS if model.joint else ())
    if graph is not None:
        onnx_graphs.save(graph, folder / ONNX_FILE)
    if model.needs_operator:
        assert library is not None
        shutil.copyfile(library, folder / "1" / library.name)


def write_description(
    folder: Path, model: Model, *, method: str, onnx: bool = True, threads: int | None = None
) -> None:
    """Write a model's configurations and programs, without weights. Arguments as for `write_model`."""
    (folder / "1").mkdir(parents=True)
    for flavour in flavours(model, onnx=onnx):
        path = folder / flavour.config_file
        path.parent.mkdir(exist_ok=True)
        path.write_text(first_line(method) + config_text(model_config(model, flavour, threads=threads)))
    for file, written in _programs(model).items():
        program = resources.files("homomorph_export.serving.backend") / file
        (folder / "1" / written).write_text(program.read_text())
    if model.is_ensemble:
        # Triton wants a version folder, and an empty one would be lost in version control and in some archives.
        (folder / "1" / ".keep").touch()


def _programs(model: Model) -> dict[str, str]:
    """Return the files of `serving/backend` that a model needs in its version folder, and their names there."""
    if model.streams:
        return {"stream.py": PYTHON.model_file} | {file: file for file in ("heartbeat.py", "limits.py")}
    if model.steps:
        return {}
    joint = ("morpher.py", "scheduler.py", "metrics.py") if model.joint else ()
    return {file: file for file in (PYTHON.model_file, "heartbeat.py", "limits.py", "memory.py", *joint)}


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def publish(staged: Path, repository: Path, manifest: Manifest) -> None:
    """Move the staged model folders into the repository, and write its manifest last.

    Folders of an earlier export of the same method are replaced, or removed if this one has no such model. Those of
    other methods stay, and so do foreign ones.

    Raises:
        ExportError: a foreign folder has the name of a model, or the earlier manifest is damaged. The repository is
            then unchanged.
    """
    others = exports(repository)
    earlier = set(others.pop(manifest.method, {}).get("models", ()))
    line = first_line(manifest.method)
    earlier |= {path.name for path in repository.glob("*") if is_ours(path, line)}
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
        manifest.write(removed / MANIFEST_FILE, others=list(others.values()))
        shutil.move(removed / MANIFEST_FILE, repository / MANIFEST_FILE)
