"""Training batches of picture pairs with positional augmentation.

A batch depends only on (data, seed, step), so a resumed run gets the same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from homomorph.data.augmented import AugmentedPictures, Jitter
from homomorph.data.labels import UNKNOWN, LabelledPictures, group_columns
from homomorph.errors import ConfigError

ALL_GROUPS = -1
"""Group index of a pair that is drawn for all sliders together."""


@dataclass(frozen=True)
class Batch:
    """B pictures, their labels, and B pairs among them: each picture is a of one pair and b of another."""

    pictures: Tensor
    """uint8 [B, 3, H, W]."""
    labels: Tensor
    """float 0/1 [B, L]; 0 where unknown."""
    known: Tensor
    """Which labels are known, bool [B, L]."""
    placement: Tensor
    """The augmentation of each picture, as `torch.nn.functional.affine_grid` takes it, [B, 2, 3]."""
    source: Tensor
    """Index into the pictures, [B]: a of each pair."""
    target: Tensor
    """Index into the pictures, [B]: b of each pair."""
    group: Tensor
    """Index of the group in whose known labels a and b differ, or `ALL_GROUPS`, [B]."""
    bad: dict[int, str]
    """Index of each unreadable picture that was drawn, with the reason. Another picture replaces it."""

    def to(self, device: torch.device) -> Batch:
        """Return the same on another device."""
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Batch(**moved)


class GroupValues:
    """The combinations of values of one group's labels, and the pictures that have each combination.

    Pictures with an unknown label in the group are left out.
    """

    def __init__(self, labels: NDArray[np.uint8]) -> None:
        """Sort the pictures by their values; `labels` are the group's columns, 0, 1 or `UNKNOWN`, [N, l]."""
        rows = np.flatnonzero((labels != UNKNOWN).all(axis=1)).astype(np.int32)
        _, value = np.unique(np.packbits(labels[rows], axis=1), axis=0, return_inverse=True)
        value = value.reshape(-1)
        counts = np.bincount(value) if len(rows) else np.zeros(0, dtype=np.int64)
        self._rows = rows[np.argsort(value, kind="stable")]
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        """Return the number of different combinations."""
        return len(self._starts) - 1

    def draw_pair(self, generator: np.random.Generator) -> tuple[int, int]:
        """Draw two pictures with different combinations. All combinations are equally likely, rare ones too."""
        first, second = generator.choice(len(self), size=2, replace=False)
        return self._draw(int(first), generator), self._draw(int(second), generator)

    def _draw(self, value: int, generator: np.random.Generator) -> int:
        return int(self._rows[generator.integers(self._starts[value], self._starts[value + 1])])


class PairedBatches(Dataset[Batch]):
    """Item `step` is the batch of that training step.

    Three quarters of the pairs differ in the known labels of one group, each group as often as any other. The other
    pairs are two random pictures. In three of four batches, the augmentation moves all pictures alike, so that a
    part has the same place in all of them. In the fourth it moves both pictures of a pair of one group alike, because
    the slider of a group must not learn movements, and those of the other pairs independently. From step `still_from`
    on, the augmentation moves no picture of the three batches.
    """

    def __init__(
        self,
        data: LabelledPictures,
        *,
        batch_size: int,
        picture_size: int,
        jitter: Jitter,
        seed: int,
        max_bad_pictures: int | None = None,
        still_from: int | None = None,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        """Take the data and the settings.

        Args:
            data: labelled pictures.
            batch_size: pictures in all shards together.
            picture_size: height and width in pixels.
            jitter: positional augmentation.
            seed: seed of all random choices.
            max_bad_pictures: largest number of unreadable pictures; None: `default_max_bad_pictures`.
            still_from: step from which most batches are not moved; None: all batches are moved.
            shard: number of the part of each batch that this process gets, from 0.
            shards: number of parts. All parts together are the batch that a single process would draw.

        Raises:
            ConfigError: a batch cannot be divided into pairs for that many parts.
        """
        if batch_size < 2 or batch_size % (2 * shards):
            raise ConfigError(f"batches of {batch_size} pictures cannot be divided into pairs for {shards} processes")
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self._still_from = still_from
        self._pictures = AugmentedPictures(
            data, picture_size=picture_size, jitter=jitter, max_bad_pictures=max_bad_pictures
        )
        self._all = np.arange(len(data.paths), dtype=np.int32)
        columns = group_columns(data.groups).values()
        values = {index: GroupValues(data.labels[:, place]) for index, place in enumerate(columns)}
        self._groups = {index: group for index, group in values.items() if len(group) > 1}
        couples = batch_size // 2
        self._one_group = [bool(self._groups) and couple % 4 != 3 for couple in range(couples)]
        self._mine = np.array_split(np.arange(couples), shards)[shard].tolist()
        every = [not self._one_group[couple] for couple in 2 * self._mine]
        self.rows_of_all_groups = torch.tensor(every).nonzero().squeeze(1)
        """Rows of the pairs that are drawn for all groups, in this shard. They are the same in each batch."""

    def __getitem__(self, step: int) -> Batch:
        # Every shard draws the whole batch and takes its own part.
        generator = np.random.default_rng((self.seed, step))
        couples = [self._draw_couple(generator, one_group=one_group) for one_group in self._one_group]
        seeds = generator.integers(2**31, size=(len(couples), 2))
        alike = step % 4 != 0
        still = alike and self._still_from is not None and step >= self._still_from

        bad: dict[int, str] = {}
        pictures, placements, indices, groups = [], [], [], []
        for side in (0, 1):
            for couple in self._mine:
                index, picture = self._pictures.read(couples[couple][side], self._all, bad)
                place = (0, 0) if alike else (couple, 0 if self._one_group[couple] else side)
                placement = np.eye(2, 3)
                if not still:
                    picture, placement = self._pictures.move(picture, int(seeds[place]))
                pictures.append(picture)
                placements.append(placement)
                indices.append(index)
                groups.append(couples[couple][2])
        labels = self.data.labels[indices]
        known = np.not_equal(labels, UNKNOWN)
        rows = torch.arange(len(indices))
        return Batch(
            pictures=torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2),
            labels=torch.from_numpy(np.where(known, labels, 0)).float(),
            known=torch.from_numpy(known),
            placement=torch.from_numpy(np.stack(placements)).float(),
            source=rows,
            target=rows.roll(len(self._mine)),
            group=torch.tensor(groups),
            bad=bad,
        )

    def check_bad(self, bad: Mapping[int, str]) -> None:
        """Check the number of unreadable pictures; see `AugmentedPictures`."""
        self._pictures.check_bad(bad)

    def _draw_couple(self, generator: np.random.Generator, *, one_group: bool) -> tuple[int, int, int]:
        """Draw two pictures and the index of the group that they are drawn for."""
        if one_group:
            group = int(generator.choice(list(self._groups)))
            return (*self._groups[group].draw_pair(generator), group)
        first, second = generator.integers(len(self.data.paths), size=2)
        return int(first), int(second), ALL_GROUPS
