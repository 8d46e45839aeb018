"""The commands and programs of the README and of docs/tasks/call.md work as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from homomorph_cli.main import app
from homomorph_export.exporter import export_run
from homomorph_export.serving.server import TritonServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]
CALLS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tasks" / "call.md").read_text(encoding="utf-8"), re.DOTALL)


def test_there_is_something_to_try() -> None:
    assert len(COMMANDS) >= 6
    assert len(PROGRAMS) == 1


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_their_options_exist(line: str) -> None:
    # A training in two processes begins with `torchrun` and its own options.
    name, *words = shlex.split(re.sub("^torchrun --nproc-per-node 2 --no-python ", "", line), comments=True)
    assert name == "homomorph"
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):  # `homomorph`, and commands that have commands
        name, *words = words
        command = command.commands[name]
    command.make_context(name, words)  # raises for an unknown option or a value of the wrong type


def test_files_that_it_names_exist() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path


def kept_in_version_control(files: list[str]) -> set[str]:
    """Return the files of a repository that git would not ignore in `triton_repo/`."""
    paths = "\n".join(f"triton_repo/{file}" for file in files)
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    ignored = subprocess.run(command, cwd=ROOT, input=paths, capture_output=True, text=True, check=True).stdout
    return set(files) - {path.removeprefix("triton_repo/") for path in ignored.splitlines()}


def committed() -> set[str]:
    """Return the files of `triton_repo/` that are in version control, beside its README."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT / "triton_repo", capture_output=True, text=True, check=True)
    return set(listed.stdout.split()) - {"README.md"}


@pytest.mark.server
def test_the_programs_run_on_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = export_run("avatars64", tmp_path / "triton_repo")
    assert kept_in_version_control([*manifest.files, "manifest.json"]) == committed()
    for name in committed():
        assert (tmp_path / "triton_repo" / name).read_text() == (ROOT / "triton_repo" / name).read_text(), name
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    served: dict[str, Any] = {}
    local: dict[str, Any] = {}
    with TritonServer(tmp_path / "triton_repo", models=("morph", "edit")) as server:
        exec(PROGRAMS[0].replace("127.0.0.1:8001", server.grpc_url), names)
        exec(CALLS[0].replace("127.0.0.1:8001", server.grpc_url), served)
    exec(CALLS[1], local)
    assert names["frames"].shape == (9, 64, 64, 3)
    assert names["blond"].shape == (3, 64, 64, 3)
    assert names["pink"].shape == (5, 64, 64, 3)
    assert names["grid"].shape == (5, 5, 64, 64, 3)
    assert served["colours"].shape == (3, 64, 64, 3)
    assert served["pink"].shape == (5, 64, 64, 3)
    assert np.abs(served["frames"].astype(int) - local["frames"]).max() <= 1
