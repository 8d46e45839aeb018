"""The modules that are served: the training networks wrapped into the signatures of `catalogue.py`.

Pixels come in and go out as uint8, channels last. The modules here normalise them, with the configuration's values as
buffers. Served features are always float32: a 16-bit network converts them at its input and output, because Triton's
libtorch backend does not support bfloat16. No layer is defined here. forward()'s arguments are in capitals because
Triton's libtorch backend matches them with the names of the served tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from homomorph.models.blending import Mix, bilinear, blend_pixels
from homomorph.models.config import NetworkConfig
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.models.morph import interpolate
from homomorph.models.pixels import Normalisation, picture_statistics


class PixelsIn(nn.Module):
    """uint8 pictures [B, H, W, 3] in 0-255 -> normalised pictures [B, 3, H, W], as networks see them."""

    def __init__(self, config: Normalisation, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        mean, std = picture_statistics(config)
        self.scale = nn.Buffer(1 / (255 * std))
        self.offset = nn.Buffer(-mean / std)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() * self.scale + self.offset).to(self.dtype)


class PixelsOut(nn.Module):
    """The inverse: normalised pictures [B, 3, H, W] -> uint8 pictures [B, H, W, 3] in 0-255, rounded and clamped."""

    def __init__(self, config: Normalisation) -> None:
        super().__init__()
        mean, std = picture_statistics(config)
        self.scale = nn.Buffer(255 * std)
        self.offset = nn.Buffer(255 * mean)

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = (pictures.float() * self.scale + self.offset).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous()


class EncoderServable(nn.Module):
    """uint8 pictures [B, H, W, 3] in 0-255 -> features [B, C, h, w]."""

    def __init__(self, encoder: nn.Module, config: NetworkConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.pixels_in = PixelsIn(config, dtype)
        self.encoder = encoder

    def forward(self, IMAGE: Tensor) -> Tensor:
        features: Tensor = self.encoder(self.pixels_in(IMAGE))
        return features.float().contiguous()


class EncoderPairServable(nn.Module):
    """uint8 pictures [B, H, W, 3] of sources and targets -> features [B, C, h, w] of both, encoded as one batch."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, SOURCE: Tensor, TARGET: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(torch.cat([SOURCE, TARGET]))
        # Not chunk(): torch.export would take the batch size that it divides for fixed.
        count = SOURCE.size(0)
        return features[:count], features[count:]


class EncoderCornersServable(nn.Module):
    """uint8 pictures to blend [B, P, H, W, 3] -> their features [B, P, C, h, w], encoded as one batch."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, PICTURES: Tensor) -> Tensor:
        features: Tensor = self.encoder(PICTURES.flatten(0, 1))
        return features.view(PICTURES.shape[:2] + features.shape[1:])


class MixServable(nn.Module):
    """Features [B, P, C, h, w] of pictures to blend and places [B, S, 2] -> features [B, S, C, h, w] of all frames."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.mix = mix

    def forward(self, CORNERS: Tensor, PLACES: Tensor) -> Tensor:
        return bilinear(self.mix, CORNERS, PLACES)


class PixelServable(nn.Module):
    """uint8 pictures to blend [B, P, H, W, 3] and places [B, S, 2] -> uint8 frames [B, S, H, W, 3]."""

    def forward(self, PICTURES: Tensor, PLACES: Tensor) -> Tensor:
        return blend_pixels(PICTURES, PLACES)


class DifferenceServable(nn.Module):
    """Features [B, C, h, w] of sources and targets -> target - source, same shape."""

    def forward(self, SOURCE: Tensor, TARGET: Tensor) -> Tensor:
        return TARGET - SOURCE


class LabelTargetServable(nn.Module):
    """Features [B, C, h, w] of sources and labels [B, L] -> features [B, C, h, w] of a picture with these labels.

    Only the size of the source is used.
    """

    def __init__(self, label_features: nn.Module) -> None:
        super().__init__()
        self.label_features = label_features

    def forward(self, SOURCE: Tensor, LABELS: Tensor) -> Tensor:
        target: Tensor = self.label_features(LABELS, (SOURCE.size(2), SOURCE.size(3)))
        return target.contiguous()


class BranchServable(nn.Module):
    """Differences of features [B, C, h, w] -> one T_i's share of them, same shape."""

    def __init__(self, branch: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.branch = branch
        self.dtype = dtype

    def forward(self, DIFFERENCE: Tensor) -> Tensor:
        delta: Tensor = self.branch(DIFFERENCE.to(self.dtype))
        return delta.float().contiguous()


class InterpolatorServable(nn.Module):
    """Features [B, C, h, w] of sources and targets, strengths [B, S, K] -> features [B, S, C, h, w] of all frames.

    This module is scripted, because the strengths decide which branches run. So the branches must be traced already.
    A branch runs for the requests of a batch that use it. A request whose strengths of a branch are all 0 skips it.
    """

    def __init__(self, branches: Iterable[torch.jit.ScriptModule]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, SOURCE: Tensor, TARGET: Tensor, STRENGTHS: Tensor) -> Tensor:
        difference = TARGET - SOURCE
        used = (STRENGTHS != 0).any(dim=1)  # (B, K)
        size = SOURCE.shape
        # Uninitialised, because the operator does not read a delta whose strengths are all 0.
        deltas = torch.empty(
            [size[0], len(self.branches), size[1], size[2], size[3]], dtype=SOURCE.dtype, device=SOURCE.device
        )
        for column in range(len(self.branches)):
            rows = used[:, column].nonzero().squeeze(1)
            if rows.numel() > 0:
                deltas[rows, column] = self.delta(difference[rows], column)
        return self.combine(SOURCE, deltas, STRENGTHS)

    def delta(self, difference: Tensor, column: int) -> Tensor:
        """Differences of features [N, C, h, w] -> the share of them that branch number `column` takes, same shape."""
        for index, branch in enumerate(self.branches):
            if index == column:
                share: Tensor = branch(difference)
                return share
        raise ValueError("there is no such branch")

    def combine(self, source: Tensor, deltas: Tensor, strengths: Tensor) -> Tensor:
        """Features [B, C, h, w], deltas [B, K, C, h, w] and strengths [B, S, K] -> features [B, S, C, h, w]."""
        features: Tensor = torch.ops.homomorph.interpolate(source, deltas, strengths)
        return features


class DenseInterpolatorServable(nn.Module):
    """Like `InterpolatorServable`, but runs all branches for any strengths, in operations that a compiler can fuse."""

    def __init__(self, branches: Iterable[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, SOURCE: Tensor, TARGET: Tensor, STRENGTHS: Tensor) -> Tensor:
        difference = TARGET - SOURCE
        return interpolate(SOURCE, torch.stack([branch(difference) for branch in self.branches], dim=1), STRENGTHS)


class InterpolateServable(nn.Module):
    """Features of sources [B, C, h, w], every T_i's output and strengths [B, S, K] -> features of all frames."""

    def forward(self, SOURCE: Tensor, *DELTAS_AND_STRENGTHS: Tensor) -> Tensor:
        *deltas, strengths = DELTAS_AND_STRENGTHS
        return interpolate(SOURCE, torch.stack(deltas, dim=1), strengths)


class DecoderServable(nn.Module):
    """Features [B, S, C, h, w] -> uint8 pictures [B, S, H, W, 3] in 0-255; all frames are decoded as one batch."""

    def __init__(self, decoder: nn.Module, config: NetworkConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.decoder = decoder
        self.dtype = dtype
        self.pixels_out = PixelsOut(config)

    def forward(self, FEATURES: Tensor) -> Tensor:
        pixels: Tensor = self.pixels_out(self.decoder(FEATURES.flatten(0, 1).to(self.dtype)))
        return pixels.view(FEATURES.shape[:2] + pixels.shape[1:])


class MorpherServable(nn.Module):
    """uint8 pictures [B, H, W, 3] of sources and targets, strengths [B, S, K] -> uint8 frames [B, S, H, W, 3].

    A caller can run its parts alone, by `JOINT_METHODS`, so that nothing is computed twice.
    """

    def __init__(
        self, encoder: torch.jit.ScriptModule, interpolator: torch.jit.ScriptModule, decoder: torch.jit.ScriptModule
    ) -> None:
        super().__init__()
        self.encoder, self.interpolator, self.decoder = encoder, interpolator, decoder

    def forward(self, SOURCE: Tensor, TARGET: Tensor, STRENGTHS: Tensor) -> Tensor:
        features = self.encode(torch.cat([SOURCE, TARGET]))
        count = SOURCE.size(0)
        return self.decode(self.interpolate(features[:count], features[count:], STRENGTHS))

    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 pictures [N, H, W, 3] -> features [N, C, h, w]."""
        features: Tensor = self.encoder(pictures)
        return features

    def interpolate(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        """Features [B, C, h, w] of sources and targets, strengths [B, S, K] -> features [B, S, C, h, w]."""
        features: Tensor = self.interpolator(source, target, strengths)
        return features

    @torch.jit.export  # forward() does not call it
    def delta(self, difference: Tensor, column: int) -> Tensor:
        """Differences of features [N, C, h, w] -> the share of them that branch number `column` takes, same shape."""
        share: Tensor = self.interpolator.delta(difference, column)
        return share

    @torch.jit.export
    def combine(self, source: Tensor, deltas: Tensor, strengths: Tensor) -> Tensor:
        """Features [B, C, h, w], deltas [B, K, C, h, w] and strengths [B, S, K] -> features [B, S, C, h, w]."""
        features: Tensor = self.interpolator.combine(source, deltas, strengths)
        return features

    def decode(self, features: Tensor) -> Tensor:
        """Features [B, S, C, h, w] -> uint8 frames [B, S, H, W, 3]."""
        frames: Tensor = self.decoder(features)
        return frames


JOINT_METHODS = ("encode", "interpolate", "delta", "combine", "decode")
"""Methods of `MorpherServable` beside forward()."""


class GeneratorServable(nn.Module):
    """uint8 pictures [B, H, W, 3] in 0-255 -> these pictures changed in one direction, same shape."""

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

    This module is scripted, because the steps decide which directions run. So the directions must be traced already. In
    each step, a direction runs once on the pictures of the batch that use it. It does not run if no picture uses it.
    """

    def __init__(self, directions: Iterable[torch.jit.ScriptModule]) -> None:
        super().__init__()
        self.directions = nn.ModuleList(directions)

    def forward(self, IMAGE: Tensor, STEPS: Tensor) -> Tensor:
        pictures = IMAGE
        frames: list[Tensor] = []
        for step in STEPS.unbind(1):
            changed = pictures.clone()  # a number without a direction leaves the picture unchanged
            for number, direction in enumerate(self.directions):
                rows = (step == number).nonzero().squeeze(1)
                if rows.numel() > 0:
                    changed[rows] = direction(pictures[rows])
            frames.append(changed)
            pictures = changed
        return torch.stack(frames, dim=1)


def interpolate_source(deltas: Sequence[str]) -> str:
    """Return the source of `interpolate`'s forward() in TorchScript, which needs one argument for each delta."""
    arguments = ", ".join(f"{name}: Tensor" for name in ("SOURCE", *deltas, "STRENGTHS"))
    return f"""
def forward(self, {arguments}) -> Tensor:
    deltas = torch.stack([{", ".join(deltas)}], dim=1)
    return torch.ops.homomorph.interpolate(SOURCE, deltas, STRENGTHS)
"""
