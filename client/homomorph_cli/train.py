"""`homomorph train`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from homomorph_client.errors import HomomorphError

if TYPE_CHECKING:
    from homomorph.recipe import Recipe


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
        str, typer.Option(help="Networks, picture size, batch and rates: avatars64, avatars128, celeba128, published.")
    ] = "avatars64",
    recipe: Annotated[
        str, typer.Option(help="Weights of the terms: even (ours), published (as in the paper).")
    ] = "even",
    steps: Annotated[int, typer.Option(help="Training steps in all; 0 takes the preset's.")] = 0,
    term: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Another value for one of the recipe's, --set l_path=0; repeatable."
        ),
    ] = [],  # noqa: B006  (typer copies it)
    learning_rate: Annotated[
        float, typer.Option(help="Adam's rate at the start, for E, T_i and D; 0 takes the preset's.")
    ] = 0.0,
    jitter: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            show_default="the preset's",
            help="Share of the pictures that are shifted, scaled and rotated a little; 0 if yours are always aligned.",
        ),
    ] = None,
    accelerator: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, gpu.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32, or bf16: layers compute in bfloat16, weights and losses stay float32.")
    ] = "fp32",
    phi: Annotated[str, typer.Option(help="Perceptual network: small (trained first, no download), vgg19.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and strengths.")] = 0,
    init: Annotated[
        str, typer.Option(help="Run folder, or the name of a shipped model, to start from instead of random weights.")
    ] = "",
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
    """Train a morph model on labelled pictures.

    Several GPUs or machines: `torchrun --nproc-per-node N --no-python homomorph train …` divides each batch among them.
    """
    import dataclasses

    from homomorph.data.labels import read_labelled
    from homomorph.parallel import PRECISIONS, Processes
    from homomorph.recipe import PRESETS, RECIPES
    from homomorph.run import resolve_run
    from homomorph.trainer import train as run_training

    _choose("--method", method, ["homomorph"])
    _choose("--phi", phi, ["small", "vgg19"])
    chosen = PRESETS[_choose("--preset", preset, list(PRESETS))]
    weights = RECIPES[_choose("--recipe", recipe, list(RECIPES))]
    weights = dataclasses.replace(weights, **_recipe_values(term, weights))
    _choose("--accelerator", accelerator, ["auto", "cpu", "gpu"])
    _choose("--precision", precision, list(PRECISIONS))
    if steps < 0 or checkpoint_every < 1 or not 0 <= learning_rate < 1:
        raise HomomorphError(
            "--steps must not be negative, --checkpoint-every must be at least 1, --learning-rate from 0 to 1"
        )
    if learning_rate:
        chosen = dataclasses.replace(chosen, learning_rate=learning_rate)
    if jitter is not None:
        chosen = dataclasses.replace(chosen, jitter=dataclasses.replace(chosen.jitter, probability=jitter))
    if max_bad_pictures is not None and max_bad_pictures < 0:
        raise HomomorphError(f"--max-bad-pictures must not be negative, not {max_bad_pictures}")
    initial = resolve_run(init) if init else None
    data = read_labelled(folder)
    processes = Processes(accelerator, precision)
    if dry_run:
        from homomorph.dry_run import plan

        print(
            plan(
                data,
                preset=chosen,
                recipe=weights,
                steps=steps or chosen.steps,
                phi=phi,
                seed=seed,
                init=initial,
                processes=processes,
            )
        )
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
        init=initial,
        checkpoint_every=checkpoint_every,
        max_bad_pictures=max_bad_pictures,
        processes=processes,
    )
    with Progress(*columns, disable=not processes.first) as progress, contextlib.closing(reports):
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
    if processes.first:
        print(f"{out}: `homomorph export {out} --repository triton_repo` makes it servable")


def _recipe_values(given: list[str], recipe: Recipe) -> dict[str, Any]:
    """Read `--set name=value`; whole numbers stay whole."""
    values: dict[str, Any] = {}
    for item in given:
        name, _, text = item.partition("=")
        if name not in vars(recipe):
            raise HomomorphError(f"--set {item}: the recipe has no {name!r}, but {', '.join(vars(recipe))}")
        try:
            values[name] = type(getattr(recipe, name))(text)
        except ValueError as error:
            raise HomomorphError(f"--set {item}: {text!r} is no number such as {getattr(recipe, name)}") from error
    return values


def _choose(option: str, value: str, allowed: list[str]) -> str:
    if value not in allowed:
        raise HomomorphError(f"{option} must be {' or '.join(allowed)}, not {value!r}")
    return value
