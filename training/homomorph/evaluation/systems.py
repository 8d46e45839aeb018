"""The systems that are compared: each turns two pictures and strengths into frames."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from homomorph.networks import MorphModel, interpolate, parameter_counts
from homomorph.pixels import from_normalised, normalise

Pictures = NDArray[np.uint8]


class System(Protocol):
    """One way to morph. Systems without groups have one slider for everything, moved by the largest strength."""

    has_groups: bool
    switches: bool
    """Whether there is nothing between a picture as it is and the changed one."""
    parameters: int
    """Weights of the networks, in numbers."""
    attributes: int
    """How many attributes it can change while the others stay."""

    def reconstruct(self, pictures: Pictures) -> Pictures | None:
        """Show pictures after they have been through the networks: uint8 [B, 3, H, W] -> the same shape.

        For a system that switches that is there and back, of pictures that can be changed; None if it has no way back.
        """
        ...

    def morph(self, source: Pictures, target: Pictures, strengths: NDArray[np.float32]) -> Pictures:
        """Morph uint8 [B, 3, H, W] twice with strengths [B, S, K] -> uint8 [B, S, 3, H, W]."""
        ...


class Pixel:
    """Linear blend of the pixels."""

    has_groups = False
    switches = False
    parameters = 0
    attributes = 0

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
    switches = False
    attributes = 0

    def __init__(self, model: MorphModel) -> None:
        self.model = model
        counts = parameter_counts(model)
        self.parameters = counts["encoder"] + counts["decoder"]

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

    def __init__(self, model: MorphModel) -> None:
        super().__init__(model)
        self.parameters = sum(parameter_counts(model).values())
        self.attributes = len(model.config.attributes)

    def _mix(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        return interpolate(source, self.model.deltas(source, target), strengths)


def systems_of(model: MorphModel) -> dict[str, System]:
    """The systems that one model gives, by their names."""
    return {"latent": Latent(model), "slerp": Slerp(model), "homomorph": Homomorph(model)}
