"""`homomorph render`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def render(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="New folder for images/, attributes.csv and groups.yaml.")
    ],
    count: Annotated[int, typer.Option(help="Number of pictures.")] = 16000,
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 64,
    seed: Annotated[int, typer.Option(help="Which set: each seed gives its own pictures, the same everywhere.")] = 0,
    style: Annotated[str, typer.Option(help="DiceBear style; any name that is none lists them.")] = "avataaars",
    workers: Annotated[int, typer.Option(help="Processes; 0 takes every usable core.")] = 0,
) -> None:
    """Render a labelled picture set (avatars with exact labels, on white)."""
    from homomorph.data.render_set import render_set

    rendering = render_set(folder, count=count, size=size, seed=seed, workers=workers or None, style=style)
    columns = (TextColumn("rendering"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with (
        Progress(*columns) as progress,
        contextlib.closing(rendering) as rendered,  # removes an unfinished folder on Ctrl-C
    ):
        task = progress.add_task("", total=count)
        for done in rendered:
            progress.update(task, completed=done)
    print(f"{count} pictures of {size}x{size} pixels in {folder}")


class _Rate(TextColumn):
    """Pictures per second."""

    def __init__(self) -> None:
        super().__init__("{task.speed:.0f} pictures/s")

    def render(self, task):  # type: ignore[no-untyped-def]
        """Show nothing until there is a speed."""
        return super().render(task) if task.speed else ""
