"""Changes pictures by the generators of one or several CycleGAN runs, once or in a chain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from homomorph.errors import ConfigError
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.models.pixels import from_normalised, normalise


class Translator:
    """The generators of several runs together, by their directions."""

    def __init__(self, models: Sequence[CycleGAN]) -> None:
        """Collect the generators of the runs.

        Args:
            models: one or more, in evaluation mode on the CPU.

        Raises:
            ConfigError: two of them have a direction of the same name, or were trained at different sizes.
        """
        self.generators: dict[str, nn.Module] = {}
        """In the order of the runs."""
        self.strides: dict[str, int] = {}
        """Stride of each direction: a picture's height and width must be multiples of it."""
        for model in models:
            for direction, generator in model.generators.items():
                if direction in self.generators:
                    raise ConfigError(
                        f"two runs have the direction {direction!r}: "
                        "give them other names (`homomorph import cyclegan --direction`), or take one of them"
                    )
                self.generators[direction] = generator
                self.strides[direction] = model.config.stride
        sizes = sorted({model.config.picture_size for model in models})
        if len(sizes) > 1:
            raise ConfigError(
                f"runs that were trained at different sizes cannot follow each other: {', '.join(map(str, sizes))} "
                "pixels; take those of one size"
            )
        self.picture_size = sizes[0]
        """Height and width in pixels that all generators were trained at."""

    @property
    def directions(self) -> tuple[str, ...]:
        """Names of the directions, in the order of the runs."""
        return tuple(self.generators)

    @torch.inference_mode()
    def changed(self, direction: str, pictures: Tensor) -> Tensor:
        """Change pictures in one direction: uint8 [B, H, W, 3] -> the same shape."""
        result = self.generators[direction](normalise(pictures.permute(0, 3, 1, 2), CycleGANConfig))
        return from_normalised(result, CycleGANConfig).permute(0, 2, 3, 1).contiguous()

    def chained(self, picture: NDArray[np.uint8], steps: Sequence[str]) -> NDArray[np.uint8]:
        """Change a picture in several directions, one after the other.

        Args:
            picture: uint8 [H, W, 3].
            steps: directions, S of them.

        Returns:
            uint8 [S, H, W, 3], the picture after each step.
        """
        frames = [torch.from_numpy(picture)[None]]
        for step in steps:
            frames.append(self.changed(step, frames[-1]))
        result: NDArray[np.uint8] = torch.cat(frames[1:]).numpy()
        return result
