"""Training batches: reproducible, paired as promised, augmented."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from homomorph.data.augmented import Jitter
from homomorph.data.batches import ALL_GROUPS, GroupValues, PairedBatches
from homomorph.data.labels import UNKNOWN, LabelledPictures
from homomorph.data.loading import load_batches
from homomorph.errors import DataError
from homomorph_client.pictures import fit_picture


def _batches(data: LabelledPictures, probability: float = 1.0, flip: float = 0.0) -> PairedBatches:
    jitter = Jitter(probability=probability, flip=flip)
    return PairedBatches(data, batch_size=8, picture_size=32, jitter=jitter, seed=1)


def test_a_step_has_one_batch(data: LabelledPictures) -> None:
    batches, again = _batches(data), _batches(data)
    batches[0]  # what was drawn before must not matter
    assert torch.equal(batches[7].pictures, again[7].pictures)
    assert torch.equal(batches[7].labels, again[7].labels)
    assert not torch.equal(batches[7].pictures, batches[8].pictures)


def test_a_group_draws_pairs_of_different_known_values_however_rare() -> None:
    labels = np.zeros((300, 2), dtype=np.uint8)
    labels[:3] = (0, 1)
    labels[3:5] = (1, 0)
    labels[5:9, 1] = UNKNOWN
    group = GroupValues(labels)
    assert len(group) == 3
    generator = np.random.default_rng(0)
    pairs = np.array([group.draw_pair(generator) for _ in range(400)])
    assert (labels[pairs] != UNKNOWN).all()
    assert (labels[pairs[:, 0]] != labels[pairs[:, 1]]).any(axis=1).all()
    rare = np.isin(pairs, [3, 4]).mean()
    assert 0.28 < rare < 0.39
    assert len(GroupValues(np.full((5, 2), UNKNOWN, dtype=np.uint8))) == 0


def test_three_quarters_of_the_pairs_are_drawn_for_a_group_in_which_they_differ(data: LabelledPictures) -> None:
    batches = _batches(data)
    ends = np.cumsum([len(names) for names in data.groups.values()])
    seen = set()
    for step in range(12):
        batch = batches[step]
        every = (batch.group == ALL_GROUPS).nonzero().squeeze(1)
        assert torch.equal(every, batches.rows_of_all_groups)
        assert len(every) == 2
        for pair in (batch.group != ALL_GROUPS).nonzero().squeeze(1).tolist():
            group = int(batch.group[pair])
            seen.add(group)
            columns = slice(int(ends[group]) - len(list(data.groups.values())[group]), int(ends[group]))
            a, b = batch.labels[batch.source[pair], columns], batch.labels[batch.target[pair], columns]
            assert not torch.equal(a, b)
    assert seen == set(range(len(data.groups)))


def test_without_labels_all_pairs_are_drawn_for_all_groups(data: LabelledPictures) -> None:
    batches = _batches(dataclasses.replace(data, labels=np.full_like(data.labels, UNKNOWN)))
    assert (batches[0].group == ALL_GROUPS).all()
    assert batches.rows_of_all_groups.tolist() == list(range(8))


def test_unknown_labels_are_masked_in_a_batch(data: LabelledPictures) -> None:
    labels = data.labels.copy()
    labels[::2, :5] = UNKNOWN
    whole, partial = _batches(data)[0], _batches(dataclasses.replace(data, labels=labels))[0]
    assert whole.known.all()
    assert not partial.known[:, :5].all()
    assert partial.known[:, 5:].all()
    assert (partial.labels[~partial.known] == 0).all()


def test_a_bad_picture_is_replaced_by_the_next_with_its_own_labels(data: LabelledPictures, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    paths = [tmp_path / "bad.png" if index % 12 in (5, 6) else path for index, path in enumerate(data.paths)]
    batches = _batches(dataclasses.replace(data, paths=paths), 0.0)
    again = _batches(dataclasses.replace(data, paths=paths), 0.0)
    originals = {fit_picture(path, 32).tobytes(): index for index, path in enumerate(data.paths)}
    bad = dict(again[3].bad)
    for step in range(3):
        bad |= batches[step].bad
    assert {index % 12 for index in bad} == {5, 6}
    # What was met before does not matter.
    assert torch.equal(batches[3].pictures, again[3].pictures)
    assert batches[3].bad == again[3].bad
    for picture, labels in zip(batches[3].pictures, batches[3].labels, strict=True):
        index = originals[np.ascontiguousarray(picture.permute(1, 2, 0)).tobytes()]
        assert index % 12 not in (5, 6)
        np.testing.assert_array_equal(labels, data.labels[index])


def test_pictures_of_any_size_and_shape_fit(tmp_path: Path) -> None:
    sizes = [(32, 32), (200, 90), (40, 301), (33, 17), (8, 8)]
    for index, size in enumerate(sizes):
        Image.new("RGB" if index % 2 else "L", size, 10 * index).save(tmp_path / f"{index}.png")
    paths = [tmp_path / f"{index}.png" for index in range(len(sizes))]
    labels = np.eye(len(sizes), dtype=np.uint8)
    batch = _batches(LabelledPictures(paths, labels, {"x": tuple("abcde")}))[0]
    assert batch.pictures.shape == (8, 3, 32, 32)
    assert not batch.bad


def test_pictures_are_moved_by_the_augmentation_alone(data: LabelledPictures) -> None:
    still, moved = _batches(data, 0.0), _batches(data, 1.0)
    originals = {fit_picture(path, 32).tobytes() for path in data.paths}

    def share_original(batches: PairedBatches) -> float:
        pictures = [picture for step in range(4) for picture in batches[step].pictures.permute(0, 2, 3, 1).numpy()]
        return sum(np.ascontiguousarray(p).tobytes() in originals for p in pictures) / len(pictures)

    assert share_original(still) == 1
    assert share_original(moved) < 0.2


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_placement_repeats_the_augmentation(data: LabelledPictures, flip: float) -> None:
    still, moved = _batches(data, 0.0)[0], _batches(data, 1.0, flip)[0]
    assert torch.equal(still.labels, moved.labels)
    originals = still.pictures.float()
    grid = torch.nn.functional.affine_grid(moved.placement, list(originals.shape), align_corners=False)
    placed = torch.nn.functional.grid_sample(originals, grid, padding_mode="border", align_corners=False)
    assert (moved.pictures - originals).abs().mean() > 3
    assert (moved.pictures - placed).abs().mean() < 0.5


def test_flipped_pictures_are_mirrored(data: LabelledPictures) -> None:
    still, flipped = _batches(data, 0.0)[0].pictures, _batches(data, 0.0, flip=1.0)[0].pictures
    assert torch.equal(flipped, still.flip(3))
    some = torch.cat([_batches(data, 0.0, flip=0.5)[step].placement[:, 0, 0] for step in range(20)])
    assert 0.3 < (some < 0).float().mean() < 0.7


def test_pictures_are_moved_alike_but_for_random_pairs_in_one_batch_of_four(data: LabelledPictures) -> None:
    batches = PairedBatches(data, batch_size=16, picture_size=32, jitter=Jitter(probability=1), seed=1)
    for step in range(8):
        batch = batches[step]
        alike = (batch.placement[batch.source] == batch.placement[batch.target]).flatten(1).all(dim=1)
        one_group = batch.group != ALL_GROUPS
        assert alike[one_group].all()
        assert alike[~one_group].any().item() == (step % 4 > 0)
        assert len(batch.placement.unique(dim=0)) == (1 if step % 4 else 10), "6 pairs of one group, 2 of all"


def test_each_picture_is_a_of_one_pair_and_b_of_another(data: LabelledPictures) -> None:
    batch = _batches(data)[0]
    assert batch.pictures.shape == (8, 3, 32, 32)
    assert batch.pictures.dtype == torch.uint8
    assert batch.labels.shape == (8, 32)
    assert sorted(batch.source.tolist()) == sorted(batch.target.tolist()) == list(range(8))
    assert not (batch.source == batch.target).any()


class _NeverArrives:
    """Batches that a worker cannot send, as when /dev/shm is full."""

    def __getitem__(self, step: int) -> Callable[[], None]:
        return lambda: None  # functions without a name cannot be pickled

    def check_bad(self, bad: object) -> None:
        """Not called."""


@pytest.mark.timeout(30)
def test_a_batch_that_cannot_be_sent_is_not_waited_for() -> None:
    with pytest.raises(DataError, match="a process that reads pictures ended"):
        next(load_batches(_NeverArrives(), range(3), 1, {}))  # type: ignore[type-var]


@pytest.mark.timeout(60)
def test_workers_start_although_opencv_has_threads(data: LabelledPictures) -> None:
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        cv2.warpAffine(np.zeros((999, 999, 3), np.uint8), np.eye(2, 3), (999, 999))  # which starts them
        next(load_batches(_batches(data), range(3), 1, {}))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(threads)
