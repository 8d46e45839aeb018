"""The options about the server that `homomorph morph`, `edit`, `grid` and `translate` share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from homomorph_cli import edit, grid, morph, translate
from homomorph_cli.options import Server
from homomorph_client import SettingsError
from homomorph_export.serving.server import TritonServer
from homomorph_export.serving.tls import ServerTls


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture's file."""
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("command", [morph.morph, edit.edit, grid.grid, translate.translate])
def test_each_command_has_them_all(command: Callable[..., None]) -> None:
    assert {field.name for field in fields(Server)} <= set(inspect.signature(command).parameters)


@pytest.mark.server
def test_mutual_tls_and_gzip(
    homomorph: Callable[..., Any], blender_repository: Path, certificates: Any, picture: Path
) -> None:
    out = picture.parent / "out.png"
    with TritonServer(blender_repository, tls=ServerTls(*certificates.server, client_ca=certificates.ca)) as server:
        words = ["morph", picture, picture, "--steps", 2, "--url", server.grpc_url, "--timeout", 20, "--out", out]
        certificate, key = certificates.client
        tls = ["--tls-ca", certificates.ca, "--tls-server-name", "morph.test"]
        refused = homomorph(*words, *tls)
        assert (refused.code, refused.err.count("\n"), out.exists()) == (2, 1, False)
        outcome = homomorph(*words, *tls, "--tls-certificate", certificate, "--tls-key", key, "--gzip")
        assert (outcome.code, outcome.err) == (0, "")
    assert (np.asarray(Image.open(out)) == 200).all()


@pytest.mark.server
def test_shared_memory(homomorph: Callable[..., Any], blender: TritonServer, picture: Path) -> None:
    words = ["--rows", "skin", "--columns", "hair_colour", "--size", 2, "--url", blender.grpc_url]
    outcome = homomorph("grid", picture, picture, *words, "--shared-memory", "--out", picture.parent / "grid.png")
    assert (outcome.code, outcome.err) == (0, "")
    assert (np.asarray(Image.open(picture.parent / "grid.png")) == 200).all()


def test_headers(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("Bearer secret\n")
    with Server(header=["X-Team=a=b", f"Authorization=@{tmp_path / 'token'}"]).client() as client:
        assert client._connection.metadata() == [("x-team", "a=b"), ("authorization", "Bearer secret")]


def test_public_authorities() -> None:
    with Server(tls=True).client() as client:
        assert client._connection.tls is not None
    with Server().client() as client:
        assert client._connection.tls is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--header", "token"], "--header 'token' must be NAME=VALUE"),
        (["--header", "authorization=@nothing"], "the file nothing cannot be read"),
        (["--header", "a b=c"], "the header 'a b' cannot be sent"),
        (["--header", "a=\u00e9"], "the header 'a' cannot be sent"),
        (["--tls-key", "a.pem"], "needs both the client's certificate and its key"),
        (["--tls-ca", "nothing.pem"], "nothing.pem cannot be read"),
        (["--timeout", "-1"], "more than 0 s"),
        (["--shared-memory", "--url", "127.0.0.1:9,127.0.0.1:10"], "for one server, not for 2"),
    ],
)
def test_mistakes_are_one_line(
    homomorph: Callable[..., Any], picture: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(picture.parent)
    url = [] if "--url" in words else ["--url", "127.0.0.1:9"]
    outcome = homomorph("edit", picture, "--set", "skin=pale", *url, *words, "--out", "out.png")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err
    assert not Path("out.png").exists()


@pytest.mark.parametrize("words", [["--url", "127.0.0.1:9"], ["--timeout", "3"], ["--gzip"], ["--header", "a=b"]])
def test_a_translation_that_is_computed_here_asks_no_server(
    homomorph: Callable[..., Any], cyclegan_runs: tuple[Path, Path], picture: Path, words: list[str]
) -> None:
    out = picture.parent / "out.png"
    mine = ["translate", picture, "--steps", "smiling", "--run", cyclegan_runs[0], "--out", out]
    outcome = homomorph(*mine, *words)
    assert (outcome.code, outcome.err.count("\n"), out.exists()) == (2, 1, False)
    assert "--run computes here: leave out --url" in outcome.err
    assert homomorph(*mine).code == 0


def test_secrets_are_not_in_messages() -> None:
    with Server(header=["authorization=se\ncret"]).client() as client, pytest.raises(SettingsError) as refused:
        client.ready()
    assert "cret" not in str(refused.value)
