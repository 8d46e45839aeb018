"""`homomorph export`: a run becomes a Triton model repository."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Precision(str, Enum):
    """Number format of the served models."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


def export(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A folder written by `homomorph train`, or a shipped model: avatars64."),
    ],
    repository: Annotated[
        Path, typer.Option(file_okay=False, help="The folder to write into; an earlier export there is replaced.")
    ] = Path("triton_repo"),
    precision: Annotated[
        Precision,
        typer.Option(
            help="Number format of the weights and of the arithmetic. With bf16 the ONNX files stay at fp32; int8 is "
            "for ONNX alone."
        ),
    ] = Precision.FP32,
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Write ONNX files beside TorchScript.")] = True,
    aot: Annotated[
        bool,
        typer.Option(
            "--aot", help="Compile packages of AOTInductor (.pt2) too, for this machine's processor: minutes."
        ),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            show_default="rendered, for runs with the built-in set's labels",
            help="Folder of 72 or more pictures like those of the training, for int8.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="half of the cores",
            help="Threads that one operation of a served model may use.",
        ),
    ] = None,
) -> None:
    """Write a run as a Triton model repository of TorchScript and ONNX models.

    The files are compared with the run before they appear: on random pictures their frames may be off by 0.02 grey
    levels (of 255) on average and by 1 at most; with bf16 and fp16 by 0.5 on average, and with int8 by 2, on pictures
    that it was not calibrated on. The folder can be moved and served elsewhere.
    """
    from rich.console import Console

    from homomorph_export.exporter import export_run

    with Console(stderr=True).status("Loading") as status:
        manifest = export_run(
            run,
            repository,
            precision=precision.value,
            onnx=onnx,
            aot=aot,
            calibration=calibration,
            threads=threads,
            report=status.update,
        )
    size_mib = sum((repository / path).stat().st_size for path in manifest.files) / 2**20
    typer.echo(f"{repository}: {len(manifest.models)} models, {size_mib:.1f} MiB")
    typer.echo(f"sliders: {', '.join(manifest.groups)}")
    for file_format, parity in manifest.parity.items():
        typer.echo(
            f"{file_format} ({parity.precision}): parity with the run, in grey levels: {parity.mean:.6f} on average, "
            f"{parity.max:.0f} at most"
        )
