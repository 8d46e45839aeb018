"""From a run folder to a Triton model repository: trace, compare, write."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from homomorph.label_features import LabelFeatures, load_label_features
from homomorph.networks import MorphModel
from homomorph.run import load_model, resolve_run
from homomorph_export import contract, parity, torchscript
from homomorph_export.errors import ExportError
from homomorph_export.manifest import Manifest
from homomorph_export.ops.build import build
from homomorph_export.ops.library import load
from homomorph_export.repository import MODEL_FILE, hashes, publish, staging, write_ensemble, write_model
from homomorph_export.servable import (
    BranchServable,
    DecoderServable,
    DifferenceServable,
    EncoderPairServable,
    EncoderServable,
    InterpolatorServable,
    LabelTargetServable,
    interpolate_source,
)

_TYPICAL_STEPS = 9


def export_run(
    run: str | Path,
    repository: Path,
    *,
    precision: str = "fp32",
    threads: int | None = None,
    report: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Write a run's networks as a Triton model repository.

    The same run and versions give the same files, byte for byte, if each export has a process of its own: within one,
    TorchScript numbers the names of classes that it has seen before.

    Args:
        run: a run folder, or the name of a model that ships with homomorph.
        repository: the folder to write into; made if it is not there.
        precision: number format of weights and arithmetic; `fp32` only.
        threads: how many threads one operation of a model may use; None for half of the server's cores.
        report: called with what is done next.

    Returns:
        What was written, and how exact it is.

    Raises:
        OperatorError: the operator's library cannot be built or loaded.
        CheckpointError: there is no such run, or it is damaged.
        ExportError: the files do not compute what the run computes, or the repository has foreign folders in the way,
            or the precision is not offered.
    """
    if precision != "fp32":
        raise ExportError(f"precision {precision!r} is not offered: choose fp32")
    folder = resolve_run(run)
    model = load_model(folder)
    config = model.config
    label_features = load_label_features(folder, config)
    stride = config.network.stride
    labels = len(config.attributes) if label_features is not None else 0
    served = contract.served_models(config.branches, config.network.feature_channels, stride, labels)
    pixels, cells = config.picture_size, config.feature_size
    lengths = {"H": pixels, "W": pixels, "h": cells, "w": cells, "S": _TYPICAL_STEPS}

    report("Building the operator")
    library = build()
    load(library)

    with staging(repository) as staged:
        modules = _torchscript(model, label_features, report)
        for entry in served:
            report(f"Writing {entry.name}")
            folder = staged / entry.name
            if entry.steps:
                write_ensemble(folder, entry, parameters=_client_parameters(model))
            else:
                parameters = {"intra_op_threads": str(threads or "auto"), "checks": json.dumps(entry.checks())}
                write_model(folder, entry, modules[entry.name], lengths=lengths, parameters=parameters, library=library)
        report("Comparing with the run")
        # Read back, so that the comparison is of what the server will load.
        exported = {name: torchscript.load(staged / name / MODEL_FILE) for name in modules}
        manifest = Manifest(
            groups=config.branches,
            picture_size=pixels,
            stride=stride,
            precision=precision,
            versions={
                "homomorph": version("homomorph"),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            models=tuple(entry.name for entry in served),
            files=hashes(staged),
            parity=parity.measure(model, exported),
        )
        publish(staged, repository, manifest)
    return manifest


def _torchscript(
    model: MorphModel, label_features: LabelFeatures | None, report: Callable[[str], None]
) -> dict[str, torch.jit.ScriptModule]:
    """Return the module of every served model that is not an ensemble, by the model's name."""
    network, branches = model.config.network, model.config.branches
    cells = model.config.feature_size
    features = torch.zeros(2, network.feature_channels, cells, cells)

    def traced(name: str, module: nn.Module, example: torch.Tensor) -> torch.jit.ScriptModule:
        report(f"Tracing {name}")
        return torchscript.trace(module, example)

    size = model.config.picture_size
    picture = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    encoder = traced("encoder", EncoderServable(model.encoder, network), picture)
    branch_modules = {
        contract.branch_model(branch): traced(
            contract.branch_model(branch), BranchServable(model.branches[branch]), features
        )
        for branch in branches
    }
    editing = {} if label_features is None else {"label_target": LabelTargetServable(label_features)}
    return {
        "encoder": encoder,
        "encoder_pair": torchscript.script(EncoderPairServable(encoder)),
        "difference": torchscript.script(DifferenceServable()),
        **branch_modules,
        "interpolate": torchscript.define(interpolate_source(branches)),
        "interpolator": torchscript.script(InterpolatorServable(list(branch_modules.values()))),
        "decoder": traced("decoder", DecoderServable(model.decoder, network), features.unsqueeze(1)),
        **{name: torchscript.script(module) for name, module in editing.items()},
    }


def _client_parameters(model: MorphModel) -> dict[str, str]:
    """Return what a client needs to know to prepare pictures and strengths."""
    return {
        "groups": ",".join(model.config.branches),
        "labels": json.dumps(model.config.groups),
        "picture_size": str(model.config.picture_size),
        "stride": str(model.config.network.stride),
        "max_picture_size": str(contract.MAX_PICTURE_SIZE),
        "max_pixels": str(contract.MAX_PIXELS),
        "max_steps": str(contract.MAX_STEPS),
        "max_strength": f"{contract.MAX_STRENGTH:g}",
    }
