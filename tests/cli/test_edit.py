"""`homomorph edit`'s words."""

from __future__ import annotations

import pytest

from homomorph_cli.edit import parse_looks
from homomorph_client import LabelError, StrengthError


def test_words_become_labels_and_strengths() -> None:
    labels, ends = parse_looks(["hair_colour=blond_hair", "expression=smiling+happy_eyes:1.5", "glasses=none"])
    assert labels == {"hair_colour": ["blond_hair"], "expression": ["smiling", "happy_eyes"], "glasses": []}
    assert ends == {"hair_colour": 1, "expression": 1.5, "glasses": 1}


@pytest.mark.parametrize("look", ["glasses", "=x", "glasses=", "glasses=:1"])
def test_other_words_are_refused(look: str) -> None:
    with pytest.raises(LabelError, match="must be GROUP=LABEL"):
        parse_looks([look])


def test_bad_strengths_and_repeated_groups_are_refused() -> None:
    with pytest.raises(LabelError, match="twice"):
        parse_looks(["a=b", "a=c"])
    with pytest.raises(StrengthError, match="not a number"):
        parse_looks(["a=b:much"])
    with pytest.raises(StrengthError, match="not a number"):
        parse_looks(["a=b:inf"])
