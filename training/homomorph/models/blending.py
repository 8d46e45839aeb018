"""The simpler methods, between two pictures or four: pixels or features, mixed linearly or spherically.

The last three axes are those of features, [..., C, h, w], or pictures, [..., H, W, 3]. The axes before them broadcast
against each other and against the strengths.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from homomorph.models.morph import MorphModel
from homomorph.models.pixels import from_normalised, normalise
from homomorph_client.names import LATENT, PIXEL, SLERP

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function that mixes a [..., C, h, w] with b [..., C, h, w] by the strength [...]: 0 is a, 1 is b."""


def linear(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """Return a + v (b - a)."""
    return a + v[..., None, None, None] * (b - a)


def spherical(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """Interpolate along the great circle between the directions of a and b (slerp; Shoemake, 1985).

    Tensors of equal or opposite direction, or of norm 0, have no single great circle and are mixed linearly.
    """
    v = v[..., None, None, None]
    norm_a, norm_b = _norm(a), _norm(b)
    towards_a, towards_b = a / norm_a.clamp(min=1e-12), b / norm_b.clamp(min=1e-12)
    # Exact for small and for large angles, where the cosine hardly changes.
    angle = 2 * torch.atan2(_norm(towards_a - towards_b), _norm(towards_a + towards_b))
    sine = torch.sin(angle)
    straight = (sine < 1e-3) | (norm_a == 0) | (norm_b == 0)
    share_a = torch.where(straight, 1 - v, torch.sin((1 - v) * angle) / sine)
    share_b = torch.where(straight, v, torch.sin(v * angle) / sine)
    return share_a * a + share_b * b


def bilinear(mix: Mix, corners: Tensor, places: Tensor) -> Tensor:
    """Mix two tensors, or four in the corners of a square.

    Args:
        mix: mixes two of them.
        corners: [B, P, C, h, w]: left and right (P = 2), or four row by row (P = 4).
        places: position of each frame, across and down, each from 0 to 1: [B, S, 2]. With P = 2, down has no effect.

    Returns:
        [B, S, C, h, w].
    """
    across, down = places[:, :, 0], places[:, :, 1]
    # With P = 2, the lower corners are the upper ones again.
    upper = mix(corners[:, 0].unsqueeze(1), corners[:, 1].unsqueeze(1), across)
    lower = mix(corners[:, -2].unsqueeze(1), corners[:, -1].unsqueeze(1), across)
    return mix(upper, lower, down)


FEATURE_METHODS: dict[str, Mix] = {LATENT: linear, SLERP: spherical}
"""The methods that mix features, by their names."""


def blend_pixels(pictures: Tensor, places: Tensor) -> Tensor:
    """Mix pixels linearly: uint8 [B, P, H, W, 3] and places [B, S, 2] as `bilinear` -> uint8 [B, S, H, W, 3]."""
    return bilinear(linear, pictures.float(), places).round().clamp(0, 255).to(torch.uint8)


@torch.inference_mode()
def blend(model: MorphModel, method: str, pictures: Tensor, places: Tensor) -> Tensor:
    """Mix two pictures, or four in the corners of a square.

    Args:
        model: whose features are mixed; `pixel` needs none of it.
        method: one of `homomorph_client.names.BLENDS`.
        pictures: uint8 [B, P, H, W, 3] as `bilinear`'s corners; H and W multiples of the model's stride.
        places: [B, S, 2] as for `bilinear`.

    Returns:
        uint8 [B, S, H, W, 3].
    """
    if method == PIXEL:
        return blend_pixels(pictures, places)
    network = model.config.network
    features = model.encoder(normalise(pictures.flatten(0, 1).permute(0, 3, 1, 2), network))
    mixed = bilinear(FEATURE_METHODS[method], features.view(*pictures.shape[:2], *features.shape[1:]), places)
    frames = from_normalised(model.decoder(mixed.flatten(0, 1)), network).permute(0, 2, 3, 1)
    return frames.reshape(*places.shape[:2], *frames.shape[1:])


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=(-3, -2, -1), keepdim=True)
    return norm
