"""Training batches: reproducible, paired as promised, augmented."""

from __future__ import annotations

import numpy as np
import torch

from homomorph.data.batches import Jitter, PairedBatches
from homomorph.data.labels import LabelledPictures
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
    pictures = tuple(range(4))
    batches = PairedBatches(
        LabelledPictures(pictures, labels, {"x": ("p",), "y": ("q",)}),  # type: ignore[arg-type]
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


def test_pairs_name_pictures_of_the_batch(data: LabelledPictures) -> None:
    batch = _batches(data)[0]
    assert batch.pictures.shape == (8, 3, 32, 32)
    assert batch.pictures.dtype == torch.uint8
    assert batch.labels.shape == (8, 28)
    assert not (batch.source[:4] == batch.target[:4]).any()
    assert set(batch.source.tolist()) | set(batch.target.tolist()) <= set(range(8))
