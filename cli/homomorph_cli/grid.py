"""`homomorph grid`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from homomorph_cli.options import RunOption, Server, asks_server, morpher
from homomorph_client import MethodError, OutputError, StrengthError
from homomorph_client.names import LATENT, Blend
from homomorph_client.output import check_output, write_output
from homomorph_client.pictures import load_picture


@asks_server
def grid(
    pictures: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B [C D]",
            help="A, at the top left, and B, which gives the two groups; or four corners, A B above and C D below.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="X.png", help="Picture to write.")],
    server: Server,
    rows: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="With two pictures: group that goes from A's look to B's down the rows."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="GROUP", help="With two pictures: group that does so along the columns.")
    ] = None,
    method: Annotated[
        Blend | None,
        typer.Option(
            help="With four pictures: how they are mixed. Each is a served model of its name, which `homomorph serve "
            "--model` loads.",
            show_default=LATENT,
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=2, help="Rows, and columns.")] = 5,
    run: RunOption = None,
) -> None:
    """Draw a table of frames: two groups varied against each other, or a square between four pictures.

    A running server computes or, with --run, this process.
    """
    # Check the arguments that do not depend on the model before the first request.
    if out.suffix.lower() != ".png":
        raise OutputError(f"{out}: a grid is written as .png")
    check_output(out)
    if len(pictures) not in (2, 4):
        raise MethodError(f"a grid takes 2 pictures, or 4 for its corners, not {len(pictures)}")
    if len(pictures) == 4:
        if rows is not None or columns is not None:
            raise MethodError("--rows and --columns are for 2 pictures: a square between 4 moves everything")
        corners = [load_picture(picture) for picture in pictures]
        with morpher(server, run) as model:
            frames = model.square(corners, method=method or LATENT, size=size)
    else:
        if method is not None:
            raise MethodError(f"--method {method} is for 4 pictures: it has no groups to vary")
        if rows is None or columns is None:
            raise StrengthError("a grid of 2 pictures needs --rows GROUP and --columns GROUP")
        source, target = (load_picture(picture) for picture in pictures)
        with morpher(server, run) as model:
            frames = model.grid(source, target, rows=rows, columns=columns, size=size)
    lines = [np.concatenate(list(line), axis=1) for line in frames]
    write_output(out, np.concatenate(lines)[np.newaxis])
    typer.echo(out)
