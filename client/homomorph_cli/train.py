"""`homomorph train`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from homomorph_client.errors import HomomorphError


def train(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Labelled pictures: images/, groups.yaml, and attributes.csv or list_attr_celeba.txt."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write: config.json, model.safetensors, strips.png, logs.")],
    method: Annotated[str, typer.Option(help="homomorph.")] = "homomorph",
    preset: Annotated[
        str, typer.Option(help="Networks, picture size, batch and rates: avatars64, published.")
    ] = "avatars64",
    recipe: Annotated[
        str, typer.Option(help="Weights of the terms: even (ours), published (as in the paper).")
    ] = "even",
    steps: Annotated[int, typer.Option(help="Training steps in all; 0 takes the preset's.")] = 0,
    phi: Annotated[str, typer.Option(help="Perceptual network: small (trained first, no download), vgg19.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and strengths.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    max_bad_pictures: Annotated[
        int | None,
        typer.Option(help="Unreadable pictures that are skipped before the run stops; 1 % of the set, at least 10."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print networks, parameters, memory and configuration; train and write nothing."
        ),
    ] = False,
) -> None:
    """Train a morph model on labelled pictures."""
    from homomorph.data.labels import read_labelled
    from homomorph.recipe import PRESETS, RECIPES
    from homomorph.trainer import train as run_training

    _choose("--method", method, ["homomorph"])
    _choose("--phi", phi, ["small", "vgg19"])
    chosen = PRESETS[_choose("--preset", preset, list(PRESETS))]
    weights = RECIPES[_choose("--recipe", recipe, list(RECIPES))]
    if steps < 0 or checkpoint_every < 1:
        raise HomomorphError("--steps must not be negative and --checkpoint-every must be at least 1")
    if max_bad_pictures is not None and max_bad_pictures < 0:
        raise HomomorphError(f"--max-bad-pictures must not be negative, not {max_bad_pictures}")
    data = read_labelled(folder)
    if dry_run:
        from homomorph.dry_run import plan

        print(plan(data, preset=chosen, recipe=weights, steps=steps or chosen.steps, phi=phi, seed=seed))
        return
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[report]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    reports = run_training(
        data,
        out,
        preset=chosen,
        recipe=weights,
        steps=steps or chosen.steps,
        phi=phi,
        seed=seed,
        resume=resume,
        checkpoint_every=checkpoint_every,
        max_bad_pictures=max_bad_pictures,
    )
    with Progress(*columns) as progress, contextlib.closing(reports):
        task = progress.add_task("", total=None, report="")
        for report in reports:
            shown = ("phi", "pixel", "projection", "picture")
            terms = "  ".join(f"{name} {report.terms[name]:.3f}" for name in shown if name in report.terms)
            progress.update(
                task,
                description=report.phase,
                completed=report.step,
                total=report.steps,
                report=f"{terms}  {report.pictures_per_s:.0f} pictures/s",
            )
    print(f"{out}: `homomorph export {out} --repository triton_repo` makes it servable")


def _choose(option: str, value: str, allowed: list[str]) -> str:
    if value not in allowed:
        raise HomomorphError(f"{option} must be {' or '.join(allowed)}, not {value!r}")
    return value
