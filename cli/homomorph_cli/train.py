"""`homomorph train`."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars

from homomorph_cli.options import AllowMissing
from homomorph_client.errors import HomomorphError

if TYPE_CHECKING:
    from collections.abc import Generator

    from homomorph.data.augmented import Jitter
    from homomorph.training.loop import Progress
    from homomorph.training.recipe import Recipe

_SHOWN = ("phi", "label_prior", "pixel", "projection", "picture", "adversarial", "cycle", "discriminator")
"""Terms whose values are shown beside the bar, where a method has them."""


def train(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Labelled pictures: images/, groups.yaml, and attributes.csv or list_attr_celeba.txt."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write: config.json, model.safetensors, strips.png, logs.")],
    method: Annotated[str, typer.Option(help="homomorph, or cyclegan: two networks that switch one attribute.")] = (
        "homomorph"
    ),
    attribute: Annotated[str, typer.Option(help="With --method cyclegan: the attribute to add and to take away.")] = "",
    preset: Annotated[
        str,
        typer.Option(
            show_default="avatars64, or cyclegan64",
            help="Networks, picture size, batch and rates: avatars64, avatars128, celeba128, published; with --method "
            "cyclegan cyclegan64, cyclegan256.",
        ),
    ] = "",
    generator: Annotated[
        str,
        typer.Option(
            show_default="the preset's",
            help="With --method cyclegan: resnet_6blocks, resnet_9blocks, unet_64, unet_128 or unet_256.",
        ),
    ] = "",
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
    batch_size: Annotated[
        int, typer.Option(help="Pictures a step, even; 0 takes the preset's. A GPU has room for many more than a CPU.")
    ] = 0,
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
    workers: Annotated[
        int,
        typer.Option(
            min=0, show_default="one for every two cores, at most 8", help="Processes that read and move pictures."
        ),
    ] = 0,
    allow_missing: AllowMissing = False,
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
    from homomorph.data.labels import read_labelled
    from homomorph.data.loading import default_workers
    from homomorph.training.parallel import PRECISIONS, Processes

    _choose("--method", method, ["homomorph", "cyclegan"])
    _choose("--phi", phi, ["small", "vgg19"])
    _choose("--accelerator", accelerator, ["auto", "cpu", "gpu"])
    _choose("--precision", precision, list(PRECISIONS))
    if min(steps, batch_size) < 0 or checkpoint_every < 1 or not 0 <= learning_rate < 1:
        raise HomomorphError(
            "--steps and --batch-size must not be negative, --checkpoint-every must be at least 1, --learning-rate "
            "from 0 to 1"
        )
    if max_bad_pictures is not None and max_bad_pictures < 0:
        raise HomomorphError(f"--max-bad-pictures must not be negative, not {max_bad_pictures}")

    given = {"learning_rate": learning_rate, "batch_size": batch_size}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value}
    if method == "cyclegan":
        from homomorph.models.cyclegan_config import GENERATORS
        from homomorph.training.cyclegan_recipe import CYCLEGAN_PRESETS
        from homomorph.training.cyclegan_trainer import train_cyclegan

        _refuse(
            "is not offered with --method cyclegan",
            {
                "--set": term,
                "--init": init,
                "--dry-run": dry_run,
                "--recipe": recipe != "even",
                "--phi": phi != "small",
            },
        )
        if not attribute:
            raise HomomorphError("--method cyclegan needs --attribute NAME, one of the labels")
        pair = CYCLEGAN_PRESETS[_choose("--preset", preset or "cyclegan64", list(CYCLEGAN_PRESETS))]
        if generator:
            changes["generator"] = _choose("--generator", generator, list(GENERATORS))
        pair = dataclasses.replace(pair, jitter=_with_probability(pair.jitter, jitter), **changes)
        processes = Processes(accelerator, precision)
        data = read_labelled(folder, allow_missing=allow_missing)
        reports = train_cyclegan(
            data,
            attribute,
            out,
            preset=pair,
            steps=steps or pair.steps,
            seed=seed,
            resume=resume,
            checkpoint_every=checkpoint_every,
            workers=workers or default_workers(),
            max_bad_pictures=max_bad_pictures,
            processes=processes,
        )
    else:
        from homomorph.runs.run import resolve_run
        from homomorph.training.recipe import PRESETS, RECIPES
        from homomorph.training.trainer import train as train_homomorph

        _refuse("is for --method cyclegan", {"--attribute": attribute, "--generator": generator})
        chosen = PRESETS[_choose("--preset", preset or "avatars64", list(PRESETS))]
        chosen = dataclasses.replace(chosen, jitter=_with_probability(chosen.jitter, jitter), **changes)
        weights = RECIPES[_choose("--recipe", recipe, list(RECIPES))]
        weights = dataclasses.replace(weights, **_recipe_values(term, weights))
        initial = resolve_run(init) if init else None
        data = read_labelled(folder, allow_missing=allow_missing)
        processes = Processes(accelerator, precision)
        if dry_run:
            from homomorph.training.dry_run import plan

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
        reports = train_homomorph(
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
            workers=workers or default_workers(),
            max_bad_pictures=max_bad_pictures,
            processes=processes,
        )
    _show(reports, data.summary(), shown=processes.first)
    if processes.first:
        print(f"{out}: `homomorph export {out} --repository triton_repo` makes it servable")


def _show(reports: Generator[Progress, None, None], summary: str, *, shown: bool) -> None:
    """Run a training, say what it begins from, and show how far it is."""
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[report]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with ProgressBars(*columns, disable=not shown) as progress, contextlib.closing(reports):
        task = progress.add_task("", total=None, report="")
        for report in reports:
            if summary and shown:
                progress.console.print(summary, soft_wrap=True, markup=False, highlight=False)
                summary = ""
            terms = "  ".join(f"{name} {report.terms[name]:.3f}" for name in _SHOWN if name in report.terms)
            progress.update(
                task,
                description=report.phase,
                completed=report.step,
                total=report.steps,
                report=f"{terms}  {report.pictures_per_s:.0f} pictures/s",
            )


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


def _refuse(why: str, given: dict[str, object]) -> None:
    """Refuse options that the method would ignore."""
    for option, value in given.items():
        if value:
            raise HomomorphError(f"{option} {why}")


def _with_probability(jitter: Jitter, probability: float | None) -> Jitter:
    return jitter if probability is None else dataclasses.replace(jitter, probability=probability)


def _choose(option: str, value: str, allowed: list[str]) -> str:
    if value not in allowed:
        raise HomomorphError(f"{option} must be {' or '.join(allowed)}, not {value!r}")
    return value
