"""Other styles: labels from their definitions, the same for each seed, and visible."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from homomorph.data.labels import read_labelled
from homomorph.data.provenance import Provenance, read_provenance
from homomorph.data.styles import Style, find_style
from homomorph.models.config import check_groups


@pytest.fixture(scope="module")
def style() -> Style:
    return find_style("big-smile")


def test_components_and_colours_become_groups(style: Style) -> None:
    check_groups(style.groups)
    assert list(style.groups) == ["accessories", "eyes", "hair", "mouth", "hair_colour", "skin_colour"]
    assert style.groups["eyes"][:2] == ("eyes_angry", "eyes_cheery")
    assert all(2 <= len(names) <= 6 for names in style.groups.values())


def test_a_picture_shows_its_labels_and_nothing_else_changes_it(style: Style) -> None:
    looks, other = style.draw_looks(7, 0), style.draw_looks(7, 1)
    assert style.draw_looks(7, 0) == looks != other
    assert style.render_png(looks, 32) == style.render_png(looks, 32) != style.render_png(other, 32)
    worn = {label for label, value in style.labels(looks).items() if value}
    assert worn == {label for label in looks if label}
    picture = np.asarray(Image.open(io.BytesIO(style.render_png(looks, 32))).convert("RGB"))
    assert picture.shape == (32, 32, 3)


def test_the_command_renders_a_style_and_says_what_it_drew(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    outcome = homomorph(
        "render", folder, "--count", 3, "--size", 16, "--style", "big-smile", "--seed", 5, "--workers", 1
    )
    assert outcome.code == 0
    data = read_labelled(folder)
    assert len(data.paths) == 3
    assert "accessories" in data.groups
    assert read_provenance(folder) == Provenance("big-smile", 5, 16)


def test_an_unknown_style_lists_the_styles(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    outcome = homomorph("render", tmp_path / "set", "--style", "cubism")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "there is no style 'cubism'; the styles are adventurer, " in outcome.err
    assert list(tmp_path.iterdir()) == []
