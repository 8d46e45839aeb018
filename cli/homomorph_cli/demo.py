"""The whole way in one command: export a model, start Triton, morph two pictures over gRPC, stop Triton.

python -m homomorph_cli.demo docs/source.png docs/target.png --out out
"""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from homomorph.progress import Progress
from homomorph_cli.one_line_errors import run_app
from homomorph_cli.progress import progress_display
from homomorph_client import MorphClient
from homomorph_client.output import write_output
from homomorph_client.pictures import load_picture
from homomorph_client.sheet import named_strips

_STEPS = 9
_FILM_STEPS = 25
_CELL_PX = 128
"""Height and width in pixels of the frames in a sheet."""
_FILM_PX = 192
"""Height and width in pixels of the film."""
_TIMED_REQUESTS = 20
_WARM_UP_REQUESTS = 5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    source: Annotated[Path, typer.Argument(help="Picture to start from.")],
    target: Annotated[Path, typer.Argument(help="Picture to reach.")],
    run: Annotated[str, typer.Option(help="Run folder, or name of a model that ships with homomorph.")] = "avatars64",
    repository: Annotated[Path, typer.Option(help="Folder to export to.")] = Path("triton_repo"),
    out: Annotated[Path, typer.Option(help="Folder for morph.png, morph.gif and groups.png.")] = Path("out"),
) -> None:
    """Export a model, serve it with Triton, morph two pictures and print the latency."""
    from homomorph_export.exporter import export_run
    from homomorph_export.serving.distribution import ensure_triton
    from homomorph_export.serving.server import TritonServer

    pictures = load_picture(source), load_picture(target)
    with progress_display() as report:
        export_run(run, repository, report=report)
        ensure_triton(report)
        report(Progress("Starting Triton"))
        with TritonServer(repository, restart=True) as server, MorphClient(server.grpc_url) as client:
            report(Progress("Morphing"))
            frames = client.morph_full_size(*pictures, steps=_STEPS, size=_CELL_PX)
            film = client.morph_full_size(*pictures, steps=_FILM_STEPS, size=_FILM_PX)
            rows = {"all": frames, **_each_group_alone(client, *pictures)}
            size = client.picture_size
            latencies_ms = _latencies_ms(client, *pictures)
            report(Progress("Stopping Triton"))
    write_output(out / "morph.png", frames)
    write_output(out / "morph.gif", film)
    write_output(out / "groups.png", named_strips(rows)[np.newaxis])
    typer.echo(
        f"{out / 'morph.png'}: {len(frames)} frames from {source} to {target}; "
        f"{out / 'morph.gif'}: {len(film)} frames as a film"
    )
    typer.echo(f"{out / 'groups.png'}: what each slider does alone")
    typer.echo(
        f"{_STEPS} frames of {size}x{size} pixels over gRPC: median {statistics.median(latencies_ms):.1f} ms "
        f"({min(latencies_ms):.1f} to {max(latencies_ms):.1f} ms in {len(latencies_ms)} requests after warm-up)"
    )
    page = [Path(sys.executable).parent / "homomorph", "ui", source, target, "--run", run]
    typer.echo(f"to move the sliders yourself: {shlex.join(map(str, page))}")


def _each_group_alone(
    client: MorphClient, source: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.uint8]]:
    ramp = np.linspace(0, 1, _STEPS)
    return {
        group: client.morph_full_size(source, target, strengths={group: ramp}, size=_CELL_PX) for group in client.groups
    }


def _latencies_ms(client: MorphClient, source: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> list[float]:
    latencies_ms = []
    for _ in range(_WARM_UP_REQUESTS + _TIMED_REQUESTS):
        start = time.perf_counter()
        client.morph(source, target, steps=_STEPS)
        latencies_ms.append((time.perf_counter() - start) * 1000)
    return latencies_ms[_WARM_UP_REQUESTS:]


if __name__ == "__main__":
    run_app(app)
