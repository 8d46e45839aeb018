"""Where labels show in pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from homomorph.data.labels import UNKNOWN, LabelledPictures, read_labelled
from homomorph.training.default.method import DefaultMethod
from homomorph.training.default.recipe import DefaultRecipe
from homomorph.training.label_places import label_places
from homomorph.training.settings import MorphPreset


def test_each_group_shows_where_its_parts_are_drawn(folder: Path) -> None:
    data = read_labelled(folder)
    places = dict(zip(data.groups, label_places(data, 32), strict=True))
    for place in places.values():
        torch.testing.assert_close(place.mean(), torch.tensor(1.0))
    # The eyes lie above the mouth, and hair reaches farther than a mouth.
    rows = torch.arange(32.0)
    height = {group: (place.sum(dim=1) * rows).sum() / place.sum() for group, place in places.items()}
    assert height["eyes"] < height["mouth"] < height["clothes_colour"]
    assert (places["mouth"] > 4).sum() < 40
    assert (places["hair_style"] > 0.5).sum() > 200


def test_without_fully_labelled_pictures_all_places_count_alike(data: LabelledPictures) -> None:
    unknown = dataclasses.replace(data, labels=np.full_like(data.labels, UNKNOWN))
    assert (label_places(unknown, 32) == 1).all()


def test_places_move_with_the_pictures(data: LabelledPictures, tiny: MorphPreset) -> None:
    method = DefaultMethod(data, tiny, DefaultRecipe(arrive=1), steps=10)
    batch = method.prepare(method.batches[0])
    still = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand_as(batch.placement)
    shifted = still + torch.tensor([[0.0, 0, 8 * 2 / 32], [0, 0, 0]])
    weights, moved = (method._place_weights(dataclasses.replace(batch, placement=p)) for p in (still, shifted))
    torch.testing.assert_close(moved[..., :24], weights[..., 8:])
    assert weights.amin() >= 1
    alike = DefaultMethod(data, tiny, DefaultRecipe(arrive=1, places=0), steps=10)
    assert (alike._place_weights(batch) == 1).all()
