"""`homomorph translate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.options import Out, Server, asks_server, check_no_server
from homomorph_cli.works import FormatOption, TranslateWork, parse_directions, work_on


@asks_server
def translate(
    source: Annotated[Path, typer.Argument(metavar="PICTURE", help="Picture to change, or a folder of them.")],
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
    kind: FormatOption = None,
) -> None:
    """Change a picture by CycleGANs, in one direction or in several one after the other, on a running server.

    If PICTURE is a folder, every picture in it is changed. Results that --out has already are skipped.
    """
    # Check the arguments that do not depend on the model before the first request.
    if run:
        check_no_server(server)
    work_on([source], TranslateWork(server, run or [], parse_directions(steps)), out, kind)
