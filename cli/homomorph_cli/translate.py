"""`homomorph translate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from homomorph_cli.options import Out, Server, asks_server, check_no_server
from homomorph_client import DirectionError
from homomorph_client.output import check_output, write_output
from homomorph_client.pictures import fit_picture, load_picture
from homomorph_client.translation import check_directions


@asks_server
def translate(
    source: Annotated[Path, typer.Argument(metavar="PICTURE", help="Picture to change.")],
    steps: Annotated[
        str,
        typer.Option(
            metavar="DIRECTION[,DIRECTION...]",
            help="What to do to it, one after the other, such as not_smiling,blond_hair. Each step is a frame.",
        ),
    ],
    out: Out,
    server: Server,
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="A CycleGAN's run folder or a shipped one's name (smiling64), to compute here instead of on a server. "
            "May be given several times.",
        ),
    ] = None,
) -> None:
    """Change a picture by CycleGANs, in one direction or in several one after the other, on a running server."""
    # Validate all that needs no limit of the model's before the first request.
    if run:
        check_no_server(server)
    for path in out:
        check_output(path)
    names = [name.strip() for name in steps.split(",")]
    if not all(names):
        raise DirectionError("a step has no name: give directions such as smiling, with commas between several")
    picture = load_picture(source)
    if run:
        frames = _computed_here(picture, names, run)
    else:
        with server.client() as client:
            frames = client.translate(picture, names)
    for path in out:
        write_output(path, frames)
        typer.echo(path)


def _computed_here(picture: npt.NDArray[np.uint8], names: list[str], runs: list[str]) -> npt.NDArray[np.uint8]:
    from homomorph.runs.cyclegan import load_translator
    from homomorph.runs.run import resolve_run

    translator = load_translator([resolve_run(run) for run in runs])
    check_directions(translator.directions, names)
    return translator.chained(fit_picture(picture, translator.picture_size), names)
