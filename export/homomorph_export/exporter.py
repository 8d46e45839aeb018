"""From runs to a Triton model repository: the files of every served model are made, compared with the runs, written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from homomorph.environment import versions
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.progress import Progress, Report, silent
from homomorph.runs.cyclegan import load_translator
from homomorph.runs.label_features import load_label_features
from homomorph.runs.run import load_model, resolve_run
from homomorph_client.files import staging
from homomorph_client.names import HOMOMORPH
from homomorph_export import aotinductor, engines, parity, torchscript
from homomorph_export.catalogue import morph_models, translation_models
from homomorph_export.contract import Model
from homomorph_export.errors import ExportError
from homomorph_export.formats import eager_modules, onnx_models, torchscript_models
from homomorph_export.manifest import Manifest, Parity
from homomorph_export.ops.build import build
from homomorph_export.ops.library import load_library
from homomorph_export.parts import exported_generators, exported_parts
from homomorph_export.precision import DTYPES, IN_ONNX, IN_TORCHSCRIPT, PRECISIONS
from homomorph_export.quantisation import calibration_inputs, calibration_pictures, can_render, stretched
from homomorph_export.reference import MorphRun
from homomorph_export.repository import (
    AOTINDUCTOR_FILE,
    ONNX_FILE,
    TORCHSCRIPT_FILE,
    check_replaceable,
    hashes,
    publish,
    write_description,
    write_weights,
)

_CYCLEGAN_PRECISIONS = ("fp32", "bf16", "fp16")


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
        threads: how many threads one operation of a model may use; None for half of the server's cores, and for all of
            them in `morpher`, in the Python backend, and for one in the other backends.
        report: called at the start of each stage.

    Returns:
        What was written, and how exact it is.

    Raises:
        OperatorError: the operator's library cannot be built or loaded.
        CheckpointError: there is no such run, or it is damaged.
        ExportError: the files do not compute what the run computes, or the repository has foreign folders in the way,
            or the precision is not offered, lacks pictures to calibrate on or has no file format, or there are pictures
            to calibrate and nothing that is calibrated.
        OutputError: the repository cannot be written.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision {precision!r} is not offered: choose {', '.join(PRECISIONS)}")
    if precision == "int8" and not onnx:
        raise ExportError("precision 'int8' is for ONNX alone: leave out --no-onnx, or choose fp32, bf16 or fp16")
    if calibration is not None and precision != "int8":
        raise ExportError(f"--calibration is for --precision int8: {precision} needs no pictures, leave it out")
    folder = resolve_run(run)
    model = load_model(folder)
    config = model.config
    label_features = load_label_features(folder, config)
    inputs: dict[str, torch.Tensor] = {}
    pictures: parity.Pictures = parity.random_pictures
    if precision == "int8":
        report(Progress("Collecting pictures to calibrate on"))
        calibrating, held_out = calibration_pictures(config, calibration)
        inputs, pictures = calibration_inputs(model, calibrating), partial(stretched, held_out)
    elif precision != "fp32" and can_render(config):
        pictures = partial(stretched, calibration_pictures(config, None)[1])
    return _export(
        _Exported(
            models=morph_models(config, labels=label_features is not None),
            parts=lambda dtype: exported_parts(model, label_features, dtype),
            run=MorphRun(model, label_features),
            record={
                "method": HOMOMORPH,
                "groups": config.branches,
                "picture_size": config.picture_size,
                "stride": config.network.stride,
            },
            calibration_inputs=inputs,
            pictures=pictures,
        ),
        repository,
        precision=precision,
        onnx=onnx,
        aot=aot,
        threads=threads,
        report=report,
    )


def export_cyclegans(
    runs: Sequence[Path],
    repository: Path,
    *,
    precision: str = "fp32",
    onnx: bool = True,
    threads: int | None = None,
    report: Report = silent,
) -> Manifest:
    """Write the generators of CycleGANs as a Triton model repository.

    Models of another method that the repository holds stay; those of an earlier export of CycleGANs are replaced.

    Args:
        runs: run folders, whose directions can then follow each other in one request.
        repository: the folder to write into; made if it is not there.
        precision: number format of weights and arithmetic: fp32, bf16, fp16. Formats that lack it stay at fp32.
        onnx: whether to write ONNX beside TorchScript.
        threads: as for `export_run`.
        report: called at the start of each stage.

    Returns:
        What was written, and how exact it is.

    Raises:
        CheckpointError: a run is missing or damaged, or not a CycleGAN's.
        ConfigError: two runs have a direction of the same name, or were trained at different sizes.
        ExportError: the files do not compute what the runs compute, or the repository has foreign folders in the way,
            or the precision is not offered.
        OutputError: the repository cannot be written.
    """
    if precision not in _CYCLEGAN_PRECISIONS:
        offered = ", ".join(_CYCLEGAN_PRECISIONS)
        raise ExportError(f"precision {precision!r} is not offered for CycleGANs: choose {offered}")
    translator = load_translator(runs)
    return _export(
        _Exported(
            models=translation_models(translator.strides, translator.picture_size),
            parts=lambda dtype: exported_generators(translator, dtype),
            run=translator,
            record={
                "method": CycleGANConfig.method,
                "directions": translator.directions,
                "picture_size": translator.picture_size,
                "stride": max(translator.strides.values()),
            },
        ),
        repository,
        precision=precision,
        onnx=onnx,
        threads=threads,
        report=report,
    )


@dataclass(frozen=True)
class _Exported:
    """The inputs of an export that depend on the method."""

    models: tuple[Model, ...]
    """The catalogue."""
    parts: Callable[[torch.dtype], Any]
    """From a number format to the networks that the catalogue's models are built from."""
    run: Any
    """The networks that `Model.reference` computes with."""
    record: dict[str, Any]
    """Fields of the manifest."""
    calibration_inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    """Typical inputs of the models that are quantised in ONNX, by their names."""
    pictures: parity.Pictures = parity.random_pictures
    """Pictures to compare files of less than float32 on. For random pixels, rounding decides at many places which of
    its layers a decoder shows."""

    def compared_in(self, precision: str) -> dict[str, Any]:
        """Return how `parity.compare` compares files of this number format."""
        pictures = parity.random_pictures if precision == "fp32" else self.pictures
        return {"precision": precision, "pictures": pictures}


def _export(
    exported: _Exported,
    repository: Path,
    *,
    precision: str,
    onnx: bool,
    threads: int | None,
    report: Report,
    aot: bool = False,
) -> Manifest:
    check_replaceable(repository)
    models = exported.models
    library = _load_operator(models, report)
    with staging(repository.resolve()) as staged:
        staged.mkdir()
        parts = exported.parts(DTYPES[IN_TORCHSCRIPT[precision]])
        modules = torchscript_models(models, parts, report)
        graphs = {}
        if onnx:
            onnx_parts = exported.parts(DTYPES[IN_ONNX[precision]])
            graphs = onnx_models(models, onnx_parts, exported.calibration_inputs, report)
        for model in models:
            report(Progress(f"Writing {model.name}"))
            folder, method = staged / model.name, exported.record["method"]
            write_description(folder, model, method=method, onnx=onnx, aot=aot, precision=precision, threads=threads)
            write_weights(folder, model, modules.get(model.name), graphs.get(model.name), library)
        packages = _compile_packages(models, parts, staged, report) if aot else ()

        def compare(names: Iterable[str], file: str, load: Callable[[Path], Any], **how: Any) -> Parity:
            """Compare files with the run. They are read back, as the server will read them."""
            return parity.compare(models, {name: load(staged / name / file) for name in names}, exported.run, **how)

        report(Progress("Comparing with the run"))
        how = {"kind": "TorchScript", **exported.compared_in(IN_TORCHSCRIPT[precision])}
        compared = {"torchscript": compare(modules, TORCHSCRIPT_FILE, torchscript.load_torchscript, **how)}
        if aot:
            how["kind"] = "AOTInductor"
            compared["aotinductor"] = compare(packages, AOTINDUCTOR_FILE, aotinductor.load_package, **how)
        if onnx:
            how = {"kind": "ONNX", **exported.compared_in(IN_ONNX[precision])}
            compared["onnx"] = compare(graphs, ONNX_FILE, engines.load_onnxruntime, **how)
        manifest = Manifest(
            **exported.record,
            precision=precision,
            versions=versions() | {package: version(package) for package in ("onnx", "onnxruntime") if onnx},
            models=tuple(model.name for model in models),
            files=hashes(staged),
            parity=compared,
        )
        publish(staged, repository, manifest)
    return manifest


def _load_operator(models: Iterable[Model], report: Report) -> Path | None:
    """Build and load the operator's library if a model needs it; return its path."""
    if not any(model.needs_operator for model in models):
        return None
    report(Progress("Building the operator"))
    library = build()
    load_library(library)
    return library


def _compile_packages(models: Iterable[Model], parts: Any, staged: Path, report: Report) -> Collection[str]:
    """Write packages of AOTInductor; return the names of the models that have one."""
    modules = eager_modules(models, parts)
    for model in models:
        if model.name in modules:
            report(Progress(f"Compiling {model.name} by AOTInductor, which takes a while"))
            aotinductor.compile_package(modules[model.name], model, staged / model.name / AOTINDUCTOR_FILE)
    return modules.keys()
