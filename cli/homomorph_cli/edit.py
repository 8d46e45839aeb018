"""`homomorph edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.options import Out, RunOption, Server, asks_server, morpher, parse_strength
from homomorph_client import LabelError
from homomorph_client.names import EDIT
from homomorph_client.output import check_output, write_output
from homomorph_client.pictures import load_picture
from homomorph_client.strengths import DEFAULT_STEPS, even_ramp


@asks_server
def edit(
    source: Annotated[Path, typer.Argument(metavar="PICTURE", help="Picture to change.")],
    looks: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="GROUP=LABEL[+LABEL][:V]",
            help="What a group shall show, and how strongly (from 0; 1 unless given, 2 is twice as far), such as "
            "hair_colour=blond_hair or expression=smiling+happy_eyes:1.5; GROUP=none takes all its labels away. "
            "May be given several times.",
        ),
    ],
    out: Out,
    server: Server,
    steps: Annotated[int, typer.Option(min=2, help="Frames, the picture itself included.")] = DEFAULT_STEPS,
    run: RunOption = None,
) -> None:
    """Change a picture towards labels, without a second picture to take the look from.

    A running server computes or, with --run, this process.
    """
    # Validate all that needs no limit of the model's before the first request.
    for path in out:
        check_output(path)
    labels, ends = parse_looks(looks)
    picture = load_picture(source)
    with morpher(server, run) as model:
        ramp = even_ramp(model.served_model(EDIT), steps)
        frames = model.edit(picture, labels, strengths={group: end * ramp for group, end in ends.items()})
    for path in out:
        write_output(path, frames)
        typer.echo(path)


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
