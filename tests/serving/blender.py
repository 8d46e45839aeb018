"""Triton Python backend of a model without weights, for tests of what happens around a model; needs numpy alone.

Its features are the pictures' own pixels, and a frame goes from one picture to the other with the strengths' mean.
Decoding takes `frame_ms` for each frame, a parameter, so that a long request is long on any machine.
"""

from __future__ import annotations

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils

STRIDE = 8
MAX_SIZE = 256 * 64 * 64 * 3


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.frame_ms = float(config["parameters"]["frame_ms"]["string_value"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
        for name, tensor in tensors.items():
            if name != "STRENGTHS" and tensor.size > MAX_SIZE:
                error = pb_utils.TritonError(f"{name} is too large", pb_utils.TritonError.INVALID_ARG)
                return pb_utils.InferenceResponse(error=error)
        if self.outputs == ["FRAMES"]:
            mixed = tensors["FEATURES"] if "FEATURES" in tensors else blend(tensors)
            results = [self.decoded(mixed)]
        elif "STRENGTHS" in tensors:
            results = [blend(tensors)]
        else:
            results = [features(picture) for picture in tensors.values()]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, result) for name, result in zip(self.outputs, results, strict=True)]
        )

    def decoded(self, features):
        time.sleep(features.shape[1] * self.frame_ms / 1000)
        return pixels(features)


def blend(tensors):
    """Return the features of all frames, of features or pictures and strengths."""
    source, target = (tensors[name] for name in ("SOURCE", "TARGET"))
    if source.dtype == np.uint8:
        source, target = features(source), features(target)
    steps = tensors["STRENGTHS"].mean(axis=2)[:, :, None, None, None]
    return source[:, None] + steps * (target - source)[:, None]


def features(pictures):
    """Return pictures [B, H, W, 3] as [B, 3 * 8 * 8, h, w]."""
    batch, height, width, _ = pictures.shape
    cells = pictures.reshape(batch, height // STRIDE, STRIDE, width // STRIDE, STRIDE, 3)
    cells = cells.transpose(0, 2, 4, 5, 1, 3).reshape(batch, -1, height // STRIDE, width // STRIDE)
    return cells.astype(np.float32)


def pixels(features):
    """Return features [B, S, 3 * 8 * 8, h, w] as pictures [B, S, H, W, 3]."""
    batch, steps, _, height, width = features.shape
    cells = features.reshape(batch, steps, STRIDE, STRIDE, 3, height, width).transpose(0, 1, 5, 2, 6, 3, 4)
    frames = cells.reshape(batch, steps, height * STRIDE, width * STRIDE, 3)
    return np.rint(frames).astype(np.uint8)
