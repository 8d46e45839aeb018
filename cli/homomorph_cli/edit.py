"""`homomorph edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.options import Out, RunOption, Server, asks_server, parse_strength
from homomorph_cli.works import EditWork, FormatOption, FullSizeOption, work_on
from homomorph_client import LabelError
from homomorph_client.strengths import DEFAULT_STEPS


@asks_server
def edit(
    source: Annotated[Path, typer.Argument(metavar="PICTURE", help="Picture to change, or a folder of them.")],
    looks: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="GROUP=LABEL[+LABEL][:V]",
            help="Labels that a group gets, and its strength (from 0; 1 unless given, 2 is twice as far), such as "
            "hair_colour=blond_hair or mouth=smiling:1.5; GROUP=none takes all its labels away. "
            "May be given several times.",
        ),
    ],
    out: Out,
    server: Server,
    steps: Annotated[int, typer.Option(min=2, help="Frames, the picture itself included.")] = DEFAULT_STEPS,
    full_size: FullSizeOption = False,
    run: RunOption = None,
    kind: FormatOption = None,
) -> None:
    """Change a picture towards labels, without a second picture to take the look from.

    A running server computes or, with --run, this process. If PICTURE is a folder, every picture in it is changed.
    Results that --out has already are skipped.
    """
    # Check the arguments that do not depend on the model before the first request.
    labels, ends = parse_looks(looks)
    work_on([source], EditWork(server, run, labels, ends, steps, full_size), out, kind)


def parse_looks(looks: list[str]) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Read `group=label+label:v` words into the labels and the strength of each group.

    Raises:
        LabelError: one is not of that form, or a group is named twice.
        StrengthError: a strength is not a number.
    """
    labels: dict[str, list[str]] = {}
    ends: dict[str, float] = {}
    for look in looks:
        group, equals, rest = look.partition("=")
        names, colon, value = rest.partition(":")
        if not (group and equals and names):
            raise LabelError(f"--set {look!r} must be GROUP=LABEL, such as hair_colour=blond_hair")
        if group in labels:
            raise LabelError(f"--set names {group!r} twice")
        labels[group] = [] if names == "none" else names.split("+")
        ends[group] = parse_strength(look, value) if colon else 1.0
    return labels, ends
