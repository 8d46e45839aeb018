"""Names that client and server share are written once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import homomorph
import homomorph_client
import homomorph_export
from homomorph_client import names

SHARED = {names.MORPH, names.MORPH_STREAM, names.EDIT, names.TRANSLATE, *names.BLENDS}
HOME = Path(names.__file__)
FOLDERS = [Path(package.__path__[0]) for package in (homomorph_client, homomorph_export, homomorph)]
FOLDERS[2] /= "models"  # elsewhere in training `pixel` is also the name of a loss


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_shared_name_is_imported_and_not_written_again(folder: Path) -> None:
    again = [
        f"{path.name}:{node.lineno} {node.value!r}"
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in SHARED and path != HOME
    ]
    assert again == []


def test_methods_are_homomorph_and_the_blends() -> None:
    assert names.METHODS == ("homomorph", "pixel", "latent", "slerp")
    assert (names.HOMOMORPH, *names.BLENDS) == names.METHODS
    assert (names.PIXEL, names.LATENT, names.SLERP) == names.BLENDS
