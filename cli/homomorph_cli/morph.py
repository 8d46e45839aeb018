"""`homomorph morph`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.options import MethodOption, Out, RunOption, Server, asks_server, parse_strength
from homomorph_cli.works import FormatOption, FullSizeOption, MorphWork, work_on
from homomorph_client import MethodError, StrengthError
from homomorph_client.names import HOMOMORPH
from homomorph_client.strengths import DEFAULT_STEPS


@asks_server
def morph(
    source: Annotated[Path, typer.Argument(metavar="A", help="Picture to start from, or a folder of them.")],
    target: Annotated[Path, typer.Argument(metavar="B", help="Picture to reach, or a folder of them.")],
    out: Out,
    server: Server,
    steps: Annotated[int, typer.Option(min=2, help="Frames, A and B included.")] = DEFAULT_STEPS,
    sliders: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="GROUP=V",
            help="Take only this group from B: its strength goes from 0 to V; 1 is as in B, 2 twice as far. "
            "May be given several times; without it, every group goes from 0 to 1.",
        ),
    ] = None,
    method: MethodOption = HOMOMORPH,
    full_size: FullSizeOption = False,
    run: RunOption = None,
    kind: FormatOption = None,
) -> None:
    """Morph one picture into another, on a running server or, with --run, in this process.

    Pictures may have any size: their centre is cropped to a square and resized to the model's size, which is also that
    of the frames unless --full-size is given. If A and B are folders, pictures of the same name are morphed. Results
    that --out has already are skipped.
    """
    # Check the arguments that do not depend on the model before the first request.
    ends = parse_sliders(sliders or [])
    if ends and method != HOMOMORPH:
        raise MethodError(f"--set is for --method {HOMOMORPH}: {method} has one slider for everything")
    if full_size and method != HOMOMORPH:
        raise MethodError(f"--full-size is for --method {HOMOMORPH}")
    work_on([source, target], MorphWork(server, run, ends, steps, method, full_size=full_size), out, kind)


def parse_sliders(sliders: list[str]) -> dict[str, float]:
    """Read `group=v` words.

    Raises:
        StrengthError: one is not of that form, or a group is named twice.
    """
    ends: dict[str, float] = {}
    for slider in sliders:
        group, equals, value = slider.partition("=")
        if not (group and equals):
            raise StrengthError(f"--set {slider!r} must be GROUP=V, such as glasses=1")
        if group in ends:
            raise StrengthError(f"--set names {group!r} twice")
        ends[group] = parse_strength(slider, value)
    return ends
