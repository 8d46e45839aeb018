"""What the demo says at its end, without a server; tests/serving has it with one."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer

from homomorph_cli import demo
from homomorph_cli.main import app

DOCS = Path(__file__).parents[2] / "docs"


class Client:
    """Answers at once."""

    groups = ("hair", "residual")

    def morph(self, *pictures: Any, steps: int = 9, strengths: Any = None) -> np.ndarray:
        return np.zeros((steps, 64, 64, 3), dtype=np.uint8)


def test_the_last_line_is_a_command_that_moves_the_sliders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    files = [shutil.copy(DOCS / f"{name}.png", folder) for name in ("source", "target")]
    server = contextlib.nullcontext(SimpleNamespace(grpc_url="127.0.0.1:8001"))
    monkeypatch.setattr("homomorph_export.exporter.export_run", lambda *_, **__: None)
    monkeypatch.setattr("homomorph_export.serving.distribution.ensure_triton", lambda _: None)
    monkeypatch.setattr("homomorph_export.serving.server.TritonServer", lambda *_, **__: server)
    monkeypatch.setattr(demo, "MorphClient", lambda _: contextlib.nullcontext(Client()))
    monkeypatch.setattr(sys, "argv", ["demo", *map(str, files), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as exited:
        demo.run_app(demo.app)
    assert not exited.value.code
    program, name, *words = shlex.split(capsys.readouterr().out.splitlines()[-1].partition(": ")[2])
    assert Path(program).name == "homomorph"
    assert words == [*map(str, files), "--run", "avatars64"]
    typer.main.get_command(app).commands[name].make_context(name, [*words])  # type: ignore[attr-defined]
