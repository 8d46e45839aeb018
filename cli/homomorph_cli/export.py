"""`homomorph export`: a run becomes a Triton model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from homomorph_cli.progress import progress_display
from homomorph_client.errors import HomomorphError


def export(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A folder written by `homomorph train` or `import`, or a shipped model: avatars64, or the "
            "CycleGAN smiling64. Several CycleGANs can be given. Their directions can then follow each other in one "
            "request.",
        ),
    ],
    repository: Annotated[
        Path,
        typer.Option(
            file_okay=False,
            help="The folder to write into. An earlier export of the same method there is replaced; one of the other "
            "stays.",
        ),
    ] = Path("triton_repo"),
    precision: Annotated[
        Literal["fp32", "bf16", "fp16", "int8"],
        typer.Option(
            help="Number format of the weights and of the arithmetic. With bf16 the ONNX files stay at fp32; int8 is "
            "for ONNX alone, and not for CycleGANs."
        ),
    ] = "fp32",
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Write ONNX files beside TorchScript.")] = True,
    aot: Annotated[
        bool,
        typer.Option(
            "--aot",
            help="Compile packages of AOTInductor (.pt2) too, for this machine's processor and `serve --flavour aoti`: "
            "minutes. Not offered for CycleGANs.",
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
            show_default="in the Python backend half of the server's cores, all for morpher; 1 in the others",
            help="Threads that a served model may use.",
        ),
    ] = None,
) -> None:
    """Write a run, or several CycleGANs, as a Triton model repository of TorchScript and ONNX models.

    The files are compared with the run before they appear: on random pictures their frames may be off by 0.02 grey
    levels (of 255) on average and by 1 at most; with bf16 and fp16 by 0.5 on average, and with int8 by 2, on pictures
    that it was not calibrated on. The folder can be moved and served elsewhere.
    """
    from homomorph.runs.cyclegan import is_cyclegan
    from homomorph.runs.run import resolve_run
    from homomorph_export.exporter import export_cyclegans, export_run

    folders = [resolve_run(run) for run in runs]
    cyclegans = [is_cyclegan(folder) for folder in folders]
    if len(folders) > 1 and not all(cyclegans):
        raise HomomorphError(
            f"{folders[cyclegans.index(False)]} is not a CycleGAN's run: export it by a command of its own, "
            "into the same repository if both are to be served together"
        )
    if all(cyclegans) and (aot or calibration is not None):
        raise HomomorphError(f"{'--aot' if aot else '--calibration'} is not offered for CycleGANs")
    with progress_display() as report:
        common: dict[str, Any] = {
            "precision": precision,
            "onnx": onnx,
            "threads": threads,
            "report": report,
        }
        if all(cyclegans):
            manifest = export_cyclegans(folders, repository, **common)
        else:
            manifest = export_run(folders[0], repository, aot=aot, calibration=calibration, **common)
    size_mib = sum((repository / path).stat().st_size for path in manifest.files) / 2**20
    typer.echo(f"{repository}: {len(manifest.models)} models, {size_mib:.1f} MiB")
    typer.echo(
        f"directions: {', '.join(manifest.directions)}"
        if manifest.directions
        else f"sliders: {', '.join(manifest.groups)}"
    )
    for file_format, parity in manifest.parity.items():
        typer.echo(
            f"{file_format} ({parity.precision}): parity with the run, in grey levels: {parity.mean:.6f} on average, "
            f"{parity.max:.0f} at most"
        )
    if not aot:
        typer.echo("note: torch 2.11 deprecates TorchScript; --aot also writes what replaces it (not for CycleGANs)")
