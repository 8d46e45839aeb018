"""`homomorph serve`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from homomorph_cli.options import gpus_option
from homomorph_cli.progress import progress_display

if TYPE_CHECKING:
    from homomorph_export.serving.server import TritonServer


def serve(
    repository: Annotated[Path, typer.Option(help="Folder that `homomorph export` wrote.")] = Path("triton_repo"),
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Model to load, with the models that it is made of. May be given several times.",
            show_default="those of morph, morph_stream, edit and translate that the repository has",
        ),
    ] = None,
    flavour: Annotated[
        Literal["python", "libtorch", "onnx", "openvino", "aoti"],
        typer.Option(
            help="Which of Triton's backends runs the models. nvidia-pytriton brings python alone, NVIDIA's container "
            "brings all; aoti needs release 26.05 or newer, and `export --aot`."
        ),
    ] = "python",
    engine: Annotated[
        Literal["auto", "torchscript", "onnxruntime", "openvino"],
        typer.Option(
            help="Which runtime computes the encoder and the decoder of morphs on the CPU. auto measures the installed "
            "ones, at the first start on a machine, and takes the fastest."
        ),
    ] = "torchscript",
    backends: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            show_default="/opt/tritonserver/backends",
            help="Folder of Triton's backends, for the flavours libtorch, onnx, openvino and aoti.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is open to the network.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="Port for clients.")] = 8001,
    http_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, show_default="HTTP is off", help="Port of Triton's HTTP protocol."),
    ] = None,
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
        typer.Option(
            metavar="PEM", help="Accept only clients whose certificate these authorities have signed (mutual TLS)."
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option(help="Restart the server if it dies, at most five times within ten minutes."),
    ] = True,
    start_timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Longest wait until the models are loaded.")
    ] = 180.0,
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
    from homomorph_export.serving.distribution import ensure_triton
    from homomorph_export.serving.ports import is_loopback
    from homomorph_export.serving.server import TritonServer
    from homomorph_export.serving.tls import ServerTls

    if (tls_certificate is None) != (tls_key is None) or (tls_client_ca and not tls_key):
        raise ServerError("an encrypted server needs both --tls-certificate and --tls-key")
    choose_cores(cores)
    chosen = choose_gpus(gpus, FLAVOURS[flavour])
    offered = (MORPH, MORPH_STREAM, EDIT, TRANSLATE)
    server = TritonServer(
        repository,
        models=model or [name for name in offered if (repository / name).is_dir()] or [MORPH],
        flavour=FLAVOURS[flavour],
        engine=engine,
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
        restart=restart,
        start_timeout_s=start_timeout,
    )
    if not (server.is_encrypted or is_loopback(host)):
        typer.echo(
            f"homomorph: warning: without TLS, everybody who reaches {host} can use this server: see docs/security.md",
            err=True,
        )
    server.check()  # before anything is installed
    with progress_display() as report:
        ensure_triton(report)
        server.choose_engine(report)
    console = Console(stderr=True)
    try:
        with console.status(f"Loading {', '.join(server.models)}"):
            server.start()
        typer.echo(f"serving {', '.join(server.models)} from {repository}; Ctrl-C stops")
        if engine != "torchscript":
            measured = (f"{name} {time_ms:.1f} ms" for name, time_ms in server.engine_ms.items())
            typer.echo("   ".join([f"engine {server.engine}", *measured]))
        if chosen:
            typer.echo(f"on GPU {', '.join(map(str, chosen))}")
        typer.echo("   ".join(f"{_SERVICES[name]} {server.url(name)}" for name in server.ports))
        signal.signal(signal.SIGUSR1, lambda *_: _load_again(server))
        typer.echo(f"to load new versions of the models: kill -USR1 {os.getpid()}")
        server.wait(report=lambda line: typer.echo(f"homomorph: {line}", err=True))
    except KeyboardInterrupt:
        with console.status("Stopping"):
            server.stop()


_SERVICES = {"grpc": "gRPC", "http": "HTTP", "metrics": "metrics"}


def _load_again(server: TritonServer) -> None:
    """Load the newest version of each model that is loaded, and print a line for each."""
    from homomorph_export.serving.control import ControlError

    for model in server.loaded():
        try:
            server.load(model)
            line = f"loaded {model} again"
        except ControlError as error:
            line = f"{model} goes on as it was, its newest version does not load: {error}"
        typer.echo(f"homomorph: {line}", err=True)
