"""The whole way in one command: export a model, start Triton, morph two pictures over gRPC, stop Triton.

python -m homomorph_cli.demo docs/source.png docs/target.png --out out
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from homomorph_client import MorphClient
from homomorph_client.output import write_output
from homomorph_client.pictures import load_picture
from rich.console import Console

from homomorph_cli.one_line_errors import run_app

_TIMED_REQUESTS = 20
_WARM_UP_REQUESTS = 5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    source: Annotated[Path, typer.Argument(help="Picture to start from.")],
    target: Annotated[Path, typer.Argument(help="Picture to reach.")],
    run: Annotated[str, typer.Option(help="Run folder, or name of a model that ships with homomorph.")] = "avatars64",
    out: Annotated[Path, typer.Option(help="Folder for morph.png and morph.gif.")] = Path("out"),
) -> None:
    """Export a model, serve it with Triton, morph two pictures and print the latency."""
    from homomorph_export.exporter import export_run
    from homomorph_export.server import TritonServer

    pictures = load_picture(source), load_picture(target)
    with tempfile.TemporaryDirectory(prefix="homomorph-demo-") as scratch, Console(stderr=True).status("") as status:
        repository = Path(scratch) / "triton_repo"
        status.update(f"Exporting {run}")
        export_run(run, repository)
        status.update("Starting Triton")
        with TritonServer(repository) as server, MorphClient(server.grpc_url) as client:
            status.update("Morphing")
            frames = client.morph(*pictures)
            latencies_ms = _latencies_ms(client, *pictures)
            status.update("Stopping Triton")
    for path in (out / "morph.png", out / "morph.gif"):
        write_output(path, frames)
        typer.echo(path)
    count, height, width, _ = frames.shape
    typer.echo(
        f"{count} frames of {width}x{height} pixels over gRPC: median {statistics.median(latencies_ms):.1f} ms "
        f"({min(latencies_ms):.1f} to {max(latencies_ms):.1f} ms in {len(latencies_ms)} requests after warm-up)"
    )


def _latencies_ms(client: MorphClient, source: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> list[float]:
    latencies_ms = []
    for _ in range(_WARM_UP_REQUESTS + _TIMED_REQUESTS):
        start = time.perf_counter()
        client.morph(source, target)
        latencies_ms.append((time.perf_counter() - start) * 1000)
    return latencies_ms[_WARM_UP_REQUESTS:]


if __name__ == "__main__":
    run_app(app)
