"""Training batches of two domains: pictures that lack an attribute, and pictures that have it. They are not paired.

A batch depends only on (data, attribute, seed, step), so a resumed run gets the same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from homomorph.data.augmented import AugmentedPictures, Jitter
from homomorph.data.labels import LabelledPictures
from homomorph.errors import DataError


@dataclass(frozen=True)
class DomainBatch:
    """B pictures of each domain."""

    without: Tensor
    """Pictures that lack the attribute, uint8 [B, 3, H, W]."""
    having: Tensor
    """Pictures that have it, uint8 [B, 3, H, W]."""
    bad: dict[int, str]
    """Index of each unreadable picture that was drawn, with the reason. Another picture replaces it."""


class DomainBatches(Dataset[DomainBatch]):
    """Item `step` is the batch of that training step."""

    def __init__(
        self,
        data: LabelledPictures,
        attribute: str,
        *,
        batch_size: int,
        picture_size: int,
        jitter: Jitter,
        seed: int,
        max_bad_pictures: int | None = None,
    ) -> None:
        """Divide the pictures whose label is known.

        Args:
            data: labelled pictures.
            attribute: the label that divides them.
            batch_size: pictures of each domain.
            picture_size: height and width in pixels.
            jitter: positional augmentation.
            seed: seed of all random choices.
            max_bad_pictures: largest number of unreadable pictures; see `AugmentedPictures`.

        Raises:
            DataError: there is no such attribute, or all pictures agree in it.
        """
        if attribute not in data.attributes:
            raise DataError(f"the pictures have no attribute {attribute!r}, but {', '.join(data.attributes)}")
        labels = data.labels[:, data.attributes.index(attribute)]
        self._domains = [np.flatnonzero(labels == value).astype(np.int32) for value in (0, 1)]
        if missing := [verb for verb, found in zip(("lacks", "has"), self._domains, strict=True) if not len(found)]:
            raise DataError(f"no picture {missing[0]} the attribute {attribute}: both kinds are needed")
        self.batch_size = batch_size
        self.seed = seed
        self._pictures = AugmentedPictures(
            data, picture_size=picture_size, jitter=jitter, max_bad_pictures=max_bad_pictures
        )

    def __getitem__(self, step: int) -> DomainBatch:
        generator = np.random.default_rng((self.seed, step))
        bad: dict[int, str] = {}
        drawn: list[Tensor] = []
        for domain in self._domains:
            places = generator.integers(len(domain), size=self.batch_size)
            seeds = generator.integers(2**31, size=self.batch_size)
            pictures = [
                self._pictures.move(self._pictures.read(int(place), domain, bad)[1], int(seed))[0]
                for place, seed in zip(places, seeds, strict=True)
            ]
            drawn.append(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
        return DomainBatch(without=drawn[0], having=drawn[1], bad=bad)

    def check_bad(self, bad: Mapping[int, str]) -> None:
        """Check that not too many pictures are bad; see `AugmentedPictures`."""
        self._pictures.check_bad(bad)
