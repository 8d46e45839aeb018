"""`homomorph ui`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from homomorph_cli.options import RunOption, Server, asks_server, morpher
from homomorph_cli.progress import progress_display
from homomorph_client import HomomorphError, MorphClient, SettingsError
from homomorph_client.morpher import Morpher
from homomorph_client.names import EDIT, MORPH
from homomorph_client.pictures import load_picture
from homomorph_client.version import install_hint

_FIND_S = 2.0
"""Longest wait for a server at the usual address."""


@asks_server
def ui(
    server: Server,
    pictures: Annotated[
        list[Path] | None, typer.Argument(metavar="A B", help="Pictures that the page opens with.")
    ] = None,
    run: RunOption = None,
    repository: Annotated[
        Path | None,
        typer.Option(
            show_default="triton_repo", help="Folder that `homomorph export` wrote, for a server that is started here."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 for any free one.")] = 7860,
) -> None:
    """Open a page with sliders for your browser, until Ctrl-C. Other machines cannot reach it.

    The model is on a server (--url) or in this process (--run). With neither, a server at the usual address is used, or
    one is started on --repository.
    """
    if repository is not None and (run is not None or server != Server()):
        raise SettingsError("--repository is for a server that is started here: leave it out with --run or --url")
    if find_spec("starlette") is None:
        raise HomomorphError(f"to open the page, {install_hint('ui')} (starlette is not installed)")
    from homomorph_ui.app import page_app
    from homomorph_ui.serve import listen, page_server

    if len(pictures or []) > 2:
        raise SettingsError(f"the page opens with at most two pictures, not {len(pictures or [])}")
    opened = [load_picture(picture) for picture in pictures or []]
    with listen(port) as listener, _chosen_morpher(server, run, repository or Path("triton_repo")) as (model, where):
        typer.echo(f"open http://127.0.0.1:{listener.getsockname()[1]} in your browser; Ctrl-C stops")
        with contextlib.suppress(KeyboardInterrupt):
            page_server(page_app(model, where, opened)).run(sockets=[listener])


@contextlib.contextmanager
def _chosen_morpher(server: Server, run: str | None, repository: Path) -> Iterator[tuple[Morpher, str]]:
    """Yield the morpher that computes the frames, and its description for the page.

    Raises:
        HomomorphError: the run cannot be loaded, or no server answers and none can be started.
    """
    if run is not None or server != Server():
        with morpher(server, run) as model:
            yield model, f"Triton at {server.url}" if run is None else f"{run}, in this process"
        return
    with server.client() as client:
        if client.ready(timeout_s=_FIND_S):
            yield client, f"Triton at {client.url}"
            return
    with _started(repository) as url, MorphClient(url) as client:
        yield client, f"Triton at {url}"


@contextlib.contextmanager
def _started(repository: Path) -> Iterator[str]:
    """Start a server and yield its address.

    Raises:
        ServerError: it cannot be started.
    """
    from homomorph_export.serving.distribution import ensure_triton
    from homomorph_export.serving.server import TritonServer

    models = [MORPH, *([EDIT] if (repository / EDIT).is_dir() else [])]
    server = TritonServer(repository, models=models, cache_mib=64, restart=True)
    server.check()  # before anything is installed
    with progress_display() as report:
        ensure_triton(report)
    typer.echo(f"no server answers at the usual address: starting one on {repository}", err=True)
    with server:
        yield server.grpc_url
