"""Triton Python backend of `morpher` as an export writes it, but without weights: its networks are `blender.py`'s."""

from __future__ import annotations

import json
import time

import blender
import exported
import torch


class Networks:
    """What `model.pt` would hold."""

    def __init__(self, frame_ms):
        self.frame_ms = frame_ms

    def encode(self, pictures):
        return torch.from_numpy(blender.features(pictures.numpy()))

    def interpolate(self, source, target, strengths):
        tensors = {"SOURCE": source, "TARGET": target, "STRENGTHS": strengths}
        return torch.from_numpy(blender.blend({name: tensor.numpy() for name, tensor in tensors.items()}))

    def decode(self, features):
        time.sleep(features.shape[0] * features.shape[1] * self.frame_ms / 1000)
        return torch.from_numpy(blender.pixels(features.numpy()))


class TritonPythonModel(exported.TritonPythonModel):
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        torch.jit.load = lambda path, map_location: Networks(float(parameters["frame_ms"]["string_value"]))
        super().initialize(args)
