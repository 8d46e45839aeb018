"""`homomorph serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    repository: Annotated[Path, typer.Option(help="Folder that `homomorph export` wrote.")] = Path("triton_repo"),
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Model to load, with the models that it is made of. May be given several times.",
            show_default="morph, and edit where the repository has it",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is open to the network.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for clients.")] = 8001,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Triton's HTTP protocol.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prometheus metrics.")] = 8002,
    log: Annotated[
        Path | None,
        typer.Option(help="File for the server's log.", show_default="a temporary one, kept if something fails"),
    ] = None,
) -> None:
    """Serve an exported model with NVIDIA Triton until Ctrl-C."""
    from rich.console import Console

    from homomorph_client.labels import EDIT_MODEL
    from homomorph_export.server import TritonServer

    has_edit = (repository / EDIT_MODEL).is_dir()
    server = TritonServer(
        repository,
        models=model or ["morph", *([EDIT_MODEL] if has_edit else [])],
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        log=log,
    )
    console = Console(stderr=True)
    try:
        with console.status(f"Loading {', '.join(server.models)}"):
            server.start()
        typer.echo(f"serving {', '.join(server.models)} from {repository}; Ctrl-C stops")
        typer.echo(f"gRPC {host}:{grpc_port}   HTTP {host}:{http_port}   metrics {host}:{metrics_port}/metrics")
        server.wait()
    except KeyboardInterrupt:
        with console.status("Stopping"):
            server.stop()
