"""int8 for ONNX: convolutions with 8 bit weights and inputs, calibrated on pictures like those of the training.

E and D are quantised except for their first and last convolutions, which process pixels and features at their full
range. More of D's last convolutions stay at float32 where its pictures would change too much: crisp edges need more
than 8 bits in the layers that make pixels. The T_i are not quantised, because their outputs, with their errors, are
scaled by up to 2 and summed.
"""

from __future__ import annotations

import bisect
import logging
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor

from homomorph.data.picture_names import PictureNames
from homomorph.models.config import ModelConfig
from homomorph.models.morph import MAX_STRENGTH, MorphModel, interpolate
from homomorph.models.pixels import normalise
from homomorph_client.pictures import fit_picture
from homomorph_export.engines import load_onnxruntime
from homomorph_export.errors import ExportError
from homomorph_export.parity import PICTURES

_log = logging.getLogger(__name__)

LARGEST_MEAN_DIFFERENCE = 0.5
"""Largest mean difference that quantising D may make to its pictures, in grey levels: a quarter of the tolerance of
int8 files, because E's errors add to it."""
_PICTURES = 64
"""Pictures to calibrate on."""
_BATCH = 8


def calibration_pictures(config: ModelConfig, folder: Path | None) -> tuple[Tensor, Tensor]:
    """Read pictures from a folder, or render them if the run's labels are those of the built-in set.

    Returns:
        Pictures to calibrate on, and `PICTURES` other pictures to compare on: uint8 [N, H, W, 3] each.

    Raises:
        ExportError: there is no folder and the run has other labels, or there are too few pictures.
        DataError: the folder cannot be read.
    """
    needed, size = _PICTURES + PICTURES, config.picture_size
    if folder is None:
        from homomorph.data import avatars

        if not can_render(config):
            raise ExportError("int8 needs pictures like those of the training to calibrate on: --calibration DIR")
        arrays = [avatars.render(avatars.draw_looks(0, index), size) for index in range(needed)]
    else:
        paths = [folder / name for name in islice(PictureNames(folder).pictures(), needed)]
        if len(paths) < needed:
            raise ExportError(f"{folder} holds {len(paths)} pictures, and calibrating int8 needs {needed}")
        arrays = [fit_picture(path, size) for path in paths]
    pictures = torch.from_numpy(np.stack(arrays))
    return pictures[:_PICTURES], pictures[_PICTURES:]


def can_render(config: ModelConfig) -> bool:
    """Return whether a run has the built-in set's labels, so that pictures like its training's can be rendered."""
    from homomorph.data import avatars

    return config.groups == avatars.GROUPS


def stretched(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Return pictures [N, H, W, 3] of a multiple of their height, each row repeated to reach it."""
    return pictures.repeat_interleave(size[0] // pictures.shape[1], dim=1)


@torch.inference_mode()
def calibration_inputs(model: MorphModel, pictures: Tensor) -> dict[str, Tensor]:
    """Return the inputs of the encoder and of the decoder: uint8 [N, H, W, 3], and features [N/2, S, C, h, w]."""
    generator = torch.Generator().manual_seed(0)
    features = model.encoder(normalise(pictures.permute(0, 3, 1, 2), model.config.network))
    source, target = features.chunk(2)
    strengths = torch.rand(len(source), 3, len(model.branches), generator=generator) * MAX_STRENGTH
    return {"encoder": pictures, "decoder": interpolate(source, model.deltas(source, target), strengths)}


def quantised(graph: ModelProto, inputs: Tensor) -> ModelProto:
    """Return a model with quantised convolutions between its first and its last.

    Of a model that gives pictures, as few of the last convolutions stay at float32 as `LARGEST_MEAN_DIFFERENCE` needs.

    Args:
        graph: a model with one input; it stays as it is.
        inputs: typical values of the input.
    """
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    if graph.graph.output[0].type.tensor_type.elem_type != TensorProto.UINT8:
        return _quantised(graph, inputs, [convolutions[0], convolutions[-1]])
    float_pictures = _run(graph, inputs)
    candidates: dict[int, ModelProto] = {len(convolutions): graph}

    def is_exact(kept: int) -> bool:
        """Whether pictures change little enough with this many of the last convolutions at float32."""
        candidates[kept] = _quantised(graph, inputs, [convolutions[0], *convolutions[-kept:]])
        return float((_run(candidates[kept], inputs) - float_pictures).abs().mean()) <= LARGEST_MEAN_DIFFERENCE

    kept = 1 + bisect.bisect_left(range(1, len(convolutions)), True, key=is_exact)
    if kept > 1:
        _log.warning(
            "int8 would change the decoder's pictures by more than %g grey levels: the last %d of its %d convolutions "
            "stay at float32",
            LARGEST_MEAN_DIFFERENCE,
            kept,
            len(convolutions),
        )
    return candidates[kept]


def _run(graph: ModelProto, inputs: Tensor) -> Tensor:
    """Compute the first output of a graph, as float32."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        onnx.save(graph, path)
        run = load_onnxruntime(path)
        return torch.cat([run(batch).float() for batch in inputs.split(_BATCH)])


def _quantised(graph: ModelProto, inputs: Tensor, excluded: Sequence[str]) -> ModelProto:
    """Quantise all convolutions but the excluded ones."""
    copy = ModelProto()
    copy.CopyFrom(graph)  # quantize_static changes its argument
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "quantised.onnx"
        logging.disable(logging.WARNING)  # it recommends a preparation that fused graphs like these do not need
        try:
            quantize_static(
                copy,
                path,
                _Reader(graph.graph.input[0].name, inputs.split(_BATCH)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=list(excluded),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # 7 bits of weight: with 8, sums overflow on CPUs without VNNI.
                reduce_range=True,
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(path)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches of one input, in the form that ONNX Runtime reads them."""

    def __init__(self, name: str, batches: Sequence[Tensor]) -> None:
        self._batches = iter([{name: batch.numpy()} for batch in batches])

    def get_next(self) -> object:
        return next(self._batches, None)
