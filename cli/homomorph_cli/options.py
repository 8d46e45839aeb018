"""Options that several commands share."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from homomorph_client import MorphClient, SettingsError, StrengthError, Tls
from homomorph_client.connection import DEFAULT_TIMEOUT_S, DEFAULT_URL
from homomorph_client.morpher import Morpher
from homomorph_client.names import Method

Out = Annotated[
    list[Path],
    typer.Option(
        metavar="PATH",
        help=".png (all frames side by side), .gif (a loop there and back), .mp4, or a folder for one .png each. "
        "May be given several times.",
    ),
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Leave out rows of the table whose picture is not there.")
]
MethodOption = Annotated[
    Method,
    typer.Option(
        help="How to get from A to B: by groups, or in simpler ways: pixels mixed linearly, features linearly "
        "(latent) or spherically (slerp). Each of these is a served model of its name, which `homomorph serve "
        "--model` loads."
    ),
]


def gpus_option(use: str) -> Any:
    """Return the option `--gpus`; `use` says what runs on them."""
    return typer.Option(metavar="LIST", show_default="all", help=f"GPUs {use}, such as 0,1; none for the CPU.")


def parse_strength(word: str, value: str) -> float:
    """Read the number in an option `--set`. The limit is the model's, which is checked later.

    Raises:
        StrengthError: it is no finite number.
    """
    try:
        if math.isfinite(strength := float(value)):
            return strength
    except ValueError:
        pass
    raise StrengthError(f"--set {word!r}: {value!r} is not a number")


def _server_option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="The server", **settings)


@dataclass(frozen=True)
class Server:
    """Which server a command asks, and how. Each field is an option of every command with `asks_server`."""

    url: Annotated[
        str,
        _server_option(
            metavar="HOST:PORT",
            help="Triton's gRPC address. With several, separated by commas, requests go in turn to those that answer.",
        ),
    ] = DEFAULT_URL
    timeout_s: Annotated[float, _server_option("--timeout", metavar="SECONDS", help="Longest wait for an answer.")] = (
        DEFAULT_TIMEOUT_S
    )
    header: Annotated[
        list[str] | None,
        _server_option(
            metavar="NAME=VALUE",
            help="Sent with every call, such as authorization=@token.txt: a value that begins with @ is read from that "
            "file, so that no other user sees it. May be given several times.",
        ),
    ] = None
    tls: Annotated[bool, _server_option("--tls", help="Encrypt; the other --tls options do so too.")] = False
    tls_ca: Annotated[
        Path | None,
        _server_option(
            metavar="PEM", help="Authorities that sign the server's certificate.", show_default="the public ones"
        ),
    ] = None
    tls_certificate: Annotated[
        Path | None, _server_option(metavar="PEM", help="The client's own certificate, for mutual TLS.")
    ] = None
    tls_key: Annotated[Path | None, _server_option(metavar="PEM", help="Private key of --tls-certificate.")] = None
    tls_server_name: Annotated[
        str | None,
        _server_option(metavar="NAME", help="Name that the server's certificate is for.", show_default="the address's"),
    ] = None
    gzip: Annotated[bool, _server_option("--gzip", help="Compress requests, for slow networks.")] = False
    shared_memory: Annotated[
        bool,
        _server_option(
            "--shared-memory", help="Pass pictures and frames in shared memory, for a server on this machine."
        ),
    ] = False

    def client(self) -> MorphClient:
        """Return a client with these settings.

        Raises:
            SettingsError: they cannot be used.
            HomomorphError: as `MorphClient`.
        """
        return MorphClient(
            self.url,
            timeout_s=self.timeout_s,
            headers=dict(_parse_header(header) for header in self.header or ()),
            tls=self._tls(),
            gzip=self.gzip,
            shared_memory=self.shared_memory,
        )

    def _tls(self) -> Tls | None:
        tls = Tls(self.tls_ca, self.tls_certificate, self.tls_key, self.tls_server_name)
        return tls if self.tls or tls != Tls() else None


RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        show_default="a server computes",
        help="A run folder or a shipped model's name (avatars64), to compute here instead of on a server.",
    ),
]


@contextlib.contextmanager
def morpher(server: Server, run: str | None) -> Iterator[Morpher]:
    """Yield a client of the server, or the run in this process; both compute frames alike.

    Raises:
        SettingsError: a run is given together with options about a server.
        HomomorphError: the run cannot be loaded.
    """
    if run is None:
        with server.client() as client:
            yield client
        return
    check_no_server(server)
    import homomorph

    yield homomorph.load(run)


def check_no_server(server: Server) -> None:
    """Refuse options about a server where a run computes.

    Raises:
        SettingsError: there are some.
    """
    if server != Server():
        raise SettingsError("--run computes here: leave out --url, --timeout and all other options of a server")


def asks_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Server`, all of which it takes as one argument `server`."""
    fields = inspect.signature(Server, eval_str=True).parameters

    own = dict(inspect.signature(command, eval_str=True).parameters)
    del own["server"]

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        server = Server(**{name: values.pop(name) for name in fields})
        command(**values, server=server)

    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in (*own.values(), *fields.values())]
    with_options.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # which Typer reads
    return with_options


def _parse_header(header: str) -> tuple[str, str]:
    name, equals, value = header.partition("=")
    if not (name and equals):
        raise SettingsError(f"--header {header!r} must be NAME=VALUE, such as authorization=@token.txt")
    if not value.startswith("@"):
        return name, value
    try:
        return name, Path(value[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--header {name}: the file {value[1:]} cannot be read: {error}") from error
