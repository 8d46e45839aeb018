"""Strengths from steps, arrays and mappings, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from homomorph_client.errors import StrengthError
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import Strengths, chosen_strengths, even_ramp, grid_strengths, to_strengths

MODEL = ServedModel("morph", ("hair", "glasses", "residual"), {}, 64, max_steps=256, max_strength=2)


def test_steps_move_all_groups_evenly() -> None:
    strengths = chosen_strengths(MODEL, steps=5, strengths=None)
    assert strengths.dtype == np.float32
    assert np.array_equal(strengths, np.repeat([[0], [0.25], [0.5], [0.75], [1]], 3, axis=1))


def test_nine_steps_unless_told_otherwise() -> None:
    assert chosen_strengths(MODEL, steps=None, strengths=None).shape == (9, 3)


def test_steps_and_strengths_exclude_each_other() -> None:
    with pytest.raises(StrengthError, match="not both"):
        chosen_strengths(MODEL, steps=3, strengths={"hair": 1})


@pytest.mark.parametrize("steps", [-1, 0, 1, 257, 10**12])
def test_steps_out_of_range(steps: int) -> None:
    with pytest.raises(StrengthError, match=f"from 2 to 256, not {steps}"):
        even_ramp(MODEL, steps)


@pytest.mark.parametrize("steps", [2.5, 9.0, "9"])
def test_steps_are_a_whole_number(steps: Any) -> None:
    with pytest.raises(StrengthError, match=f"steps must be a whole number, not {steps!r}"):
        even_ramp(MODEL, steps)
    assert len(even_ramp(MODEL, np.int64(3))) == 3


def test_limits_are_those_of_the_model() -> None:
    narrow = dataclasses.replace(MODEL, max_steps=4, max_strength=1.5)
    with pytest.raises(StrengthError, match="from 2 to 4, not 5"):
        chosen_strengths(narrow, steps=5, strengths=None)
    with pytest.raises(StrengthError, match="1 to 4 frames, not 5"):
        to_strengths(narrow, {"hair": [0, 0, 0, 0, 0]})
    with pytest.raises(StrengthError, match=r"\[0, 1.5\]: found 1.75"):
        to_strengths(narrow, {"hair": 1.75})
    with pytest.raises(StrengthError, match="at most 4 cells: 3x3"):
        grid_strengths(narrow, rows="hair", columns="glasses", size=3)


@pytest.mark.parametrize(
    ("strengths", "expected"),
    [
        ([[0, 1, 2]], [[0, 1, 2]]),
        (np.eye(3, dtype=np.int64), np.eye(3)),
        ({"glasses": [0, 0.5, 1]}, [[0, 0, 0], [0, 0.5, 0], [0, 1, 0]]),
        ({"glasses": [0, 1], "hair": 0.5}, [[0.5, 0, 0], [0.5, 1, 0]]),
        ({"residual": 2}, [[0, 0, 2]]),
    ],
    ids=str,
)
def test_accepted(strengths: Strengths, expected: npt.ArrayLike) -> None:
    result = to_strengths(MODEL, strengths)
    assert result.dtype == np.float32
    assert np.array_equal(result, np.asarray(expected, np.float32))


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ({"beard": 1}, "there is no group 'beard': the model has hair, glasses, residual"),
        ({}, "name no group"),
        ({"hair": "much"}, "must be numbers"),
        ({"hair": "0.5"}, "must be numbers"),
        ({"hair": True}, "must be numbers"),
        ({"hair": None}, "must be numbers"),
        ({"hair": [0, "x"]}, "must be numbers"),
        ({"hair": [0, [1, 2]]}, "must be numbers"),
        ({"hair": [[0, 1]]}, "one number or [S], not [1, 2]"),
        ({"hair": float("nan")}, "finite"),
        ({"hair": [0, float("inf")]}, "finite"),
        ({"hair": -0.1}, "[0, 2]: found -0.1"),
        ({"hair": [0, 2.5]}, "found 0 to 2.5"),
        ({"hair": [0, 1], "glasses": [0, 1, 2]}, "hair 2, glasses 3"),
        ({"hair": []}, "1 to 256 frames, not 0"),
        ([[0, 1]], "must be [S, 3] (columns hair, glasses, residual), not [1, 2]"),
        ([0, 1, 2], "not [3]"),
        (np.zeros((0, 3)), "not 0"),
        (np.zeros((257, 3)), "not 257"),
        (np.full((2, 3), np.nan), "finite"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refused(strengths: Strengths, message: str) -> None:
    with pytest.raises(StrengthError, match=re.escape(message)) as caught:
        to_strengths(MODEL, strengths)
    assert "\n" not in str(caught.value)


def test_grid_varies_two_groups() -> None:
    strengths = grid_strengths(MODEL, rows="glasses", columns="hair", size=3).reshape(3, 3, 3)
    assert (strengths[:, :, 2] == 0).all()
    assert strengths[:, 0, 1].tolist() == [0, 0.5, 1]
    assert (strengths[:, :, 1] == strengths[:, :1, 1]).all()
    assert strengths[0, :, 0].tolist() == [0, 0.5, 1]
    assert (strengths[:, :, 0] == strengths[:1, :, 0]).all()


@pytest.mark.parametrize(
    ("rows", "columns", "size", "message"),
    [
        ("beard", "hair", 3, "no group 'beard'"),
        ("hair", "beard", 3, "no group 'beard'"),
        ("hair", "hair", 3, "different groups"),
        ("hair", "glasses", 1, "from 2"),
        ("hair", "glasses", 17, "17x17"),
    ],
)
def test_grid_refused(rows: str, columns: str, size: int, message: str) -> None:
    with pytest.raises(StrengthError, match=message):
        grid_strengths(MODEL, rows=rows, columns=columns, size=size)
