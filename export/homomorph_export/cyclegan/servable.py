"""The modules that are served for CycleGANs, with the signatures of `contract.translation_models`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph_export.servable import PixelsIn, PixelsOut


class GeneratorServable(nn.Module):
    """uint8 pictures [B, H, W, 3] in 0-255 -> the same changed in one direction, same shape."""

    def __init__(self, generator: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.pixels_in = PixelsIn(CycleGANConfig, dtype)
        self.generator = generator
        self.pixels_out = PixelsOut(CycleGANConfig)

    def forward(self, IMAGE: Tensor) -> Tensor:
        pixels: Tensor = self.pixels_out(self.generator(self.pixels_in(IMAGE)))
        return pixels


class TranslateServable(nn.Module):
    """uint8 pictures [B, H, W, 3] and numbers of directions [B, S] -> uint8 pictures after each step [B, S, H, W, 3].

    The directions must be traced already, because this module is scripted: which of them run depends on the steps. In
    each step, a direction runs once on those pictures of the batch that take it, and not at all if none does.
    """

    def __init__(self, directions: Iterable[torch.jit.ScriptModule]) -> None:
        super().__init__()
        self.directions = nn.ModuleList(directions)

    def forward(self, IMAGE: Tensor, STEPS: Tensor) -> Tensor:
        pictures = IMAGE
        frames: list[Tensor] = []
        for step in STEPS.unbind(1):
            changed = pictures.clone()  # a number of no direction leaves a picture as it is
            for number, direction in enumerate(self.directions):
                rows = (step == number).nonzero().squeeze(1)
                if rows.numel() > 0:
                    changed[rows] = direction(pictures[rows])
            frames.append(changed)
            pictures = changed
        return torch.stack(frames, dim=1)
