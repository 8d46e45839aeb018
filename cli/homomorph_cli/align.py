"""`homomorph align`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.options import AllowMissing
from homomorph_cli.progress import progress_display
from homomorph_client import SettingsError


def align(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURES", help="A folder of pictures, with a table of labels or without; or one picture."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder for images/ and the labels; for one picture, a new .png.")],
    size: Annotated[int, typer.Option(min=16, max=4096, help="Height and width in pixels.")] = 128,
    allow_missing: AllowMissing = False,
) -> None:
    """Cut photographs square, with the eyes of the largest face at fixed places.

    Pictures without a face, and those that cannot be read, are left out.
    """
    from homomorph.data.align import NOTES_FILE, align_file, align_folder

    if not source.is_dir():
        if allow_missing:
            raise SettingsError("--allow-missing is for a folder with a table of labels, not for one picture")
        faces = align_file(source, out, size=size)
        print(out if faces == 1 else f"{out}: the largest of {faces} faces")
        return
    with progress_display() as report:
        outcome = align_folder(source, out, size=size, allow_missing=allow_missing, report=report)
    print(f"{len(outcome.written)} pictures of {size}x{size} pixels in {out}")
    if outcome.several:
        name = next(iter(outcome.several))
        print(f"the largest of several faces is taken: {len(outcome.several)}, such as {name}")
    if outcome.left_out:
        name, reason = next(iter(outcome.left_out.items()))
        print(f"left out: {len(outcome.left_out)}, such as {name}: {reason}")
    if outcome.several or outcome.left_out:
        print(f"{out / NOTES_FILE} lists them all")
