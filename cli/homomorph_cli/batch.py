"""`homomorph batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from homomorph_cli.edit import parse_looks
from homomorph_cli.options import RunOption, Server, asks_server
from homomorph_cli.progress import progress_display
from homomorph_cli.works import (
    DEFAULT_FORMAT,
    EditWork,
    FormatOption,
    FullSizeOption,
    MorphWork,
    TranslateWork,
    Work,
    parse_directions,
    print_outcome,
    work_on_folder,
)
from homomorph_client import SettingsError
from homomorph_client.pictures import load_picture
from homomorph_client.strengths import DEFAULT_STEPS

_RAY_WORKERS = 2
"""Default number of Ray's processes."""


@asks_server
def batch(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Pictures, in folders within it too; or parquet files with pictures inside."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of results. Results that it has already are skipped.")],
    server: Server,
    looks: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="GROUP=LABEL[:V]", help="Change each picture towards labels, as `edit` does."),
    ] = None,
    target: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="Morph each picture into this one, as `morph` does.")
    ] = None,
    translate: Annotated[
        str | None,
        typer.Option(metavar="DIRECTION[,...]", help="Change each picture by CycleGANs, as `translate` does."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=2,
            show_default=str(DEFAULT_STEPS),
            help="With --set and --target: frames of each result. Each direction of --translate gives one.",
        ),
    ] = None,
    full_size: FullSizeOption = False,
    run: RunOption = None,
    kind: FormatOption = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="local: this process. ray: processes of Ray Data, on this machine or on a cluster's."),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, show_default=str(_RAY_WORKERS), help="With --engine ray: number of processes, each with the model."
        ),
    ] = None,
) -> None:
    """Edit, morph or translate whole folders, on one machine or on many.

    With Ray, RAY_ADDRESS is the address of the cluster, and all its machines must see the folders at the same paths.
    If a process dies, another one repeats its pictures.
    """
    if sum(given is not None for given in (looks, target, translate)) != 1:
        raise SettingsError("give one of --set, --target and --translate: what to do to each picture")
    if translate is not None and steps is not None:
        raise SettingsError("--steps is for --set and --target: each direction of --translate gives one frame")
    if translate is not None and full_size:
        raise SettingsError("--full-size is for --set and --target: a CycleGAN's frames have its own size")
    if engine == "local" and workers is not None:
        raise SettingsError("--workers is for --engine ray: the engine local works in this process")
    frames = DEFAULT_STEPS if steps is None else steps
    work: Work
    if looks is not None:
        work = EditWork(server, run, *parse_looks(looks), frames, full_size)
    elif target is not None:
        load_picture(target)  # an unreadable target is one error now, instead of one for each picture
        work = MorphWork(server, run, {}, frames, target=str(target.absolute()), full_size=full_size)
    else:
        work = TranslateWork(server, [run] if run else [], parse_directions(translate or ""))
    if engine == "local":
        from homomorph.batch import folder_items

        work_on_folder(folder_items(folder), work, out, kind)
        return
    from homomorph.batch_ray import run_on_ray

    with progress_display() as report:
        outcome = run_on_ray(
            folder, work, out, kind=kind or DEFAULT_FORMAT, workers=workers or _RAY_WORKERS, report=report
        )
    print_outcome(outcome, out)
