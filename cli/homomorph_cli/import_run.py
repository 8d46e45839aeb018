"""`homomorph import`: published checkpoints become runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def import_run() -> None:
    """Turn published weights into a run, which `homomorph export` takes like any other."""


@app.command()
def homointerpgan(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Holds encoder-latest.pth, interp_net-latest.pth and decoder-latest.pth."),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write, new or empty: config.json, model.safetensors.")],
    groups: Annotated[
        Path | None,
        typer.Option(
            show_default="the pretrained model's: expression, gender_trait, hair_colour, hair_style, age",
            help="YAML file that maps each branch's group, in order and without the residual one, to its attributes.",
        ),
    ] = None,
) -> None:
    """Import weights of HomoInterpGAN (CVPR 2019).

    The files are read as weights alone, no other content is unpickled, and every name and shape is checked. The last
    branch is the residual one. Pictures are of 128 pixels; other multiples of 16 work too.
    """
    from homomorph.data.labels import read_groups
    from homomorph.runs.import_homointerpgan import import_homointerpgan

    model = import_homointerpgan(folder, out, groups=None if groups is None else read_groups(groups))
    typer.echo(f"{out}: sliders {', '.join(model.config.branches)}")
    typer.echo(f"`homomorph export {out} --repository triton_repo` makes it servable")


@app.command()
def cyclegan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A generator's weights: latest_net_G.pth or its like.")],
    out: Annotated[Path, typer.Option(help="Run folder to write, new or empty: config.json, model.safetensors.")],
    generator: Annotated[
        str | None,
        typer.Option(
            show_default="read from the file",
            help="resnet_6blocks, resnet_9blocks or any other number, unet_64, unet_128, unet_256 or unet_512.",
        ),
    ] = None,
    direction: Annotated[
        str, typer.Option(help="What it does to a picture, as a name: horse_to_zebra. Its served model is called so.")
    ] = "translate",
    picture_size: Annotated[
        int | None,
        typer.Option(
            show_default="256, or 512 of a unet_512",
            help="Height and width in pixels that it was trained at; others work too.",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which of several generators in one file, such as netG_A."),
    ] = None,
    residual: Annotated[
        Literal["no", "add", "add-twice"],
        typer.Option(
            help="Meaning of its output, which weights do not show: the picture, or a difference to add to it, once "
            "(DeblurGAN's learn_residual) or twice."
        ),
    ] = "no",
    padding: Annotated[
        Literal["reflect", "replicate", "replicate_blocks", "zero_blocks"] | None,
        typer.Option(
            show_default="reflect, or zero_blocks where the file has no padding layers",
            help="What a ResNet sees beyond edges, which weights do not show: mirrored or repeated pixels; with "
            "_blocks only within its blocks.",
        ),
    ] = None,
    output_range: Annotated[
        Literal["tanh", "sigmoid", "none"],
        typer.Option(
            help="What its last layer gives, which weights do not show: -1 to 1, 0 to 1, or anything, which is cut."
        ),
    ] = "tanh",
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="PICTURE", help="A picture of the kind it is for: preview.png in the run shows it and the result."
        ),
    ] = None,
) -> None:
    """Import a generator of CycleGAN (ICCV 2017) from a checkpoint of its PyTorch implementation in wide use.

    The file is read as weights alone, no other content is unpickled, and every name and shape is checked. Some
    properties cannot be read from weights: the command prints what it assumes. Check the assumptions with --preview.
    """
    from homomorph.runs.import_cyclegan import Assumptions, import_cyclegan

    imported = import_cyclegan(
        file,
        out,
        direction=direction,
        generator=generator,
        picture_size=picture_size,
        part=part,
        assumptions=Assumptions(residual, padding, output_range),
        preview=preview,
    )
    typer.echo(f"{out}: {imported.found}, direction {direction}")
    look = f"look at {out / 'preview.png'}" if preview else "--preview PICTURE would show it"
    typer.echo(f"assumed: {imported.assumed}; {look}")
    typer.echo(f"`homomorph export {out} --repository triton_repo` makes it servable")
