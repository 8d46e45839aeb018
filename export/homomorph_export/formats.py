"""Makes the content of all served models' files, one function for each format.

Each function gets the models in the catalogue's order and the parts of their run (`parts.py`). It returns one module or
graph for each model that computes something, by the models' names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from onnx import ModelProto
from torch import nn

from homomorph.progress import Progress, Report, silent
from homomorph_export import onnx_graphs, torchscript
from homomorph_export.contract import Model
from homomorph_export.examples import zeros
from homomorph_export.quantisation import quantised

_BATCH = 2
"""Batch size of the examples. Tracing would take a batch of 1 for fixed."""


def eager_modules(models: Iterable[Model], parts: Any) -> dict[str, nn.Module]:
    """Return the eager modules, which AOTInductor compiles. A joint model has none."""
    modules: dict[str, nn.Module] = {}
    for model in models:
        if (computation := model.computation) and not model.joint:
            modules[model.name] = computation.module(parts, *(modules[member] for member in computation.members))
    return modules


def torchscript_models(
    models: Iterable[Model], parts: Any, report: Report = silent
) -> dict[str, torch.jit.ScriptModule]:
    """Return the TorchScript modules."""
    modules: dict[str, torch.jit.ScriptModule] = {}
    for model in models:
        if computation := model.computation:
            report(Progress(f"Tracing {model.name}"))
            members = [modules[member] for member in computation.members]
            modules[model.name] = (
                torchscript.script(computation.scripted(*members))
                if computation.scripted
                else torchscript.trace(computation.module(parts), *zeros(model, _BATCH))
            )
    return modules


def onnx_models(
    models: Iterable[Model], parts: Any, calibration: Mapping[str, torch.Tensor], report: Report = silent
) -> dict[str, ModelProto]:
    """Return the ONNX graphs; those of models with inputs in `calibration` are quantised. A joint model has none."""
    graphs: dict[str, ModelProto] = {}
    for model in models:
        if (computation := model.computation) and not model.joint:
            report(Progress(f"Exporting {model.name} to ONNX"))
            members = [graphs[member] for member in computation.members]
            graphs[model.name] = (
                computation.onnx(model, parts, *members)
                if computation.onnx
                else onnx_graphs.export(computation.module(parts), model, *zeros(model, _BATCH))
            )
            if model.name in calibration:
                report(Progress(f"Quantising {model.name}"))
                graphs[model.name] = onnx_graphs.rebuilt(quantised(graphs[model.name], calibration[model.name]), model)
    return graphs
