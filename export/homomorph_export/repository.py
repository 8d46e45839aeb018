"""Writes a Triton model repository, which appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from importlib import resources
from pathlib import Path

import torch
from onnx import ModelProto

from homomorph_client.files import locked, put, sha256
from homomorph_export import onnx_graphs, torchscript
from homomorph_export.configuration import config_text, first_line, flavours, is_ours, model_config
from homomorph_export.contract import MANIFEST_FILE, Model
from homomorph_export.errors import ExportError
from homomorph_export.examples import warm_up
from homomorph_export.flavours import AOTI, LIBTORCH, ONNX, PYTHON
from homomorph_export.manifest import Manifest, exports
from homomorph_export.servable import JOINT_METHODS

TORCHSCRIPT_FILE = f"1/{LIBTORCH.model_file}"
"""Path of a model's TorchScript in its folder. Version 1 is the only one. The Python backend runs it too."""
ONNX_FILE = f"1/{ONNX.model_file}"
"""Path of its ONNX."""
AOTINDUCTOR_FILE = f"1/{AOTI.model_file}"
"""Path of its package of AOTInductor."""


def write_weights(
    folder: Path, model: Model, module: torch.jit.ScriptModule | None, graph: ModelProto | None, library: Path | None
) -> None:
    """Write a model's weights into its folder, which has its description.

    Args:
        folder: the model's.
        model: its entry in the catalogue.
        module: its TorchScript; None for an ensemble.
        graph: the same as ONNX; None if there is none.
        library: the operator's library; a model that needs it gets a copy, so that the repository can be moved.
    """
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
    folder: Path,
    model: Model,
    *,
    method: str,
    onnx: bool = True,
    aot: bool = False,
    precision: str = "fp32",
    threads: int | None = None,
) -> None:
    """Write a model's configurations and programs, without weights.

    Args:
        folder: the model's, with its name.
        model: its entry in the catalogue.
        method: the run's, as in the manifest.
        onnx: whether the repository holds ONNX, so that there are configurations for it.
        aot: the same of packages of AOTInductor.
        precision: number format of the export.
        threads: as for `model_config`.
    """
    (folder / "1").mkdir(parents=True)
    for flavour in flavours(model, onnx=onnx, aot=aot):
        path = folder / flavour.config_file
        path.parent.mkdir(exist_ok=True)
        config = model_config(model, flavour, precision=precision, threads=threads)
        path.write_text(first_line(method) + config_text(config))
    for file, written in _programs(model).items():
        program = resources.files("homomorph_export.serving.backend") / file
        (folder / "1" / written).write_text(program.read_text())
    if model.joint:
        program = resources.files("homomorph_export") / "engines.py"
        (folder / "1" / program.name).write_text(program.read_text())
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


def check_replaceable(repository: Path) -> None:
    """Check, before anything is computed, that a repository can be replaced.

    Raises:
        ExportError: it is the current folder, or one above it.
    """
    if Path.cwd().is_relative_to(repository.resolve()):
        raise ExportError(f"{repository.resolve()} is the current folder: go to another one, because it is replaced")


def publish(staged: Path, repository: Path, manifest: Manifest) -> None:
    """Replace the repository in one step by the staged model folders and the manifest.

    Folders of an earlier export of the same method are removed. Folders of other methods and foreign folders stay.
    Concurrent exports wait for each other here.

    Args:
        staged: folder beside the repository; see `staging`.
        repository: the folder to replace.
        manifest: of this export.

    Raises:
        ExportError: a foreign folder has the name of a model, or the earlier manifest is damaged. The repository then
            stays as it is.
        OutputError: the system refuses.
    """
    repository = repository.resolve()
    with locked(repository.parent):
        others = exports(repository)
        listed = others.pop(manifest.method, {}).get("models", ())
        line = first_line(manifest.method)
        for path in repository.iterdir() if repository.is_dir() else ():
            if path.name == MANIFEST_FILE or is_ours(path, line) or (path.name in listed and is_ours(path)):
                continue
            if path.name in manifest.models:
                raise ExportError(f"{path} is not from an earlier export: move it away, or export elsewhere")
            _link_tree(path, staged / path.name)
        manifest.write(staged / MANIFEST_FILE, others=list(others.values()))
        if repository.is_dir():
            shutil.copystat(repository, staged)
        put(staged, repository)


def _link_tree(path: Path, there: Path) -> None:
    """Copy a file or folder as hard links, without copying the data."""
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, there, symlinks=True, copy_function=_link)
    else:
        _link(path, there)


def _link(file: str | Path, there: str | Path) -> None:
    try:
        os.link(file, there, follow_symlinks=False)
    except OSError:  # the file system has no links, or the file is another user's
        shutil.copy2(file, there, follow_symlinks=False)
