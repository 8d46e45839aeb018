"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[
    list[Path],
    typer.Option(
        metavar="PATH",
        help=".png (all frames side by side), .gif (a loop there and back), .mp4, or a folder for one .png each. "
        "May be given several times.",
    ),
]
Url = Annotated[str, typer.Option(metavar="HOST:PORT", help="Triton's gRPC address.")]
TimeoutS = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="Longest wait for an answer.")]
