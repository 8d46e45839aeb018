"""`homomorph label`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from homomorph_cli.options import AllowMissing
from homomorph_cli.progress import announcing, progress_display


def label(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Data folder in which some labels are unknown (empty cells, or pictures that the table lacks).",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="New table: labels, and each new label's confidence. Its accuracy goes beside it, .json."),
    ],
    size: Annotated[int, typer.Option(min=16, max=512, help="Height and width in pixels that the network sees.")] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of 64 pictures.")] = 1500,
    min_confidence: Annotated[
        float, typer.Option(min=0.5, max=1, help="A label that is read with less confidence stays unknown.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the network and of which pictures are held out.")] = 0,
    allow_missing: AllowMissing = False,
    max_bad_pictures: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="1 % of the set, at least 10",
            help="Largest number of unreadable pictures that are skipped.",
        ),
    ] = None,
) -> None:
    """Label the pictures that have no labels, from those that have."""
    from homomorph.data.labels import read_labelled
    from homomorph.training.labeller import label_set

    data = read_labelled(folder, unlisted=True, allow_missing=allow_missing)
    with progress_display() as report:
        label_set(
            data,
            out,
            steps=steps,
            picture_size=size,
            min_confidence=min_confidence,
            seed=seed,
            max_bad_pictures=max_bad_pictures,
            report=announcing(data.summary(), report),
        )
    figures = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    table = Table("label", "held-out pictures", "accuracy", "by guessing", box=None)
    for name, of in figures["attributes"].items():
        shares = ("-" if of[key] is None else f"{of[key]:.1%}" for key in ("accuracy", "guessing"))
        table.add_row(name, str(of["pictures"]), *shares)
    Console(markup=False, emoji=False).print(table)
    print(f"{out}: labels of {figures['pictures']} pictures; put it in the place of attributes.csv to train on them")
