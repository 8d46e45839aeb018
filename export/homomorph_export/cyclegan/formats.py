"""Every served model of CycleGANs, in each file format."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from onnx import ModelProto
from torch import nn

from homomorph.models.translator import Translator
from homomorph.progress import Progress, Report, silent
from homomorph_client.names import TRANSLATE
from homomorph_export import contract, onnx_graphs, torchscript
from homomorph_export.contract import direction_model
from homomorph_export.cyclegan.servable import GeneratorServable, TranslateServable


def torchscript_models(
    translator: Translator, dtype: torch.dtype, report: Report = silent
) -> dict[str, torch.jit.ScriptModule]:
    """Return the TorchScript of every served model, by the model's name."""
    traced = {}
    for direction, module in _servables(translator, dtype).items():
        report(Progress(f"Tracing {direction_model(direction)}"))
        traced[direction_model(direction)] = torchscript.trace(module, _example(translator))
    return traced | {TRANSLATE: torchscript.script(TranslateServable(traced.values()))}


def onnx_models(
    translator: Translator,
    dtype: torch.dtype,
    entries: Mapping[str, contract.Model],
    report: Report = silent,
) -> dict[str, ModelProto]:
    """Return the ONNX of every served model, by the model's name."""
    graphs = {}
    for direction, module in _servables(translator, dtype).items():
        report(Progress(f"Exporting {direction_model(direction)} to ONNX"))
        graphs[direction] = onnx_graphs.export(module, entries[direction_model(direction)], _example(translator))
    return {
        **{direction_model(direction): graph for direction, graph in graphs.items()},
        TRANSLATE: onnx_graphs.translate(entries[TRANSLATE], graphs),
    }


def _servables(translator: Translator, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Return copies of the generators as they are served, by their directions."""
    return {
        direction: GeneratorServable(copy.deepcopy(generator).to(dtype), dtype)
        for direction, generator in translator.generators.items()
    }


def _example(translator: Translator) -> torch.Tensor:
    return torch.zeros(2, translator.picture_size, translator.picture_size, 3, dtype=torch.uint8)
