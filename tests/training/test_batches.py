"""Training batches: reproducible, paired as promised, augmented."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from homomorph.data.augmented import Jitter
from homomorph.data.batches import PairedBatches, Peers
from homomorph.data.labels import UNKNOWN, LabelledPictures
from homomorph_client.pictures import fit_picture


def _batches(data: LabelledPictures, probability: float = 1.0) -> PairedBatches:
    return PairedBatches(data, batch_size=8, picture_size=32, jitter=Jitter(probability=probability), seed=1)


def test_a_step_has_one_batch(data: LabelledPictures) -> None:
    batches, again = _batches(data), _batches(data)
    batches[0]  # what was drawn before must not matter
    assert torch.equal(batches[7].pictures, again[7].pictures)
    assert torch.equal(batches[7].labels, again[7].labels)
    assert not torch.equal(batches[7].pictures, batches[8].pictures)


def test_mined_pairs_differ_in_one_group_when_the_data_has_such_pictures() -> None:
    # All combinations of two groups of one label: every picture has partners.
    labels = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.uint8)
    batches = PairedBatches(
        LabelledPictures([Path("a"), Path("b"), Path("c"), Path("d")], labels, {"x": ("p",), "y": ("q",)}),
        batch_size=4,
        picture_size=32,
        jitter=Jitter(),
        seed=0,
    )
    generator = np.random.default_rng(0)
    for index in range(4):
        for _ in range(10):
            partner = batches._partner(index, generator)
            assert (labels[partner] != labels[index]).sum() == 1


def test_peers_agree_outside_the_group_and_are_fully_labelled() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, size=(300, 6)).astype(np.uint8)
    labels[:40, 3] = UNKNOWN
    data = LabelledPictures(
        [Path(str(index)) for index in range(300)], labels, {"x": ("p", "q"), "y": ("r",), "z": ("s", "t", "u")}
    )
    peers = Peers(data)
    for group, columns in enumerate(([0, 1], [2], [3, 4, 5])):
        rest = np.delete(labels, columns, axis=1)
        for index in (0, 39, 40, 150, 299):
            agree = (rest == rest[index]).all(axis=1) & data.known.all(axis=1)
            expected = np.flatnonzero(agree) if index >= 40 else []
            np.testing.assert_array_equal(peers.of(index, group), expected)


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


def test_the_placement_repeats_the_augmentation(data: LabelledPictures) -> None:
    still, moved = _batches(data, 0.0)[0], _batches(data, 1.0)[0]
    assert torch.equal(still.labels, moved.labels)
    originals = still.pictures.float()
    grid = torch.nn.functional.affine_grid(moved.placement, list(originals.shape), align_corners=False)
    placed = torch.nn.functional.grid_sample(originals, grid, padding_mode="border", align_corners=False)
    assert (moved.pictures - originals).abs().mean() > 3
    assert (moved.pictures - placed).abs().mean() < 0.5


def test_mined_pairs_are_moved_alike_and_random_pairs_are_not(data: LabelledPictures) -> None:
    batch = _batches(data)[0]
    placed = batch.placement
    mined, others = slice(None, 4), slice(4, None)
    assert torch.equal(placed[batch.source[mined]], placed[batch.target[mined]])
    assert len(placed.unique(dim=0)) == 4
    differ = (placed[batch.source[others]] != placed[batch.target[others]]).flatten(1).any(dim=1)
    assert differ.any()


def test_pairs_name_pictures_of_the_batch(data: LabelledPictures) -> None:
    batch = _batches(data)[0]
    assert batch.pictures.shape == (8, 3, 32, 32)
    assert batch.pictures.dtype == torch.uint8
    assert batch.labels.shape == (8, 28)
    assert not (batch.source[:4] == batch.target[:4]).any()
    assert set(batch.source.tolist()) | set(batch.target.tolist()) <= set(range(8))
