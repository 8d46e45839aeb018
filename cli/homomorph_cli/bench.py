"""`homomorph bench`: what is fast, measured against what it is faster than."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.progress import progress_display
from homomorph_client.errors import HomomorphError
from homomorph_client.output import check_writable

app = typer.Typer(no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure speed: what is compared is timed in turns, in the same run."""


@app.command()
def kernel(
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder for results.json and kernel.png.")],
    repeats: Annotated[int, typer.Option(min=10, help="Turns that count; their median is reported.")] = 10,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="all cores", help="Threads within one operation.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="A few small cases: seconds instead of minutes.")] = False,
    dtype: Annotated[list[str] | None, typer.Option(help="Only these: float32, float16, bfloat16.")] = None,
    layout: Annotated[list[str] | None, typer.Option(help="Only these: contiguous, channels_last.")] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="Only these sizes, as CxHxW.", show_default="128x8x8 512x8x8 256x32x32")
    ] = None,
) -> None:
    """Time the interpolation operator against torch.baddbmm, einsum and a loop over the branches.

    Also with one-hot strengths against dense ones, and its bandwidth against a large copy_ with batches larger than the
    cache, whose size is measured first.
    """
    import dataclasses

    import torch
    from rich.console import Console

    from homomorph_bench import kernel as benchmark
    from homomorph_bench import kernel_summary
    from homomorph_bench.results import RESULTS_FILE, table, write

    if device != "cpu" and not torch.cuda.is_available():
        raise HomomorphError(f"--device {device}: torch finds no CUDA device on this machine")
    matrix = benchmark.QUICK if quick else benchmark.Matrix()
    for option, chosen, known in (("dtype", dtype, benchmark.DTYPES), ("layout", layout, benchmark.LAYOUTS)):
        if unknown := sorted(set(chosen or ()) - set(known)):
            raise HomomorphError(f"--{option} must be {' or '.join(known)}, not {unknown[0]!r}")
    matrix = dataclasses.replace(matrix, dtypes=dtype or matrix.dtypes, layouts=layout or matrix.layouts)
    if features:
        matrix = dataclasses.replace(matrix, features=[_parse_features(text) for text in features])
    check_writable(out / RESULTS_FILE)  # before minutes are spent on what could not be written down
    with progress_display() as report:
        records = benchmark.run(
            matrix,
            device=device,
            repeats=repeats,
            threads=threads or len(os.sched_getaffinity(0)),
            report=report,
        )
    path = write(records, out)
    Console().print(table(records, f"interpolation of features, {benchmark.device_name(device)}"))
    for name, value in kernel_summary.summarise(records).items():
        typer.echo(f"{value:6.2f}  {name}")
    typer.echo(kernel_summary.draw(records, out))
    typer.echo(path)


def _parse_features(text: str) -> tuple[int, int, int]:
    """Return C, h, w."""
    match text.split("x"):
        case [channels, height, width] if channels.isdigit() and height.isdigit() and width.isdigit():
            return int(channels), int(height), int(width)
    raise HomomorphError(f"--features must be like 128x8x8, not {text!r}")


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

    from homomorph.training.recipe import PRESETS
    from homomorph_bench import train as benchmark
    from homomorph_bench.results import RESULTS_FILE, table, write

    if preset not in PRESETS:
        raise HomomorphError(f"--preset must be {' or '.join(PRESETS)}, not {preset!r}")
    check_writable(out / RESULTS_FILE)  # before minutes are spent on what could not be written down
    with progress_display() as report:
        records = benchmark.run(
            PRESETS[preset],
            repeats=repeats,
            threads=threads or len(os.sched_getaffinity(0)),
            report=report,
        )
    path = write(records, out)
    Console().print(table(records, f"one training step, {preset}"))
    typer.echo(path)


@app.command()
def model(
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder for results.json and model.png.")],
    preset: Annotated[str, typer.Option(help="Networks: published, avatars64, avatars128, celeba128.")] = "published",
    picture_size: Annotated[int, typer.Option(min=16, help="Height and width of the pictures, in pixels.")] = 128,
    frames: Annotated[int, typer.Option(min=1, help="Frames of the sequence.")] = 17,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            show_default="torchscript onnxruntime openvino",
            help="torchscript, onnxruntime, openvino, or aotinductor, which compiles for minutes; repeatable.",
        ),
    ] = None,
    packages: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            show_default="none",
            help="A folder to keep AOTInductor's packages in: those that are there are not compiled again.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=10, help="Turns that count; their median is reported.")] = 10,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="all cores", help="Threads within one operation.")
    ] = None,
) -> None:
    """Time a whole sequence of exported models, in several runtimes, against the published way to compute it.

    The published way encodes both pictures, runs all branches and decodes again for every frame, eagerly in float32.
    Also where the time goes, one frame from features at hand with one branch in use against all, and the branches one
    by one against all at once. Weights are random; there are as many branches as the shipped avatars64 has, or
    HomoInterpGAN's.
    """
    from rich.console import Console

    from homomorph.data.avatars import GROUPS
    from homomorph.runs.import_homointerpgan import CELEBA_GROUPS
    from homomorph.training.recipe import PRESETS
    from homomorph_bench import model as benchmark
    from homomorph_bench import model_picture
    from homomorph_bench.results import RESULTS_FILE, table, write
    from homomorph_bench.runtimes import RUNTIMES

    if preset not in PRESETS:
        raise HomomorphError(f"--preset must be {' or '.join(PRESETS)}, not {preset!r}")
    chosen = tuple(runtime or RUNTIMES[:3])
    if unknown := sorted(set(chosen) - set(RUNTIMES)):
        raise HomomorphError(f"--runtime must be {' or '.join(RUNTIMES)}, not {unknown[0]!r}")
    network = PRESETS[preset].network
    if picture_size % network.stride:
        raise HomomorphError(f"--picture-size must be a multiple of {network.stride} for {preset}, not {picture_size}")
    check_writable(out / RESULTS_FILE)  # before minutes are spent on what could not be written down
    with progress_display() as report:
        measured = benchmark.run(
            network,
            groups=GROUPS if preset.startswith("avatars") else CELEBA_GROUPS,
            picture_size=picture_size,
            frames=frames,
            runtimes=chosen,
            repeats=repeats,
            threads=threads or len(os.sched_getaffinity(0)),
            packages=packages,
            report=report,
        )
    path = write(measured.records, out)
    Console().print(table(measured.records, f"{preset}, {picture_size}x{picture_size} pixels"))
    typer.echo(model_picture.draw(measured, out))
    typer.echo(path)


@app.command()
def serving(
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder for results.json and report.html.")],
    repository: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder that `homomorph export` wrote.",
            show_default="an export of avatars64, removed afterwards",
        ),
    ] = None,
    picture_size: Annotated[
        int | None, typer.Option(min=8, help="Height and width of the pictures, in pixels.", show_default="the model's")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, max=256, help="Frames of a sequence.")] = 9,
    bound_ms: Annotated[
        float, typer.Option(min=1, help="What the 99th percentile may be where the largest rate is searched.")
    ] = 100.0,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="all cores", help="Threads within one operation, in process.")
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Measure pytriton, LitServe and FastAPI in the same turns.")
    ] = True,
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            show_default="all that there are",
            help="GPUs for Triton, such as 0,1, the first also for what it is compared with; none for the CPU.",
        ),
    ] = None,
    perf_analyzer: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            show_default="not measured",
            help="NVIDIA's perf_analyzer, to measure Triton with that too.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: five minutes instead of 40.")] = False,
) -> None:
    """Measure the served morph under load: latency one at a time, the largest rate, throughput, where the time goes.

    Starts a Triton server of its own on this machine, and compares it with the same files called in process and behind
    other servers. The scenarios are MLPerf's SingleStream, Server and Offline.
    """
    import asyncio
    import contextlib
    import tempfile

    from rich.console import Console

    from homomorph_bench.results import RESULTS_FILE, table, write
    from homomorph_bench.serving import scenarios
    from homomorph_bench.serving.report import write_report
    from homomorph_export.exporter import export_run
    from homomorph_export.serving.devices import choose_gpus

    check_writable(out / RESULTS_FILE)  # before minutes are spent on what could not be written down
    chosen = choose_gpus(gpus)
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(progress_display())
        if repository is None:
            repository = (
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="homomorph-bench-"))) / "repository"
            )
            export_run("avatars64", repository, onnx=False, report=report)
        measured = asyncio.run(
            scenarios.measure(
                repository,
                scenarios.QUICK if quick else scenarios.Plan(),
                picture_size=picture_size,
                frames=frames,
                bound_ms=bound_ms,
                threads=threads or len(os.sched_getaffinity(0)),
                peers=peers,
                gpus=chosen,
                analyzer=perf_analyzer.resolve() if perf_analyzer else None,
                report=report,
            )
        )
    path = write(measured.records, out)
    Console().print(table(measured.records, f"{frames} frames a sequence, {measured.meta['cores']} cores"))
    typer.echo(write_report(measured, out))
    typer.echo(path)
