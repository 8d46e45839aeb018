"""Every served model that is not an ensemble, in each file format."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from onnx import ModelProto

from homomorph.models.blending import FEATURE_METHODS
from homomorph.progress import Progress, Report, silent
from homomorph_client.names import PIXEL
from homomorph_export import contract, onnx_graphs, torchscript
from homomorph_export.parts import Parts
from homomorph_export.quantisation import quantised
from homomorph_export.servable import (
    DenseInterpolatorServable,
    DifferenceServable,
    EncoderCornersServable,
    EncoderPairServable,
    InterpolateServable,
    InterpolatorServable,
    LabelTargetServable,
    MixServable,
    MorpherServable,
    PixelServable,
    interpolate_source,
)


def torchscript_models(parts: Parts, report: Report = silent) -> dict[str, torch.jit.ScriptModule]:
    """Return the TorchScript of every served model that is not an ensemble, by the model's name."""

    def traced(name: str, module: torch.nn.Module, *example: torch.Tensor) -> torch.jit.ScriptModule:
        report(Progress(f"Tracing {name}"))
        return torchscript.trace(module, *example)

    encoder = traced("encoder", parts.encoder, parts.picture)
    branches = {
        contract.branch_model(branch): traced(contract.branch_model(branch), module, parts.features)
        for branch, module in parts.branches.items()
    }
    modules = {
        "encoder": encoder,
        "encoder_pair": torchscript.script(EncoderPairServable(encoder)),
        "difference": torchscript.script(DifferenceServable()),
        **branches,
        "interpolate": torchscript.define(interpolate_source(tuple(parts.branches))),
        "interpolator": torchscript.script(InterpolatorServable(list(branches.values()))),
        "decoder": traced("decoder", parts.decoder, parts.frame_features),
    }
    modules["morpher"] = torchscript.script(MorpherServable(encoder, modules["interpolator"], modules["decoder"]))
    if parts.label_features is not None:
        modules["label_target"] = torchscript.script(LabelTargetServable(parts.label_features))
    modules["encoder_corners"] = torchscript.script(EncoderCornersServable(encoder))
    for name, (module, example) in _blends(parts).items():
        modules[name] = traced(name, module, *example)
    return modules


def onnx_models(
    parts: Parts,
    entries: Mapping[str, contract.Model],
    calibration: Mapping[str, torch.Tensor],
    report: Report = silent,
) -> dict[str, ModelProto]:
    """Return the ONNX of every served model that is neither an ensemble nor joint, by the model's name.

    The parts for which there are inputs to calibrate on are quantised.
    """

    def exported(name: str, module: torch.nn.Module, *example: torch.Tensor) -> ModelProto:
        report(Progress(f"Exporting {name} to ONNX"))
        graph = onnx_graphs.export(module, entries[name], *example)
        if name in calibration:
            report(Progress(f"Quantising {name}"))
            graph = onnx_graphs.rebuilt(quantised(graph, calibration[name]), entries[name])
        return graph

    encoder = exported("encoder", parts.encoder, parts.picture)
    branches = {
        branch: exported(contract.branch_model(branch), module, parts.features)
        for branch, module in parts.branches.items()
    }
    graphs = {
        "encoder": encoder,
        "encoder_pair": onnx_graphs.encoder_pair(entries["encoder_pair"], encoder),
        "difference": onnx_graphs.difference(entries["difference"]),
        **{contract.branch_model(branch): graph for branch, graph in branches.items()},
        "interpolate": onnx_graphs.interpolate(entries["interpolate"], tuple(branches)),
        "interpolator": onnx_graphs.interpolator(entries["interpolator"], branches),
        "decoder": exported("decoder", parts.decoder, parts.frame_features),
    }
    if parts.label_features is not None:
        graphs["label_target"] = onnx_graphs.label_target(entries["label_target"], parts.label_features)
    graphs["encoder_corners"] = onnx_graphs.encoder_corners(entries["encoder_corners"], encoder)
    for name, (module, example) in _blends(parts).items():
        graphs[name] = exported(name, module, *example)
    return graphs


def aotinductor_modules(parts: Parts) -> dict[str, torch.nn.Module]:
    """Return what AOTInductor compiles for every served model that is neither an ensemble nor joint, by its name."""
    modules: dict[str, torch.nn.Module] = {
        "encoder": parts.encoder,
        "encoder_pair": EncoderPairServable(parts.encoder),
        "difference": DifferenceServable(),
        **{contract.branch_model(branch): module for branch, module in parts.branches.items()},
        "interpolate": InterpolateServable(),
        "interpolator": DenseInterpolatorServable(parts.branches.values()),
        "decoder": parts.decoder,
    }
    if parts.label_features is not None:
        modules["label_target"] = LabelTargetServable(parts.label_features)
    modules["encoder_corners"] = EncoderCornersServable(parts.encoder)
    return modules | {name: module for name, (module, _) in _blends(parts).items()}


def _blends(parts: Parts) -> dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]]:
    """Return what blends pictures without weights, by the model's name, and examples of its inputs."""
    pictures = parts.picture.unsqueeze(1).repeat(1, 4, 1, 1, 1)
    return {
        PIXEL: (PixelServable(), (pictures, parts.places)),
        **{
            contract.mix_model(method): (MixServable(mix), (parts.corners, parts.places))
            for method, mix in FEATURE_METHODS.items()
        },
    }
