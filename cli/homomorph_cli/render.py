"""`homomorph render`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.progress import progress_display


def render(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="New folder for images/, attributes.csv and groups.yaml.")
    ],
    count: Annotated[int, typer.Option(min=1, help="Number of pictures.")] = 16000,
    size: Annotated[int, typer.Option(min=16, max=4096, help="Height and width in pixels.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the set. It gives the same pictures on every machine.")] = 0,
    style: Annotated[str, typer.Option(help="DiceBear style. An unknown name lists all styles.")] = "avataaars",
    between: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of pictures whose hair, skin and clothes have colours between two of the palette's, and whose "
            "colour labels are unknown: for training alone.",
        ),
    ] = 0.0,
    workers: Annotated[
        int | None, typer.Option(min=0, show_default="every usable core", help="Processes; 0 renders in this one.")
    ] = None,
) -> None:
    """Render a labelled picture set (avatars with exact labels, on white)."""
    from homomorph.data.render_set import render_set

    with progress_display() as report:
        render_set(
            folder,
            count=count,
            size=size,
            seed=seed,
            workers=workers,
            style=style,
            between=between,
            report=report,
        )
    print(f"{count} pictures of {size}x{size} pixels in {folder}")
