"""`homomorph grid`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from homomorph_cli.options import Server, asks_server
from homomorph_client import OutputError
from homomorph_client.output import check_output, write_output
from homomorph_client.pictures import load_picture
from homomorph_client.strengths import MAX_STEPS


@asks_server
def grid(
    source: Annotated[Path, typer.Argument(metavar="A", help="Picture at the top left.")],
    target: Annotated[Path, typer.Argument(metavar="B", help="Picture that both groups are taken from.")],
    rows: Annotated[str, typer.Option(metavar="GROUP", help="Group that goes from A's to B's down the rows.")],
    columns: Annotated[str, typer.Option(metavar="GROUP", help="Group that does so along the columns.")],
    out: Annotated[Path, typer.Option(metavar="X.png", help="Picture to write.")],
    server: Server,
    size: Annotated[int, typer.Option(min=2, max=math.isqrt(MAX_STEPS), help="Rows, and columns.")] = 5,
) -> None:
    """Vary two groups against each other on a running server, in one request, and draw the frames as a table."""
    # Whatever can be refused is refused before the server is asked.
    if out.suffix.lower() != ".png":
        raise OutputError(f"{out}: a grid is written as .png")
    check_output(out)
    pictures = load_picture(source), load_picture(target)
    with server.client() as client:
        frames = client.grid(*pictures, rows=rows, columns=columns, size=size)
    lines = [np.concatenate(list(line), axis=1) for line in frames]
    write_output(out, np.concatenate(lines)[np.newaxis])
    typer.echo(out)
