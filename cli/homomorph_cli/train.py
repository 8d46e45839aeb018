"""`homomorph train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from homomorph_cli.options import AllowMissing
from homomorph_client.errors import HomomorphError

if TYPE_CHECKING:
    from homomorph.progress import Progress

_DISPLAYED = (
    *("reconstruction", "arrive", "labels", "front"),  # default
    *("phi", "phi3", "pixel"),  # published
    *("adversarial", "cycle"),  # cyclegan
    "pictures/s",
)
"""Figures that are shown while training, where a recipe has them; TensorBoard has all."""


def train(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Labelled pictures: images/, groups.yaml, and attributes.csv or list_attr_celeba.txt."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write: config.json, model.safetensors, strips.png, logs.")],
    method: Annotated[
        Literal["homomorph", "cyclegan"], typer.Option(help="cyclegan: two networks that switch one --attribute.")
    ] = "homomorph",
    preset: Annotated[
        str | None,
        typer.Option(
            show_default="avatars64 or cyclegan64",
            help="Networks, picture size, recipe, batch, steps and rates: avatars64, avatars128, faces, celeba128, "
            "published; cyclegan64, cyclegan256; or a YAML file of your own.",
        ),
    ] = None,
    recipe: Annotated[
        Literal["default", "published"] | None,
        typer.Option(show_default="the preset's", help="The losses: default (ours), published (the paper's)."),
    ] = None,
    attribute: Annotated[
        str | None, typer.Option(help="With --method cyclegan: the attribute to add and to take away.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another value than the preset's, such as steps=4000, learning_rate=2e-4, recipe.front=0, "
            "jitter.probability=0, generator=unet_64; repeatable. --dry-run prints all names.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, show_default="the preset's", help="Training steps in all.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Labelled pictures that do not train: transfer, preservation, ghost and frechet of 64 pairs of them "
            "go to TensorBoard at each checkpoint.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Run folder, or the name of a shipped model, to start from instead of random weights: E, D, and the "
            "T_i of the groups that both have."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in --out.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, batches and strengths.")] = 0,
    accelerator: Annotated[
        Literal["auto", "cpu", "gpu"], typer.Option(help="auto takes a GPU where there is one.")
    ] = "auto",
    precision: Annotated[
        Literal["fp32", "bf16"],
        typer.Option(help="bf16: layers compute in bfloat16, weights and losses stay float32; slow on older CPUs."),
    ] = "fp32",
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, show_default="one for every two cores, at most 8", help="Processes that read and augment pictures."
        ),
    ] = None,
    allow_missing: AllowMissing = False,
    max_bad_pictures: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="1 % of the set, at least 10",
            help="Unreadable pictures that are skipped before the run stops.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print networks, parameters, memory and configuration; train and write nothing."
        ),
    ] = False,
) -> None:
    """Train a model on labelled pictures.

    On several GPUs or machines: `torchrun --nproc-per-node N --no-python homomorph train …` divides each batch.
    """
    from homomorph.data.labels import fingerprint, read_labelled
    from homomorph.data.loading import default_workers, report_skipped
    from homomorph.evaluation.checkpoint_figures import prepare_checkpoint_figures
    from homomorph.progress import silent
    from homomorph.runs.run import resolve_run
    from homomorph.training.loop import train as run_training
    from homomorph.training.methods import make_method
    from homomorph.training.morph_method import MorphMethod
    from homomorph.training.parallel import Processes
    from homomorph.training.settings import MorphPreset, read_preset
    from homomorph_cli.progress import announcing, progress_display

    # Options take precedence over the preset.
    given = list(changes or [])
    if steps is not None:
        given.append(f"steps={steps}")
    if attribute is not None:
        given.append(f"attribute={attribute}")
    if method == "cyclegan" and attribute is None:
        raise HomomorphError("--method cyclegan needs --attribute NAME, one of the labels")
    default = "cyclegan64" if method == "cyclegan" else "avatars64"
    chosen = read_preset(preset or default, given, recipe=recipe)
    if chosen.method != method:
        raise HomomorphError(f"--preset {preset} is for --method {chosen.method}")
    initial = resolve_run(init) if init else None
    data = read_labelled(folder, allow_missing=allow_missing)
    processes = Processes(accelerator, precision)
    if dry_run:
        from homomorph.training.dry_run import describe

        typer.echo(f"{data.summary()}\n{describe(data, chosen, seed=seed)}")
        return
    training = make_method(data, chosen, seed=seed, max_bad_pictures=max_bad_pictures, processes=processes)
    if initial is not None:
        if not isinstance(training, MorphMethod):
            raise HomomorphError("--init is for --method homomorph")
        training.start_from(initial)
    with progress_display() as display:
        report = announcing(data.summary(), display)
        figures = None
        if held_out is not None and processes.first:
            if not isinstance(chosen, MorphPreset):
                raise HomomorphError("--held-out is for --method homomorph")
            figures = prepare_checkpoint_figures(held_out, chosen.picture_size, report=report)
        skipped = run_training(
            training,
            out,
            steps=chosen.steps,
            seed=seed,
            resume=resume,
            checkpoint_every=checkpoint_every,
            workers=default_workers() if workers is None else workers,
            data_hash=fingerprint(data),
            processes=processes,
            held_out_figures=figures,
            report=(lambda progress: report(_with_displayed_figures(progress))) if processes.first else silent,
        )
    if processes.first:
        report_skipped(len(skipped), data)
        typer.echo(f"{out}: `homomorph export {out} --repository triton_repo` makes it servable")


def _with_displayed_figures(progress: Progress) -> Progress:
    """Leave only the figures that fit beside a progress bar."""
    figures = {name: progress.figures[name] for name in _DISPLAYED if name in progress.figures}
    return dataclasses.replace(progress, figures=figures)
