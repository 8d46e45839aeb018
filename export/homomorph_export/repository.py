"""Writes a Triton model repository: each model's folder appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from homomorph.runs.run import sha256
from homomorph_export import onnx_graphs, torchscript
from homomorph_export.contract import MAX_QUEUE, QUEUE_TIMEOUT_S, Axis, Model, Tensor
from homomorph_export.errors import ExportError
from homomorph_export.flavours import FLAVOURS, GPU, LIBTORCH, ONNX, PYTHON, Flavour
from homomorph_export.manifest import MANIFEST_FILE, Manifest, exports
from homomorph_export.pbtxt import model_config
from homomorph_export.servable import JOINT_METHODS

TORCHSCRIPT_FILE = f"1/{LIBTORCH.model_file}"
"""Where a model's TorchScript lies in its folder, in version 1, the only one. The Python backend runs it too."""
ONNX_FILE = f"1/{ONNX.model_file}"
"""The same of its ONNX."""
AOTINDUCTOR_FILE = "1/model.pt2"
"""The same of its package of AOTInductor, which no configuration names."""

_QUEUE = {"max_queue_size": str(MAX_QUEUE), "queue_timeout_s": str(QUEUE_TIMEOUT_S)}
"""What a joint model sees to by itself, as Triton does before the others."""

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
    threads: int | None,
    client_parameters: Mapping[str, str] | None = None,
    library: Path | None = None,
) -> None:
    """Write the folder of a model that is not an ensemble, with a configuration for each backend.

    Args:
        folder: where to; named like the model.
        model: its entry in the contract.
        module: what it computes, as TorchScript.
        onnx_model: the same as ONNX; None if that was not asked for, and there is no configuration for it then.
        lengths: a typical length of each axis that requests choose, by its letter, for the warm-up.
        threads: how many threads one operation may use; None for half of the cores, or all for a joint model: the
            server's for the Python backend, those of this machine for the backends that want a number.
        client_parameters: what its clients read from its configuration, where it is not an ensemble that they ask.
        library: the operator's library; a model that needs it gets a copy, so that the repository can be moved.
    """
    shapes = {
        tensor.name: tuple(lengths[dim.letter] if isinstance(dim, Axis) else dim for dim in tensor.dims)
        for tensor in model.inputs
    }
    for name in ("1", "warmup", "configs"):
        (folder / name).mkdir(parents=True)
    for tensor in model.inputs:
        _warm_up_values(tensor, shapes[tensor.name]).tofile(folder / "warmup" / tensor.name)
    torchscript.save(module, folder / TORCHSCRIPT_FILE, methods=JOINT_METHODS if model.joint else ())
    if onnx_model is not None:
        onnx_graphs.save(onnx_model, folder / ONNX_FILE)
    for file in backend_files(joint=model.joint):
        _write_backend(folder, file, file)
    if model.needs_operator:
        assert library is not None
        shutil.copyfile(library, folder / "1" / library.name)
    for flavour in (*FLAVOURS.values(), GPU):
        if flavour is not ONNX or onnx_model is not None:
            parameters = backend_parameters(model, flavour, threads) | dict(client_parameters or {})
            config = model_config(model, flavour=flavour, parameters=parameters, warmup=shapes)
            (folder / flavour.config_file).write_text(config)


def write_ensemble(folder: Path, model: Model, *, parameters: Mapping[str, str], onnx: bool = False) -> None:
    """Write the folder of a model that is made of others.

    Args:
        folder: where to; named like the model.
        model: its entry in the contract.
        parameters: what its clients read from its configuration.
        onnx: whether its members have ONNX, so that it gets a configuration for them where theirs differs.
    """
    (folder / "1").mkdir(parents=True)
    if model.streams:
        _write_backend(folder, "stream.py")
    else:
        # Triton wants a version folder, and an empty one would be lost in version control and in some archives.
        (folder / "1" / ".keep").touch()
    for flavour in FLAVOURS.values() if model.python_steps else (PYTHON,):
        if flavour is not ONNX or onnx:
            path = folder / flavour.config_file
            path.parent.mkdir(exist_ok=True)
            path.write_text(model_config(model, flavour=flavour, parameters=parameters, warmup={}))


def backend_files(*, joint: bool) -> tuple[str, ...]:
    """Return the files of `serving/backend` that a model of the Python backend needs in its version folder."""
    return (
        PYTHON.model_file,
        "limits.py",
        "memory.py",
        *(("morpher.py", "scheduler.py", "metrics.py") if joint else ()),
    )


def _write_backend(folder: Path, file: str, written: str = PYTHON.model_file) -> None:
    backend = resources.files("homomorph_export.serving.backend") / file
    (folder / "1" / written).write_text(backend.read_text())


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


def _warm_up_values(tensor: Tensor, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Return values for which every part of a model runs."""
    if tensor.type == "INT64":  # numbers of directions
        assert tensor.range is not None
        return np.arange(np.prod(shape), dtype=np.int64).reshape(shape) % (int(tensor.range[1]) + 1)
    # Ones, not zeros: strengths of 0 would leave the branches cold.
    return np.ones(shape, _NUMPY_TYPES[tensor.type])


def backend_parameters(model: Model, flavour: Flavour, threads: int | None) -> dict[str, str]:
    """Return what a backend reads from a model's configuration."""
    if flavour in (PYTHON, GPU):
        # Its file is ours: it can count the server's cores, and check what the other backends do not.
        share = "all" if model.joint else "half"
        parameters = {flavour.threads_parameter: str(threads or share), "checks": json.dumps(model.checks())}
        return parameters | (_QUEUE if model.joint else {})
    return {flavour.threads_parameter: str(threads or max(1, len(os.sched_getaffinity(0)) // 2))}
