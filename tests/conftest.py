"""What the tests of every folder share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from homomorph_cli.main import run


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def homomorph(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `homomorph` with words of any type, in this process."""

    def command(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["homomorph", *map(str, words)])
        with pytest.raises(SystemExit) as exited:
            run()
        return Outcome(int(exited.value.code or 0), *capsys.readouterr())

    return command
