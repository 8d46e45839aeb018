"""A pool of generated pictures: a discriminator also sees pictures of earlier steps, and does not forget them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PoolDraws:
    """Random choices when a pool takes in B pictures."""

    exchanged: Tensor
    """Which of the pictures are exchanged for one of a full pool, bool [B]."""
    place: Tensor
    """Position of that one in the pool, as a share of the pool's size, in [0, 1), [B]."""


def draw_exchange(count: int, generator: torch.Generator) -> PoolDraws:
    """Draw the choices for `count` pictures. Each is exchanged with probability one half."""
    return PoolDraws(torch.rand(count, generator=generator) < 0.5, torch.rand(count, generator=generator))


class ImagePool(nn.Module):
    """Keeps up to `size` generated pictures (Shrivastava et al., CVPR 2017); its content is saved with the training."""

    pictures: Tensor
    filled: Tensor

    def __init__(self, size: int, picture_size: int) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(size, 3, picture_size, picture_size))
        self.register_buffer("filled", torch.tensor(0))

    @torch.no_grad()
    def exchange(self, fresh: Tensor, draws: PoolDraws) -> Tensor:
        """Take in new pictures, and return as many for the discriminator.

        Until the pool is full, it keeps and returns every new picture. Then an exchanged picture takes the place of one
        of the pool, which is returned instead; the other new pictures are returned and not kept.

        Args:
            fresh: generated pictures, [B, 3, H, W].
            draws: which of them are exchanged, and for which pictures of the pool.

        Returns:
            Pictures [B, 3, H, W], without gradients.
        """
        size, chosen = len(self.pictures), []
        for picture, exchanged, place in zip(fresh.detach(), draws.exchanged, draws.place, strict=True):
            if int(self.filled) < size:
                self.pictures[int(self.filled)] = picture
                self.filled += 1
                chosen.append(picture)
            elif size and exchanged:
                index = int(place * size)
                chosen.append(self.pictures[index].clone())
                self.pictures[index] = picture
            else:
                chosen.append(picture)
        return torch.stack(chosen)
