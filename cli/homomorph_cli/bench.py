"""`homomorph bench`: the speed of the operator, a training step, exported models and served models, with baselines."""

from __future__ import annotations

import os
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from homomorph_cli.options import gpus_option
from homomorph_cli.progress import progress_display
from homomorph_client.errors import HomomorphError
from homomorph_client.output import check_writable
from homomorph_client.version import install_hint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homomorph.training.settings import MorphPreset
    from homomorph_bench.results import Record

app = typer.Typer(no_args_is_help=True)

_Repeats = Annotated[int, typer.Option(min=10, help="Turns that count; their median is reported.")]
_Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
_Threads = Annotated[int | None, typer.Option(min=1, show_default="all cores", help="Threads within one operation.")]


# Choices that may be given several times: Typer takes a list of an Enum, but not of a Literal.
class _Runtime(str, Enum):
    """Runtimes of the exported models."""

    TORCHSCRIPT = "torchscript"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    AOTINDUCTOR = "aotinductor"


class _Engine(str, Enum):
    """Runtimes of E and D in a served morph, beside TorchScript."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class _DType(str, Enum):
    """Number formats of the operator."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class _Layout(str, Enum):
    """Memory formats of the features."""

    CONTIGUOUS = "contiguous"
    CHANNELS_LAST = "channels_last"


@app.callback()
def bench() -> None:
    """Measure speed. All candidates are timed in turns, in the same run."""


@app.command()
def kernel(
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder for results.json and kernel.png.")],
    repeats: _Repeats = 10,
    threads: _Threads = None,
    device: _Device = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="A few small cases: seconds instead of minutes.")] = False,
    dtype: Annotated[
        list[_DType] | None,
        typer.Option(help="Measure these number formats only.", show_default="all"),
    ] = None,
    layout: Annotated[
        list[_Layout] | None,
        typer.Option(help="Measure these memory formats only.", show_default="both"),
    ] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="Only these sizes, as CxHxW.", show_default="128x8x8 512x8x8 256x32x32")
    ] = None,
) -> None:
    """Time the interpolation operator against torch.baddbmm, einsum and a loop over the branches.

    Also compares one-hot strengths with dense ones. Measures the size of the cache, and then the operator's bandwidth
    with batches larger than the cache, compared with a large copy_.
    """
    import dataclasses

    from homomorph_bench import kernel as benchmark
    from homomorph_bench import kernel_summary
    from homomorph_bench.results import RESULTS_FILE
    from homomorph_bench.timing import device_name

    _check_device(device)
    matrix = benchmark.QUICK if quick else benchmark.Matrix()
    if dtype:
        matrix = dataclasses.replace(matrix, dtypes=[choice.value for choice in dtype])
    if layout:
        matrix = dataclasses.replace(matrix, layouts=[choice.value for choice in layout])
    if features:
        matrix = dataclasses.replace(matrix, features=[_parse_features(text) for text in features])
    check_writable(out / RESULTS_FILE)  # before minutes of measuring
    with progress_display() as report:
        records = benchmark.run(
            matrix,
            device=device,
            repeats=repeats,
            threads=_threads(threads),
            report=report,
        )
    path = _write(records, out, f"interpolation of features, {device_name(device)}")
    for name, value in kernel_summary.summarise(records).items():
        typer.echo(f"{value:6.2f}  {name}")
    typer.echo(kernel_summary.draw(records, out))
    typer.echo(path)


def _write(records: Sequence[Record], out: Path, title: str) -> Path:
    """Write the records into the folder and print them as a table; return the file's path."""
    from rich.console import Console

    from homomorph_bench.results import table, write

    path = write(records, out)
    Console().print(table(records, title))
    return path


def _check_device(device: str) -> None:
    """Refuse a GPU that is not there."""
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise HomomorphError(f"--device {device}: torch finds no CUDA device on this machine")


def _need_peers(module: str, purpose: str, *, or_else: str = "") -> None:
    """Raise an error if a package to measure is not installed."""
    if find_spec(module) is None:
        raise HomomorphError(f"to {purpose}, {install_hint('bench-peers')}{or_else} ({module} is not installed)")


def _threads(threads: int | None) -> int:
    return len(os.sched_getaffinity(0)) if threads is None else threads


def _parse_features(text: str) -> tuple[int, int, int]:
    """Return C, h, w."""
    match text.split("x"):
        case [channels, height, width] if channels.isdigit() and height.isdigit() and width.isdigit():
            return int(channels), int(height), int(width)
    raise HomomorphError(f"--features must be like 128x8x8, not {text!r}")


@app.command()
def train(
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder that results.json is written into.")],
    preset: Annotated[str, typer.Option(help="Networks, picture size, batch and recipe.")] = "avatars64",
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the networks are.")] = "cpu",
    repeats: _Repeats = 10,
    threads: _Threads = None,
) -> None:
    """Time a training step in each precision, and growing parts of it, which show where the time goes."""
    from homomorph_bench import train as benchmark
    from homomorph_bench.results import RESULTS_FILE

    chosen = _read_preset(preset)
    _check_device(device)
    check_writable(out / RESULTS_FILE)  # before minutes of measuring
    with progress_display() as report:
        records = benchmark.run(
            chosen,
            repeats=repeats,
            threads=_threads(threads),
            accelerator="cpu" if device == "cpu" else "gpu",
            report=report,
        )
    path = _write(records, out, f"one training step, {preset}")
    typer.echo(path)


def _read_preset(name: str) -> MorphPreset:
    """Read a preset of E, T_i and D."""
    from homomorph.training.settings import MorphPreset, read_preset

    preset = read_preset(name)
    if not isinstance(preset, MorphPreset):
        raise HomomorphError(f"--preset {name} is for --method {preset.method}: take one of homomorph's")
    return preset


@app.command()
def model(
    out: Annotated[Path, typer.Option(file_okay=False, help="The folder for results.json and model.png.")],
    preset: Annotated[str, typer.Option(help="Sizes of the networks.")] = "published",
    picture_size: Annotated[int, typer.Option(min=16, help="Height and width of the pictures, in pixels.")] = 128,
    frames: Annotated[int, typer.Option(min=1, help="Frames of the sequence.")] = 17,
    device: _Device = "cpu",
    runtime: Annotated[
        list[_Runtime] | None,
        typer.Option(
            show_default="torchscript, and on the CPU onnxruntime, and openvino where it is installed",
            help="Runtime to measure; aotinductor compiles for minutes. May be given several times.",
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
    repeats: _Repeats = 10,
    threads: _Threads = None,
) -> None:
    """Time a whole sequence of exported models, in several runtimes, against the published way to compute it.

    The published way encodes both pictures, runs all branches and decodes again for every frame, eagerly in float32.
    Also times the parts of a sequence, one frame of pictures that are already encoded (with one branch and with all),
    and the branches one by one and all at once. Weights are random. The number of branches is that of the shipped
    avatars64, or of HomoInterpGAN.
    """
    from homomorph.data.avatars import GROUPS
    from homomorph.models.config import ModelConfig
    from homomorph.runs.import_homointerpgan import CELEBA_GROUPS
    from homomorph_bench import model as benchmark
    from homomorph_bench import model_picture
    from homomorph_bench.results import RESULTS_FILE

    _check_device(device)
    if runtime:
        chosen = tuple(choice.value for choice in runtime)
        if "openvino" in chosen:
            _need_peers("openvino", "measure OpenVINO")
        if device != "cpu" and chosen != ("torchscript",):
            raise HomomorphError(f"--device {device} is for --runtime torchscript alone")
    elif device != "cpu":
        chosen = ("torchscript",)
    else:
        chosen = ("torchscript", "onnxruntime", *(["openvino"] if find_spec("openvino") else []))
    if packages is not None and "aotinductor" not in chosen:
        raise HomomorphError("--packages keeps AOTInductor's packages: give --runtime aotinductor too")
    network = _read_preset(preset).network
    groups = GROUPS if preset.startswith("avatars") else CELEBA_GROUPS
    if picture_size % network.stride:
        raise HomomorphError(f"--picture-size must be a multiple of {network.stride} for {preset}, not {picture_size}")
    check_writable(out / RESULTS_FILE)  # before minutes of measuring
    with progress_display() as report:
        measured = benchmark.run(
            ModelConfig(groups, picture_size, network),
            frames=frames,
            device=device,
            runtimes=chosen,
            repeats=repeats,
            threads=_threads(threads),
            packages=packages,
            report=report,
        )
    path = _write(measured.records, out, f"{preset}, {picture_size}x{picture_size} pixels")
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
        float, typer.Option(min=1, help="Largest 99th percentile of latency, for the search of the largest rate.")
    ] = 100.0,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="all cores", help="Threads within one operation, in process.")
    ] = None,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Measure pytriton, LitServe and FastAPI in the same turns.")
    ] = True,
    engine: Annotated[
        list[_Engine] | None,
        typer.Option(
            show_default="TorchScript alone",
            help="Measure Triton with the encoder and the decoder in this runtime too, as `homomorph serve --engine` "
            "has them. May be given several times.",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        gpus_option("for Triton; the first also for the servers compared with it"),
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

    from homomorph_bench.results import RESULTS_FILE
    from homomorph_bench.serving import scenarios
    from homomorph_bench.serving.report import write_report
    from homomorph_bench.serving.systems import SystemSettings
    from homomorph_client.names import MORPH
    from homomorph_export.exporter import export_run
    from homomorph_export.flavours import PYTHON
    from homomorph_export.serving.devices import choose_gpus
    from homomorph_export.serving.engine_choice import check_engine

    check_writable(out / RESULTS_FILE)  # before minutes of measuring
    if peers:
        for module in ("fastapi", "litserve", "uvicorn"):
            _need_peers(module, "measure other servers too", or_else=", or give --no-peers")
    chosen = choose_gpus(gpus)
    engines = [choice.value for choice in engine or ()]
    for name in engines:
        check_engine(name, repository, [MORPH], PYTHON, chosen)
    with contextlib.ExitStack() as stack:
        report = stack.enter_context(progress_display())
        if repository is None:
            repository = (
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="homomorph-bench-"))) / "repository"
            )
            export_run("avatars64", repository, onnx=bool(engines), report=report)
        measured = asyncio.run(
            scenarios.measure_serving(
                SystemSettings(repository, frames, picture_size, peers, engines, chosen),
                scenarios.QUICK if quick else scenarios.ScenarioSettings(),
                bound_ms=bound_ms,
                threads=_threads(threads),
                analyzer=perf_analyzer.resolve() if perf_analyzer else None,
                report=report,
            )
        )
    path = _write(measured.records, out, f"{frames} frames a sequence, {measured.meta['cores']} cores")
    typer.echo(write_report(measured, out))
    typer.echo(path)
