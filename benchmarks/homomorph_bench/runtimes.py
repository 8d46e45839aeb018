"""The exported files of one run, loaded in each runtime, with the same three calls: encode, interpolate, decode."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor

from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel
from homomorph_export import aotinductor, engines, onnx_graphs, torchscript
from homomorph_export.catalogue import morph_models
from homomorph_export.contract import Model
from homomorph_export.formats import eager_modules, onnx_models, torchscript_models
from homomorph_export.parts import Parts, exported_parts
from homomorph_export.precision import DTYPES
from homomorph_export.quantisation import calibration_inputs

MODELS = ("encoder_pair", "interpolator", "decoder")
"""The served models of a whole sequence, in the order of computation."""


@dataclass(frozen=True)
class RuntimeModel:
    """One runtime in one number format."""

    name: str
    """Such as `torchscript fp32`."""
    precision: str
    """fp32, bf16, or int8."""
    encode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """Source and target, uint8 [B, H, W, 3] -> their features [B, C, h, w]."""
    interpolate: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Both features, and strengths [B, S, K] -> features [B, S, C, h, w]."""
    decode: Callable[[Tensor], Tensor]
    """Features [B, S, C, h, w] -> uint8 [B, S, H, W, 3]."""

    any_length: bool
    """Whether it accepts any number of frames, or only that of the example."""

    def morph(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        """Return the frames of a whole sequence, uint8 [B, S, H, W, 3]."""
        return self.decode(self.interpolate(*self.encode(source, target), strengths))


def runtime_models(
    runtime: str,
    model: MorphModel,
    folder: Path,
    *,
    packages: Path | None = None,
    pictures: Tensor,
    example: tuple[Tensor, Tensor, Tensor],
) -> Iterator[RuntimeModel]:
    """Export a model for a runtime, and load it, in each number format that is measured.

    Args:
        runtime: `torchscript`, `onnxruntime`, `openvino` or `aotinductor`.
        model: with float32 weights.
        folder: for the exported files.
        packages: for AOTInductor's packages instead; packages that exist there are loaded, not compiled again.
        pictures: calibration data of int8, uint8 [N, H, W, 3].
        example: source, target and strengths, of the sizes of later calls; OpenVINO compiles for these sizes.
    """
    config = model.config
    models = morph_models(config, labels=False)
    if runtime == "torchscript":
        device = example[0].device
        for precision in formats(device.type):
            parts = exported_parts(copy.deepcopy(model).cpu(), None, DTYPES[precision])
            yield _torchscript(models, parts, folder, precision, str(device))
    elif runtime == "aotinductor":
        for precision in formats():
            parts = exported_parts(model, None, DTYPES[precision])
            yield _aotinductor(models, parts, packages or folder, f"{_package_key(config)}-{precision}", precision)
    else:
        for precision in ("fp32", "int8"):
            files = _onnx_files(model, models, folder / precision, pictures if precision == "int8" else None)
            if runtime == "onnxruntime":
                loaded = {name: engines.load_onnxruntime(file) for name, file in files.items()}
                yield _runtime_model(runtime, precision, loaded)
                continue
            examples = _examples(config, *example)
            for computed in formats() if precision == "fp32" else (precision,):
                loaded = {name: _openvino(files[name], computed, examples[name]) for name in MODELS}
                yield _runtime_model(runtime, computed, loaded)


def formats(device_type: str = "cpu") -> tuple[str, ...]:
    """Return the floating-point formats to time: bfloat16 not on a CPU that does not compute it in hardware."""
    return ("fp32", "bf16") if device_type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported() else ("fp32",)


def _runtime_model(runtime: str, precision: str, models: Mapping[str, Callable[..., Any]]) -> RuntimeModel:
    encode, between, decode = (models[name] for name in MODELS)
    return RuntimeModel(f"{runtime} {precision}", precision, encode, between, decode, any_length=runtime != "openvino")


def _torchscript(models: Sequence[Model], parts: Parts, folder: Path, precision: str, device: str) -> RuntimeModel:
    modules = torchscript_models(models, parts)
    loaded = {}
    for name in MODELS:
        file = folder / f"{name}-{precision}.pt"
        torchscript.save(modules[name], file)
        loaded[name] = torchscript.load_torchscript(file, device)
    return _runtime_model("torchscript", precision, loaded)


def _package_key(config: ModelConfig) -> str:
    """Return a hash of everything that a package depends on, except the weights, which are always the same."""
    environment = (config, torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
    return hashlib.sha256(repr(environment).encode()).hexdigest()[:8]


def _aotinductor(models: Sequence[Model], parts: Parts, folder: Path, key: str, precision: str) -> RuntimeModel:
    modules = eager_modules(models, parts)
    loaded = {}
    for model in (model for model in models if model.name in MODELS):
        name = model.name
        file = folder / f"{name}-{key}.pt2"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            aotinductor.compile_package(modules[name], model, file)
        loaded[name] = aotinductor.load_package(file)
    return _runtime_model("aotinductor", precision, loaded)


def _onnx_files(model: MorphModel, models: Sequence[Model], folder: Path, pictures: Tensor | None) -> dict[str, Path]:
    """Write float32 files, or int8 files if calibration pictures are given; return their paths by model."""
    files = {name: folder / f"{name}.onnx" for name in MODELS}
    if folder.exists():  # another runtime's process has written them
        return files
    folder.mkdir()
    inputs = {} if pictures is None else calibration_inputs(model, pictures)
    graphs: Mapping[str, ModelProto] = onnx_models(models, exported_parts(model, None, torch.float32), inputs)
    for name, file in files.items():
        onnx_graphs.save(graphs[name], file)
    return files


def _openvino(file: Path, precision: str, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    return engines.load_openvino(
        file,
        threads=torch.get_num_threads(),
        bf16=precision == "bf16",
        shapes=[tensor.shape for tensor in inputs],
    )


def _examples(config: ModelConfig, source: Tensor, target: Tensor, strengths: Tensor) -> dict[str, tuple[Tensor, ...]]:
    """Return example inputs of each model of a sequence, by name."""
    network = config.network
    cells = (source.shape[1] // network.stride, source.shape[2] // network.stride)
    features = torch.zeros(len(source), network.feature_channels, *cells)
    frames = features.unsqueeze(1).repeat(1, strengths.shape[1], 1, 1, 1)
    inputs = ((source, target), (features, features, strengths), (frames,))
    return dict(zip(MODELS, inputs, strict=True))
