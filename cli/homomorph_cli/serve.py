"""`homomorph serve`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.options import gpus_option


class FlavourName(str, Enum):
    """Which of Triton's backends runs the models."""

    PYTHON = "python"
    LIBTORCH = "libtorch"
    ONNX = "onnx"


def serve(
    repository: Annotated[Path, typer.Option(help="Folder that `homomorph export` wrote.")] = Path("triton_repo"),
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Model to load, with the models that it is made of. May be given several times.",
            show_default="of morph, morph_stream, edit and translate what the repository has",
        ),
    ] = None,
    flavour: Annotated[
        FlavourName,
        typer.Option(
            help="Which of Triton's backends runs the models. nvidia-pytriton brings python alone, NVIDIA's container "
            "brings all."
        ),
    ] = FlavourName.PYTHON,
    backends: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            show_default="/opt/tritonserver/backends",
            help="Folder of Triton's backends, for the flavours libtorch and onnx.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is open to the network.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for clients.")] = 8001,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Triton's HTTP protocol.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Prometheus metrics.")] = 8002,
    cache_mib: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="MIB",
            help="Size of the cache of encoded pictures: one picture under many sliders is encoded once. 0 for none.",
        ),
    ] = 64,
    cores: Annotated[
        int | None,
        typer.Option(min=1, show_default="all", help="Cores that the server and its models may use."),
    ] = None,
    gpus: Annotated[
        str | None,
        gpus_option("that the models are placed on"),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Encrypt gRPC with this certificate and --tls-key.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Private key of --tls-certificate.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Let in only clients that these authorities vouch for (mutual TLS)."),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="File for the server's log.", show_default="a temporary one, kept if something fails"),
    ] = None,
) -> None:
    """Serve an exported model with NVIDIA Triton until Ctrl-C."""
    from rich.console import Console

    from homomorph_client.errors import ServerError
    from homomorph_client.names import EDIT, MORPH, MORPH_STREAM, TRANSLATE
    from homomorph_export.flavours import FLAVOURS
    from homomorph_export.serving.devices import choose_cores, choose_gpus
    from homomorph_export.serving.server import ServerTls, TritonServer

    if (tls_certificate is None) != (tls_key is None) or (tls_client_ca and not tls_key):
        raise ServerError("an encrypted server needs both --tls-certificate and --tls-key")
    choose_cores(cores)
    chosen = choose_gpus(gpus, FLAVOURS[flavour.value])
    offered = (MORPH, MORPH_STREAM, EDIT, TRANSLATE)
    server = TritonServer(
        repository,
        models=model or [name for name in offered if (repository / name).is_dir()] or [MORPH],
        flavour=FLAVOURS[flavour.value],
        backends=backends,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        cache_mib=cache_mib,
        cores=cores,
        gpus=chosen,
        tls=ServerTls(tls_certificate, tls_key, tls_client_ca) if tls_certificate and tls_key else None,
        log=log,
    )
    console = Console(stderr=True)
    try:
        with console.status(f"Loading {', '.join(server.models)}"):
            server.start()
        typer.echo(f"serving {', '.join(server.models)} from {repository}; Ctrl-C stops")
        if chosen:
            typer.echo(f"on GPU {', '.join(map(str, chosen))}")
        typer.echo(f"gRPC {host}:{grpc_port}   HTTP {host}:{http_port}   metrics {host}:{metrics_port}/metrics")
        server.wait()
    except KeyboardInterrupt:
        with console.status("Stopping"):
            server.stop()
