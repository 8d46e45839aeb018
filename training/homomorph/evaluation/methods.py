"""The methods that are compared: each turns two pictures and strengths into frames."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homomorph.evaluation.figures import Pictures
from homomorph.models.blending import blend_pixels, linear, spherical
from homomorph.models.morph import MorphModel, interpolate, parameter_counts
from homomorph.models.pixels import from_normalised, normalise
from homomorph_client.details import Original, with_details


class ComparedMethod(Protocol):
    """A way to morph. Methods without groups have one slider for everything, moved by the largest strength."""

    has_groups: bool
    switches: bool
    """Whether it only switches between the original and the changed picture, without frames between them."""
    parameters: int
    """Number of weights of its networks."""
    attributes: int
    """Number of attributes that it can change one by one."""

    def reconstruct(self, pictures: Pictures) -> Pictures | None:
        """Return pictures encoded and decoded: uint8 [B, 3, H, W] -> the same shape.

        A method that switches changes the pictures there and back; None if it cannot change them back.
        """
        ...

    def morph(self, source: Pictures, target: Pictures, strengths: NDArray[np.float32]) -> Pictures:
        """Morph uint8 [B, 3, H, W] twice with strengths [B, S, K] -> uint8 [B, S, 3, H, W]."""
        ...


class PixelBlend:
    """Linear blend of the pixels."""

    has_groups = False
    switches = False
    parameters = 0
    attributes = 0

    def reconstruct(self, pictures: Pictures) -> Pictures:
        """Return the pictures unchanged."""
        return pictures

    def morph(self, source: Pictures, target: Pictures, strengths: NDArray[np.float32]) -> Pictures:
        """Return (1 - v) a + v b."""
        places = torch.from_numpy(strengths).amax(dim=2, keepdim=True).repeat(1, 1, 2)
        result: Pictures = blend_pixels(torch.from_numpy(np.stack([source, target], axis=1)), places).numpy()
        return result


class _ModelMethod:
    """Base of the methods with an encoder and a decoder."""

    has_groups = False
    switches = False
    attributes = 0

    def __init__(self, model: MorphModel) -> None:
        self.model = model
        counts = parameter_counts(model)
        self.parameters = counts["encoder"] + counts["decoder"]

    @torch.no_grad()
    def reconstruct(self, pictures: Pictures) -> Pictures:
        """Return D(E(x))."""
        return self._decode(self._encode(pictures))

    @torch.no_grad()
    def morph(self, source: Pictures, target: Pictures, strengths: NDArray[np.float32]) -> Pictures:
        """Return D of the mixed features."""
        features = self._mix(self._encode(source), self._encode(target), torch.from_numpy(strengths).to(self._device))
        frames = self._decode(features.flatten(0, 1))
        return frames.reshape(*strengths.shape[:2], *frames.shape[1:])

    def _mix(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        """Features [B, C, h, w] twice and strengths [B, S, K] -> [B, S, C, h, w]."""
        raise NotImplementedError

    def _encode(self, pictures: Pictures) -> Tensor:
        normalised = normalise(torch.from_numpy(pictures).to(self._device), self.model.config.network)
        features: Tensor = self.model.encoder(normalised.contiguous(memory_format=torch.channels_last))
        return features

    def _decode(self, features: Tensor) -> Pictures:
        decoded = self.model.decoder(features.contiguous(memory_format=torch.channels_last))
        result: Pictures = from_normalised(decoded, self.model.config.network).contiguous().cpu().numpy()
        return result

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


class LatentBlend(_ModelMethod):
    """Features mixed linearly."""

    def _mix(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        return linear(source.unsqueeze(1), target.unsqueeze(1), strengths.amax(dim=2))


class SlerpBlend(_ModelMethod):
    """Features mixed along a great circle."""

    def _mix(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        return spherical(source.unsqueeze(1), target.unsqueeze(1), strengths.amax(dim=2))


class Homomorph(_ModelMethod):
    """F_a + sum_i v_i T_i(F_b - F_a)."""

    has_groups = True

    def __init__(self, model: MorphModel) -> None:
        super().__init__(model)
        self.parameters = sum(parameter_counts(model).values())
        self.attributes = len(model.config.attributes)

    def _mix(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        return interpolate(source, self.model.deltas(source, target), strengths)


class Detailed(Homomorph):
    """The same with the pictures' own details, as `Morpher.morph_full_size` gives it at the model's size."""

    def reconstruct(self, pictures: Pictures) -> Pictures:
        """Return the pictures unchanged: all details that encoding and decoding loses come back."""
        return pictures

    def morph(self, source: Pictures, target: Pictures, strengths: NDArray[np.float32]) -> Pictures:
        """Morph, and put back what encoding and decoding loses of both pictures."""
        ends = np.zeros((len(strengths), 2, strengths.shape[2]), np.float32)
        ends[:, 1] = 1
        frames = super().morph(source, target, np.concatenate([strengths, ends], axis=1)).transpose(0, 1, 3, 4, 2)
        of_target = strengths.mean(axis=2).clip(0, 1)
        shares = np.stack([1 - of_target, of_target], axis=2)
        detailed = [
            with_details(of_pair[:-2], [Original(a, of_pair[-2]), Original(b, of_pair[-1])], share)
            for of_pair, a, b, share in zip(
                frames, source.transpose(0, 2, 3, 1), target.transpose(0, 2, 3, 1), shares, strict=True
            )
        ]
        return np.ascontiguousarray(np.stack(detailed).transpose(0, 1, 4, 2, 3))


def methods_of(model: MorphModel) -> dict[str, ComparedMethod]:
    """Return the methods that use one model, by their names."""
    return {
        "latent": LatentBlend(model),
        "slerp": SlerpBlend(model),
        "homomorph": Homomorph(model),
        "detailed": Detailed(model),
    }
