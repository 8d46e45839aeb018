"""`homomorph edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.options import Out, Server, asks_server
from homomorph_client import LabelError, StrengthError
from homomorph_client.output import check_output, write_output
from homomorph_client.pictures import load_picture
from homomorph_client.strengths import DEFAULT_STEPS, MAX_STEPS, MAX_STRENGTH, even_ramp, to_strengths


@asks_server
def edit(
    source: Annotated[Path, typer.Argument(metavar="PICTURE", help="Picture to change.")],
    looks: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="GROUP=LABEL[+LABEL][:V]",
            help=f"What a group shall show, and how strongly (0 to {MAX_STRENGTH:g}; 1 unless given), such as "
            "hair_colour=blond_hair or expression=smiling+happy_eyes:1.5; GROUP=none takes all its labels away. "
            "May be given several times.",
        ),
    ],
    out: Out,
    server: Server,
    steps: Annotated[int, typer.Option(min=2, max=MAX_STEPS, help="Frames, the picture itself included.")] = (
        DEFAULT_STEPS
    ),
) -> None:
    """Change a picture towards labels on a running server, without a second picture to take the look from."""
    # Whatever can be refused is refused before the server is asked.
    for path in out:
        check_output(path)
    labels, ends = parse_looks(looks)
    picture = load_picture(source)
    ramp = even_ramp(steps)
    with server.client() as client:
        frames = client.edit(picture, labels, strengths={group: end * ramp for group, end in ends.items()})
    for path in out:
        write_output(path, frames)
        typer.echo(path)


def parse_looks(looks: list[str]) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Read `group=label+label:v` words into the labels and the strength of each group.

    Raises:
        LabelError: one is not of that form, or a group is named twice.
        StrengthError: a strength is out of range.
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
        try:
            ends[group] = float(value) if colon else 1.0
        except ValueError:
            raise StrengthError(f"--set {look!r}: {value!r} is not a number from 0 to {MAX_STRENGTH:g}") from None
        to_strengths([group], {group: ends[group]})  # is it in range?
    return labels, ends
