"""A pool of generated pictures, so that a discriminator does not forget what generators did a while ago."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Keeps up to `size` generated pictures (Shrivastava et al., CVPR 2017); its content is saved with the training."""

    pictures: Tensor
    filled: Tensor

    def __init__(self, size: int, picture_size: int) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(size, 3, picture_size, picture_size))
        self.register_buffer("filled", torch.tensor(0))

    @torch.no_grad()
    def exchange(self, fresh: Tensor, generator: torch.Generator) -> Tensor:
        """Take in new pictures, and return as many to learn from.

        Until the pool is full it keeps every picture and returns it too. Then half of them, by chance, are exchanged
        for one that it keeps.

        Args:
            fresh: generated pictures, [B, 3, H, W].
            generator: of what is chosen.

        Returns:
            Pictures [B, 3, H, W], without gradients.
        """
        chosen: list[Tensor] = []
        for picture in fresh.detach():
            filled = int(self.filled)
            if filled < len(self.pictures):
                self.pictures[filled] = picture
                self.filled += 1
                chosen.append(picture)
            elif len(self.pictures) and torch.rand((), generator=generator) < 0.5:
                place = int(torch.randint(filled, (), generator=generator))
                chosen.append(self.pictures[place].clone())
                self.pictures[place] = picture
            else:
                chosen.append(picture)
        return torch.stack(chosen)
