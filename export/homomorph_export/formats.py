"""The files of every served model that computes something, in each format: one loop over the catalogue for each.

Each function gets the models in the catalogue's order and the parts of their run (`parts.py`), and returns what a
format has, by the models' names.
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
"""Batch size of the examples; a batch of 1 would be taken for fixed."""


def eager_modules(models: Iterable[Model], parts: Any) -> dict[str, nn.Module]:
    """Return the eager modules, which AOTInductor compiles. A joint model has none."""
    made: dict[str, nn.Module] = {}
    for model in models:
        if (way := model.computation) and not model.joint:
            made[model.name] = way.module(parts, *(made[member] for member in way.members))
    return made


def torchscript_models(
    models: Iterable[Model], parts: Any, report: Report = silent
) -> dict[str, torch.jit.ScriptModule]:
    """Return the TorchScript."""
    made: dict[str, torch.jit.ScriptModule] = {}
    for model in models:
        if way := model.computation:
            report(Progress(f"Tracing {model.name}"))
            members = [made[member] for member in way.members]
            made[model.name] = (
                torchscript.script(way.scripted(*members))
                if way.scripted
                else torchscript.trace(way.module(parts), *zeros(model, _BATCH))
            )
    return made


def onnx_models(
    models: Iterable[Model], parts: Any, calibration: Mapping[str, torch.Tensor], report: Report = silent
) -> dict[str, ModelProto]:
    """Return the ONNX, quantised of the models for which there are inputs to calibrate on. A joint model has none."""
    made: dict[str, ModelProto] = {}
    for model in models:
        if (way := model.computation) and not model.joint:
            report(Progress(f"Exporting {model.name} to ONNX"))
            members = [made[member] for member in way.members]
            made[model.name] = (
                way.onnx(model, parts, *members)
                if way.onnx
                else onnx_graphs.export(way.module(parts), model, *zeros(model, _BATCH))
            )
            if model.name in calibration:
                report(Progress(f"Quantising {model.name}"))
                made[model.name] = onnx_graphs.rebuilt(quantised(made[model.name], calibration[model.name]), model)
    return made
