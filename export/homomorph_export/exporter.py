"""From a run folder to a Triton model repository: trace, compare, write."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from onnx import ModelProto

from homomorph.models.config import ModelConfig
from homomorph.models.morph import MAX_STRENGTH
from homomorph.progress import Progress, Report, silent
from homomorph.runs.label_features import load_label_features
from homomorph.runs.run import load_model, resolve_run
from homomorph_client.names import BLENDS
from homomorph_export import aotinductor, contract, onnx_graphs, parity, torchscript
from homomorph_export.errors import ExportError
from homomorph_export.formats import aotinductor_modules, onnx_models, torchscript_models
from homomorph_export.manifest import Manifest, versions
from homomorph_export.ops.build import build
from homomorph_export.ops.library import load
from homomorph_export.parts import exported_parts
from homomorph_export.precision import DTYPES, IN_ONNX, IN_TORCHSCRIPT, PRECISIONS
from homomorph_export.quantisation import CalibrationPictures, calibration_inputs
from homomorph_export.repository import (
    AOTINDUCTOR_FILE,
    ONNX_FILE,
    TORCHSCRIPT_FILE,
    hashes,
    publish,
    staging,
    write_ensemble,
    write_model,
)

_TYPICAL_STEPS = 9


def export_run(
    run: str | Path,
    repository: Path,
    *,
    precision: str = "fp32",
    onnx: bool = True,
    aot: bool = False,
    calibration: Path | None = None,
    threads: int | None = None,
    report: Report = silent,
) -> Manifest:
    """Write a run's networks as a Triton model repository.

    The same run and versions give the same files, byte for byte, if each export has a process of its own: within one,
    TorchScript numbers the names of classes that it has seen before. Packages of AOTInductor are the exception.

    Args:
        run: a run folder, or the name of a model that ships with homomorph.
        repository: the folder to write into; made if it is not there.
        precision: number format of weights and arithmetic: fp32, bf16, fp16, int8. Formats that lack it stay at fp32.
        onnx: whether to write ONNX beside TorchScript.
        aot: whether to compile packages of AOTInductor beside it, for this machine's processor; takes minutes.
        calibration: folder of pictures like those of the training, for int8; None renders the built-in set's.
        threads: how many threads one operation of a model may use; None for half of the cores, and for all of them in
            `morpher`: the server's for the Python backend, those of this machine for the backends that want a number.
        report: called with what is done next.

    Returns:
        What was written, and how exact it is.

    Raises:
        OperatorError: the operator's library cannot be built or loaded.
        CheckpointError: there is no such run, or it is damaged.
        ExportError: the files do not compute what the run computes, or the repository has foreign folders in the way,
            or the precision is not offered or lacks pictures to calibrate on.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision {precision!r} is not offered: choose {', '.join(PRECISIONS)}")
    folder = resolve_run(run)
    model = load_model(folder)
    config = model.config
    label_features = load_label_features(folder, config)
    labels = len(config.attributes) if label_features is not None else 0
    network = config.network
    served = contract.served_models(config.branches, network.feature_channels, network.stride, labels)
    entries = {entry.name: entry for entry in served}

    quantising = onnx and IN_ONNX[precision] == "int8"
    if quantising:
        report(Progress("Collecting pictures to calibrate on"))
        pictures = CalibrationPictures(config, calibration)
    report(Progress("Building the operator"))
    library = build()
    load(library)

    with staging(repository) as staged:
        parts = exported_parts(model, label_features, DTYPES[IN_TORCHSCRIPT[precision]])
        modules = torchscript_models(parts, report)
        graphs: dict[str, ModelProto] = {}
        if onnx:
            dtype = torch.float32 if quantising else DTYPES[IN_ONNX[precision]]
            inputs = calibration_inputs(model, pictures.pictures) if quantising else {}
            graphs = onnx_models(exported_parts(model, label_features, dtype), entries, inputs, report)
        for entry in served:
            report(Progress(f"Writing {entry.name}"))
            folder = staged / entry.name
            if entry.steps:
                parameters = _blend_parameters(config) if entry.name in BLENDS else _client_parameters(config)
                write_ensemble(folder, entry, parameters=parameters, onnx=onnx)
            else:
                write_model(
                    folder,
                    entry,
                    modules[entry.name],
                    graphs.get(entry.name),
                    lengths=_typical_lengths(config),
                    threads=threads,
                    client_parameters=_blend_parameters(config) if entry.name in BLENDS else {},
                    library=library,
                )
        compiled = aotinductor_modules(parts) if aot else {}
        for name, module in compiled.items():
            report(Progress(f"Compiling {name} by AOTInductor, which takes a while"))
            aotinductor.compile_package(module, entries[name], staged / name / AOTINDUCTOR_FILE)
        report(Progress("Comparing with the run"))
        cases = parity.cases(model, label_features)
        # Read back, so that the comparison is of what the server will load.
        read = {name: torchscript.load(staged / name / TORCHSCRIPT_FILE) for name in modules}
        measured = {
            "torchscript": parity.compare(cases, read, config, kind="TorchScript", precision=IN_TORCHSCRIPT[precision])
        }
        if aot:
            packages = {name: aotinductor.load(staged / name / AOTINDUCTOR_FILE) for name in compiled}
            measured["aotinductor"] = parity.compare(
                cases, packages, config, kind="AOTInductor", precision=IN_TORCHSCRIPT[precision]
            )
        if onnx:
            sessions = {name: onnx_graphs.load(staged / name / ONNX_FILE) for name in graphs}
            if quantising:  # it is made for pictures, not for random pixels
                cases = parity.cases(model, label_features, pictures.held_out)
            measured["onnx"] = parity.compare(cases, sessions, config, kind="ONNX", precision=IN_ONNX[precision])
        manifest = Manifest(
            groups=config.branches,
            picture_size=config.picture_size,
            stride=network.stride,
            precision=precision,
            versions=versions(onnx=onnx),
            models=tuple(entry.name for entry in served),
            files=hashes(staged),
            parity=measured,
        )
        publish(staged, repository, manifest)
    return manifest


def _typical_lengths(config: ModelConfig) -> dict[str, int]:
    """Return a typical length of each axis that requests choose, by its letter."""
    pixels, cells = config.picture_size, config.feature_size
    return {"H": pixels, "W": pixels, "h": cells, "w": cells, "S": _TYPICAL_STEPS, "P": contract.P.minimum}


def _client_parameters(config: ModelConfig) -> dict[str, str]:
    """Return what a client needs to know to prepare pictures and strengths."""
    return {
        "groups": ",".join(config.branches),
        "labels": json.dumps(config.groups),
        "picture_size": str(config.picture_size),
        "stride": str(config.network.stride),
        "max_picture_size": str(contract.MAX_PICTURE_SIZE),
        "max_pixels": str(contract.MAX_PIXELS),
        "max_steps": str(contract.MAX_STEPS),
        "max_strength": f"{MAX_STRENGTH:g}",
    }


def _blend_parameters(config: ModelConfig) -> dict[str, str]:
    """Return the same of the models that blend, which have one slider for everything."""
    return _client_parameters(config) | {"groups": "all", "labels": "{}"}
