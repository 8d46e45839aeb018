"""`homomorph translate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.options import Out, Server, asks_server, check_no_server
from homomorph_cli.works import FormatOption, TranslateWork, work_on_folder
from homomorph_client import DirectionError
from homomorph_client.output import check_output, write_output
from homomorph_client.pictures import load_picture


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
    kind: FormatOption = "png",
) -> None:
    """Change a picture by CycleGANs, in one direction or in several one after the other, on a running server.

    Of a folder, each picture in it is changed; what --out has already is skipped, so that an interrupted run goes on.
    """
    # Validate all that needs no limit of the model's before the first request.
    if run:
        check_no_server(server)
    names = [name.strip() for name in steps.split(",")]
    if not all(names):
        raise DirectionError("a step has no name: give directions such as smiling, with commas between several")
    work = TranslateWork(server, run or [], names)
    if source.is_dir():
        from homomorph.batch import folder_items

        items = list(folder_items(source))
        work_on_folder(items, work, out, kind, len(items))
        return
    for path in out:
        check_output(path)
    picture = load_picture(source)
    with work.open() as compute:
        frames = compute([picture])
    for path in out:
        write_output(path, frames)
        typer.echo(path)
