"""`homomorph bench`: what is fast, measured against what it is faster than."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from homomorph_client.errors import HomomorphError

app = typer.Typer(no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure speed: what is compared is timed in turns, in the same run."""


@app.command()
def kernel(
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder that results.json is written into.")],
    repeats: Annotated[int, typer.Option(min=10, help="Turns that count; their median is reported.")] = 30,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="all cores", help="Threads within one operation.")
    ] = None,
) -> None:
    """Time the interpolation operator against torch.baddbmm and a loop over the branches, on the CPU in float32."""
    from rich.console import Console

    from homomorph_bench import kernel as benchmark
    from homomorph_bench.results import table, write

    with Console(stderr=True).status("Loading") as status:
        records = benchmark.run(repeats=repeats, threads=threads or len(os.sched_getaffinity(0)), report=status.update)
    path = write(records, out)
    Console().print(table(records, "interpolation of features"))
    typer.echo(path)


@app.command()
def train(
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder that results.json is written into.")],
    preset: Annotated[str, typer.Option(help="Networks, picture size and batch: published, avatars64.")] = "published",
    repeats: Annotated[int, typer.Option(min=10, help="Turns that count; their median is reported.")] = 10,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="all cores", help="Threads within one operation.")
    ] = None,
) -> None:
    """Time a training step of the published recipe against the published code's order of work, on the CPU in float32.

    Phi has VGG-19's shape and random weights. Takes many minutes, and some 10 GB of memory with preset published.
    """
    from rich.console import Console

    from homomorph.recipe import PRESETS
    from homomorph_bench import train as benchmark
    from homomorph_bench.results import table, write

    if preset not in PRESETS:
        raise HomomorphError(f"--preset must be {' or '.join(PRESETS)}, not {preset!r}")
    with Console(stderr=True).status("Loading") as status:
        records = benchmark.run(
            PRESETS[preset],
            repeats=repeats,
            threads=threads or len(os.sched_getaffinity(0)),
            report=status.update,
        )
    path = write(records, out)
    Console().print(table(records, f"one training step, {preset}"))
    typer.echo(path)
