"""d(x, y), how different two pictures look: LPIPS where its weights are on this machine, else the judge's maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
from torchvision.models import AlexNet_Weights

from homomorph.errors import ConfigError
from homomorph.evaluation.cached_weights import cached_weights, from_home
from homomorph.evaluation.evaluator import FRAME_CHUNK
from homomorph.evaluation.judge import Judge
from homomorph.models.perceptual import perceptual_distance
from homomorph_client.files import sha256

Choice = Literal["auto", "evaluator", "lpips"]
"""Which d: `auto` is LPIPS if it can be used, else the judge's maps."""

MIN_SIZE = 31
"""Smallest height and width in pixels that AlexNet's layers accept."""


@dataclass(frozen=True)
class Distance:
    """A way to measure d."""

    name: str
    """Description for reports."""
    maps: Callable[[Tensor], list[Tensor]]
    """Pictures uint8 [B, 3, H, W] -> maps [B, C, h, w] of several layers."""
    between: Callable[[list[Tensor], list[Tensor]], Tensor]
    """Maps of B pictures, and of B others -> d [B]."""

    @torch.no_grad()
    def of_pairs(self, pictures: Tensor, others: Tensor) -> NDArray[np.float64]:
        """Return d between each picture and its counterpart in `others`: uint8 [N, 3, H, W] twice -> [N]."""
        found = [
            self.between(self.maps(ours), self.maps(theirs)).double().numpy()
            for ours, theirs in zip(pictures.split(FRAME_CHUNK), others.split(FRAME_CHUNK), strict=True)
        ]
        return np.concatenate(found)

    @torch.no_grad()
    def around(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return d from each frame to the next one, and from the last one to the first.

        The maps of each frame are computed once.

        Args:
            frames: uint8 [N, S, 3, H, W].

        Returns:
            [N, S].
        """
        found = []
        for chunk in torch.from_numpy(frames).split(max(1, FRAME_CHUNK // frames.shape[1])):
            maps = self.maps(chunk.flatten(0, 1))
            following = [of.unflatten(0, chunk.shape[:2]).roll(-1, dims=1).flatten(0, 1) for of in maps]
            found.append(self.between(maps, following).view(chunk.shape[:2]).double().numpy())
        return np.concatenate(found)


def judge_distance(judge: Judge) -> Distance:
    """Return LPIPS's form, without its weights, on the judge's maps."""
    return Distance(
        "LPIPS's form on the judge's maps (LPIPS's own weights are not used)", judge.maps, perceptual_distance
    )


def find_lpips(choice: Choice, picture_size: int) -> tuple[Distance | None, str | None]:
    """Return LPIPS (Zhang et al., CVPR 2018) on AlexNet if its weights are on this machine. Downloads nothing.

    Args:
        choice: `lpips` requires LPIPS, `auto` takes it where it can be used, `evaluator` leaves it out.
        picture_size: height and width in pixels of the pictures to compare.

    Returns:
        LPIPS and None; or None, and the reason why it is left out.

    Raises:
        ConfigError: AlexNet's weights are damaged, or LPIPS is required and cannot be used.
    """
    if choice == "evaluator":
        return None, "lpips is left out: --distance evaluator asks for that"
    # torchmetrics brings LPIPS's own weights, and has torchvision read AlexNet's from here.
    file = cached_weights(AlexNet_Weights.DEFAULT.url)
    missing = (
        f"there is no file {from_home(file)}, from {AlexNet_Weights.DEFAULT.url}"
        if not file.is_file()
        else f"pictures of {picture_size} pixels are smaller than the {MIN_SIZE} that it takes"
        if picture_size < MIN_SIZE
        else None
    )
    if missing is not None:
        if choice == "auto":
            return None, f"lpips is left out: {missing}"
        raise ConfigError(f"--distance lpips cannot be had: {missing}")
    # torchvision's file names end in the first digits of the file's SHA-256. Only a file that matches is unpickled.
    if not sha256(file).startswith(file.stem.rpartition("-")[2]):
        raise ConfigError(
            f"{file} is damaged, or not torchvision's: get it anew from {AlexNet_Weights.DEFAULT.url}, remove it, "
            "or choose --distance evaluator"
        )
    network = LearnedPerceptualImagePatchSimilarity(net_type="alex").net

    def maps(pictures: Tensor) -> list[Tensor]:
        return list(network.net(network.scaling_layer(pictures.float() / 127.5 - 1)))

    def between(maps_a: list[Tensor], maps_b: list[Tensor]) -> Tensor:
        total = torch.zeros(len(maps_a[0]))
        for weigh, a, b in zip(network.lins, maps_a, maps_b, strict=True):
            total += weigh((_unit(a) - _unit(b)).square()).mean(dim=(1, 2, 3))
        return total

    return Distance("LPIPS (Zhang et al., CVPR 2018) on AlexNet", maps, between), None


def _unit(maps: Tensor) -> Tensor:
    """Normalise maps to unit length across channels, as LPIPS does."""
    return maps / maps.square().sum(dim=1, keepdim=True).add(1e-8).sqrt()
