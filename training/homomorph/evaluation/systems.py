"""The systems that are compared: each turns two pictures and strengths into frames."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from homomorph.networks import MorphModel, interpolate
from homomorph.pixels import from_normalised, normalise

Pictures = NDArray[np.uint8]


class System(Protocol):
    """One way to morph. Systems without groups have one slider for everything, moved by the largest strength."""

    name: str
    has_groups: bool

    def reconstruct(self, pictures: Pictures) -> Pictures:
        """Show pictures as the system shows them unchanged: uint8 [B, 3, H, W] -> the same shape."""
        ...

    def morph(self, source: Pictures, target: Pictures, strengths: NDArray[np.float32]) -> Pictures:
        """Morph uint8 [B, 3, H, W] twice with strengths [B, S, K] -> uint8 [B, S, 3, H, W]."""
        ...


class Pixel:
    """Linear blend of the pixels."""

    name = "pixel"
    has_groups = False

    def reconstruct(self, pictures: Pictures) -> Pictures:
        """A blend shows its ends as they are."""
        return pictures

    def morph(self, source: Pictures, target: Pictures, strengths: NDArray[np.float32]) -> Pictures:
        """Return (1 - v) a + v b."""
        v = strengths.max(axis=2)[:, :, None, None, None]
        frames = (1 - v) * source[:, None] + v * target[:, None]
        result: Pictures = frames.round().clip(0, 255).astype(np.uint8)
        return result


class _Coded:
    """What the systems with an encoder and a decoder share."""

    has_groups = False

    def __init__(self, model: MorphModel, name: str) -> None:
        self.model = model
        self.name = name

    @torch.no_grad()
    def reconstruct(self, pictures: Pictures) -> Pictures:
        """D(E(x))."""
        return self._decode(self._encode(pictures))

    @torch.no_grad()
    def morph(self, source: Pictures, target: Pictures, strengths: NDArray[np.float32]) -> Pictures:
        """D of the mixed features."""
        features = self._mix(self._encode(source), self._encode(target), torch.from_numpy(strengths))
        frames = self._decode(features.flatten(0, 1))
        return frames.reshape(*strengths.shape[:2], *frames.shape[1:])

    def _mix(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        """Features [B, C, h, w] twice and strengths [B, S, K] -> [B, S, C, h, w]."""
        raise NotImplementedError

    def _encode(self, pictures: Pictures) -> Tensor:
        normalised = normalise(torch.from_numpy(pictures), self.model.config.network)
        features: Tensor = self.model.encoder(normalised.contiguous(memory_format=torch.channels_last))
        return features

    def _decode(self, features: Tensor) -> Pictures:
        decoded = self.model.decoder(features.contiguous(memory_format=torch.channels_last))
        result: Pictures = from_normalised(decoded, self.model.config.network).contiguous().numpy()
        return result


class Latent(_Coded):
    """Features mixed linearly: F_a + v (F_b - F_a)."""

    def _mix(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        v = strengths.amax(dim=2)[:, :, None, None, None]
        return source.unsqueeze(1) + v * (target - source).unsqueeze(1)


class Slerp(_Coded):
    """Features mixed along the great circle between their directions (Shoemake, 1985).

    Features of one direction, of opposite ones, or without any, have no single great circle: they are mixed linearly.
    """

    def _mix(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        v = strengths.amax(dim=2)
        a, b = source.flatten(1), target.flatten(1)
        towards_a, towards_b = F.normalize(a), F.normalize(b)
        # Exact for small and for large angles, where the cosine hardly changes.
        angle = 2 * torch.atan2((towards_a - towards_b).norm(dim=1), (towards_a + towards_b).norm(dim=1)).unsqueeze(1)
        sine = torch.sin(angle)
        straight = (sine < 1e-3) | ~(a.any(dim=1) & b.any(dim=1)).unsqueeze(1)
        share_a = torch.where(straight, 1 - v, torch.sin((1 - v) * angle) / sine)
        share_b = torch.where(straight, v, torch.sin(v * angle) / sine)
        mixed = share_a.unsqueeze(2) * a.unsqueeze(1) + share_b.unsqueeze(2) * b.unsqueeze(1)
        return mixed.view(*v.shape, *source.shape[1:])


class Homomorph(_Coded):
    """F_a + sum_i v_i T_i(F_b - F_a)."""

    has_groups = True

    def _mix(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        return interpolate(source, self.model.deltas(source, target), strengths)


def systems_of(model: MorphModel, suffix: str = "") -> list[System]:
    """The systems that one model gives."""
    return [Latent(model, f"latent{suffix}"), Slerp(model, f"slerp{suffix}"), Homomorph(model, f"homomorph{suffix}")]
