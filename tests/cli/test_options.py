"""What all commands' options have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from homomorph_cli.main import app


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words and the command of each command that does something."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_is_not_given_is_none(words: tuple[str, ...]) -> None:
    """Not an empty word, nor a number that stands for something else."""
    for parameter in COMMANDS[words].params:
        assert parameter.default != "", parameter.name
        help_text = getattr(parameter, "help", None) or ""
        assert "0 takes" not in help_text, parameter.name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "avatars64", "--calibration", "."], "--calibration is for --precision int8"),
        (["export", "avatars64", "--precision", "fp8"], "'fp8' is not one of 'fp32'"),
        (["import", "cyclegan", "x.pth", "--out", "out", "--generator", "vit"], "generator must be resnet_6blocks or "),
        (["label", ".", "--out", "out.csv", "--steps", "0"], "greater than or equal to 1"),
        (["label", ".", "--out", "out.csv", "--max-bad-pictures", "-1"], "greater than or equal to 0"),
        (["render", "out", "--count", "0"], "greater than or equal to 1"),
        (["render", "out", "--workers", "-1"], "greater than or equal to 0"),
        (["train", ".", "--out", "out", "--seed", "-1"], "greater than or equal to 0"),
        (["bench", "model", "--out", "out", "--packages", "p"], "give --runtime aotinductor too"),
        (["bench", "kernel", "--out", "out", "--dtype", "int8"], "'int8' is not one of 'float32'"),
        (["align", "x.jpg", "--out", "x.png", "--allow-missing"], "--allow-missing is for a folder"),
        (["batch", ".", "--out", "out", "--set", "glasses=none", "--workers", "2"], "--workers is for --engine ray"),
        (["batch", ".", "--out", "out", "--translate", "smiling", "--steps", "3"], "--steps is for --set and --target"),
        (
            ["evaluate", "x", "--data", ".", "--out", "out", "--judge", "efficientnet", "--evaluator-steps", "9"],
            "--evaluator-steps is for --judge classifier",
        ),
        (
            ["train", ".", "--out", "out", "--method", "cyclegan", "--attribute", "smiling", "--recipe", "default"],
            "--recipe is for --method homomorph",
        ),
        (["ui", "--run", "avatars64", "--repository", "."], "--repository is for a server that is started here"),
    ],
)
def test_what_would_do_nothing_is_refused_in_one_line(
    homomorph: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = homomorph(*words)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert said in outcome.err
    assert list(tmp_path.iterdir()) == []
