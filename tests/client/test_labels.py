"""What an edit asks the server for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from homomorph_client import LabelError, StrengthError
from homomorph_client.labels import chosen_edit
from homomorph_client.served_model import ServedModel

MODEL = ServedModel(
    name="edit",
    groups=("hair", "mouth", "residual"),
    labels={"hair": ("black", "blond"), "mouth": ("smile", "open", "teeth")},
    picture_size=64,
    max_steps=256,
    max_strength=2,
)


def edit(labels: Any, **options: Any) -> tuple[list[float], list[list[float]]]:
    wanted, strengths = chosen_edit(MODEL, labels, **({"steps": None, "strengths": None} | options))
    assert wanted.dtype == strengths.dtype == np.float32
    return wanted.tolist(), strengths.tolist()


def test_named_groups_go_from_zero_to_one() -> None:
    assert edit({"hair": "blond"}, steps=3) == ([0, 1, 0, 0, 0], [[0, 0, 0], [0.5, 0, 0], [1, 0, 0]])
    assert len(edit({"hair": "blond"})[1]) == 9


def test_a_group_may_show_several_labels_or_none() -> None:
    wanted, strengths = edit({"mouth": ["smile", "teeth"], "hair": []}, strengths={"mouth": [2], "hair": [1]})
    assert wanted == [0, 0, 1, 0, 1]
    assert strengths == [[1, 2, 0]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "name no group"),
        (["blond"], "labels must map groups to labels"),
        ({"hair": None}, r"labels of 'hair' must be a name or a list of names \(\[\] is none\), not None"),
        ({"nose": "long"}, "no group 'nose' with labels: the model has hair, mouth"),
        ({"residual": []}, "no group 'residual'"),
        ({"hair": "smile"}, "hair has no label 'smile': it has black, blond"),
    ],
)
def test_unknown_labels_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        edit(labels)


def test_strengths_must_be_of_the_named_groups() -> None:
    with pytest.raises(LabelError, match="strengths move mouth, but"):
        edit({"hair": "blond"}, strengths={"mouth": [1]})
    with pytest.raises(StrengthError, match="not both"):
        edit({"hair": "blond"}, strengths={"hair": [1]}, steps=3)
    with pytest.raises(StrengthError, match=r"\[0, 2\]"):
        edit({"hair": "blond"}, strengths={"hair": [2.5]})
