"""Training batches: pictures in pairs, positionally augmented, drawn anew for each step from the step's number.

A step's batch depends on nothing but (data, seed, step), so a resumed run sees what the interrupted one would have.
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
from homomorph.data.labels import UNKNOWN, LabelledPictures
from homomorph.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """B pictures, their labels, and B pairs among them."""

    pictures: Tensor
    """uint8 [B, 3, H, W]."""
    labels: Tensor
    """float 0/1 [B, L]; 0 where unknown."""
    known: Tensor
    """Which labels are known, bool [B, L]."""
    placement: Tensor
    """Where the augmentation has put each picture, as `torch.nn.functional.affine_grid` takes it, [B, 2, 3]."""
    source: Tensor
    """Index into the pictures, [B]: a of each pair."""
    target: Tensor
    """Index into the pictures, [B]: b of each pair."""
    bad: dict[int, str]
    """Pictures of the data that were drawn but cannot be read, with the reason; others stand in their places."""

    def to(self, device: torch.device) -> Batch:
        """Return the same on another device."""
        moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        return Batch(**moved)


class Peers:
    """For each group, the pictures that agree in all labels of the other groups; only those whose labels are all known.

    Three arrays of integers a group, however many pictures there are: 24 bytes a picture and group at most.
    """

    def __init__(self, data: LabelledPictures) -> None:
        complete = np.flatnonzero(data.known.all(axis=1)).astype(np.int32)
        self._groups: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]] = []
        ends = np.cumsum([len(names) for names in data.groups.values()]).tolist()
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            rest = data.labels[complete]
            rest[:, start:end] = 0
            # One key of a few bytes per picture; pictures of one key stay in their order.
            packed = np.packbits(rest, axis=1)
            _, found = np.unique(packed.view(f"V{packed.shape[1]}").reshape(-1), return_inverse=True)
            order = complete[np.argsort(found, kind="stable")]
            starts = np.concatenate([[0], np.cumsum(np.bincount(found))]).astype(np.int32)
            keys = np.full(len(data.labels), -1, dtype=np.int32)
            keys[complete] = found
            self._groups.append((keys, order, starts))

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self._groups)

    def of(self, index: int, group: int) -> NDArray[np.int32]:
        """Return the pictures that agree with this one outside the group, itself included, in ascending order."""
        keys, order, starts = self._groups[group]
        key = int(keys[index])
        return order[starts[key] : starts[key + 1]] if key >= 0 else order[:0]


class PairedBatches(Dataset[Batch]):
    """Item `step` is the batch of that training step.

    The first half of the pairs is mined: a and b differ in one labelled group, as far as the data has such a
    picture, and both are moved alike: they show each branch what its group alone changes. The second half pairs
    pictures at random, each moved in its own way.
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
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        """Take the data, and which part of each batch is wanted.

        Args:
            data: labelled pictures.
            batch_size: pictures in all shards together.
            picture_size: height and width in pixels.
            jitter: positional augmentation.
            seed: of everything that is drawn.
            max_bad_pictures: how many may be unreadable, see `default_max_bad_pictures`.
            shard: this part.
            shards: parts that each batch has. Together they hold the pictures of the one batch that is drawn
                otherwise; each pairs its own.

        Raises:
            ConfigError: a batch cannot be divided into pairs for that many parts.
        """
        if batch_size % (2 * shards):
            raise ConfigError(f"batches of {batch_size} pictures cannot be divided into pairs for {shards} processes")
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self._pictures = AugmentedPictures(
            data, picture_size=picture_size, jitter=jitter, max_bad_pictures=max_bad_pictures
        )
        self._all = np.arange(len(data.paths), dtype=np.int32)
        self._shard, self._shards = shard, shards
        self._peers = Peers(data)

    def __getitem__(self, step: int) -> Batch:
        # Every shard draws the whole batch, and takes its part.
        generator = np.random.default_rng((self.seed, step))
        half = self.batch_size // 2
        first = generator.integers(len(self.data.paths), size=half)
        second = np.asarray([self._partner(int(index), generator) for index in first], dtype=np.int64)
        augmentations = np.tile(generator.integers(2**31, size=half), (2, 1))
        swap = generator.random(half) < 0.5
        mine = np.array_split(np.arange(half), self._shards)[self._shard]
        half, swap, augmentations = len(mine), swap[mine], augmentations[:, mine].reshape(-1)

        bad: dict[int, str] = {}
        read = [
            self._pictures.read(int(index), self._all, bad) for index in np.concatenate([first[mine], second[mine]])
        ]
        indices = np.asarray([index for index, _ in read], dtype=np.int64)
        moved = [self._pictures.move(picture, seed) for (_, picture), seed in zip(read, augmentations, strict=True)]
        rows = np.arange(half)
        mined_source, mined_target = np.where(swap, rows + half, rows), np.where(swap, rows, rows + half)
        shuffled = np.random.default_rng((self.seed, step, self._shard)).permutation(2 * half)
        labels = self.data.labels[indices]
        known = np.not_equal(labels, UNKNOWN)
        return Batch(
            pictures=torch.from_numpy(np.stack([picture for picture, _ in moved])).permute(0, 3, 1, 2),
            labels=torch.from_numpy(np.where(known, labels, 0)).float(),
            known=torch.from_numpy(known),
            placement=torch.from_numpy(np.stack([placement for _, placement in moved])).float(),
            source=torch.from_numpy(np.concatenate([mined_source, shuffled[:half]])),
            target=torch.from_numpy(np.concatenate([mined_target, shuffled[half:]])),
            bad=bad,
        )

    def check_bad(self, bad: Mapping[int, str]) -> None:
        """Check that not too many pictures are bad; see `AugmentedPictures`."""
        self._pictures.check_bad(bad)

    def _partner(self, index: int, generator: np.random.Generator) -> int:
        """A picture that differs from this one in one group, if a few tries find one; else any."""
        for group in generator.permutation(len(self._peers)).tolist():
            peers = self._peers.of(index, group)
            for candidate in generator.permutation(len(peers))[:4].tolist():
                peer = int(peers[candidate])
                if (self.data.labels[peer] != self.data.labels[index]).any():
                    return peer
        return int(generator.integers(len(self.data.paths)))
