"""The commands and programs of the pages on client, server, comparison and CycleGANs work as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from homomorph_cli.main import app
from homomorph_export.serving.server import TritonServer

ROOT = Path(__file__).parents[2]
TASKS = [f"tasks/{file.name}" for file in sorted((ROOT / "docs" / "tasks").glob("*.md"))]
TEXTS = {
    name: (ROOT / "docs" / name).read_text(encoding="utf-8")
    for name in ("client.md", "serving.md", "comparison.md", "cyclegan.md", "ui.md", *TASKS)
}


def blocks(name: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXTS[name], re.DOTALL)


@pytest.mark.parametrize(
    "line", [line for name in TEXTS for block in blocks(name, "sh") for line in block.replace("\\\n", "").splitlines()]
)
def test_commands_and_their_options_exist(line: str) -> None:
    homomorph, name, *words = shlex.split(line, comments=True)
    assert homomorph == "homomorph"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    while hasattr(command, "commands"):  # commands that have commands
        name, *words = words
        command = command.commands[name]
    command.make_context(name, words)


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_they_name_exist(name: str) -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", TEXTS[name]):
        assert (ROOT / "docs" / name).parent.joinpath(path).exists(), path


@pytest.mark.server
def test_the_examples_of_the_client_run(
    blender: TritonServer, certificates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    program = "\n".join(blocks("client.md", "python"))
    for said, meant in {
        "127.0.0.1:8001": blender.grpc_url,
        "gpu1:8001": blender.grpc_url,
        "gpu2:8001": blender.grpc_url,
        "certs/ca.pem": str(certificates.ca),
        "certs/client.pem": str(certificates.client[0]),
        "certs/client.key": str(certificates.client[1]),
    }.items():
        assert said in program
        program = program.replace(said, meant)
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["frames"].shape == (9, 64, 64, 3)
    assert names["first"].shape == names["frame"].shape == (64, 64, 3)
    assert [film.shape for film in names["films"]] == [(9, 64, 64, 3)] * 4
    assert names["grid"].shape == (5, 5, 64, 64, 3)
    for client in ("client", "several", "secure"):
        names[client].close()
