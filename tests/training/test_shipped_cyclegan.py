"""The CycleGAN that ships with homomorph: it draws another mouth, and leaves the rest of a picture alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from homomorph.data.avatars import FEATURES, draw_looks, render
from homomorph.evaluation.figures import Pictures
from homomorph.runs.cyclegan import load_translator
from homomorph.runs.run import resolve_run

PICTURES = 32
MOUTHS = tuple(next(feature for feature in FEATURES if feature.option == "mouthVariant").looks)


@pytest.fixture(scope="module")
def drawn() -> Pictures:
    """Pictures with each of the mouths, [mouths, PICTURES, 64, 64, 3]; no training or evaluation uses this seed."""
    place = next(place for place, feature in enumerate(FEATURES) if feature.option == "mouthVariant")
    looks = [draw_looks(97, index) for index in range(PICTURES)]
    return np.stack([[render((*worn[:place], mouth, *worn[place + 1 :]), 64) for worn in looks] for mouth in MOUTHS])


@pytest.mark.parametrize("direction", ["smiling", "not_smiling"])
def test_the_mouth_changes_and_nothing_else(drawn: Pictures, direction: str) -> None:
    smile = MOUTHS.index("smiling")
    others = [mouth for mouth in range(len(MOUTHS)) if mouth != smile]
    worn = [smile if direction == "not_smiling" else others[index % len(others)] for index in range(PICTURES)]
    source = drawn[worn, range(PICTURES)]
    changed = load_translator([resolve_run("smiling64")]).changed(direction, torch.from_numpy(source)).numpy()

    # Which of the mouths is it now?
    errors = ((changed.astype(float) - drawn) ** 2).mean(axis=(2, 3, 4))
    smiles = errors.argmin(axis=0) == smile
    assert (smiles == (direction == "smiling")).mean() >= 0.9
    # Where all mouths leave the picture the same, the change does too.
    elsewhere = (drawn == drawn[0]).all(axis=(0, 4))
    assert np.abs(changed.astype(float) - source)[elsewhere].mean() < 2
    white = (source == 255).all(axis=3) & elsewhere
    assert np.abs(changed[white].astype(float) - 255).mean() < 1
