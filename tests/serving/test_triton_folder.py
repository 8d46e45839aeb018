"""Triton in a folder of its own, for environments with numpy 2 or without nvidia-pytriton."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from homomorph.progress import Progress
from homomorph_client.errors import ServerError
from homomorph_client.version import install_hint
from homomorph_export.serving import distribution, guard, triton_folder


@pytest.fixture
def numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of itself."""
    monkeypatch.setattr(distribution.importlib.metadata, "version", lambda name: "2.3.5")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Triton's folder would be."""
    monkeypatch.setenv(triton_folder.FOLDER_VARIABLE, str(tmp_path / "triton"))
    return tmp_path / "triton"


def link_packages(folder: Path) -> None:
    """Fill the folder with this environment's nvidia-pytriton and numpy 1, as pip would."""
    folder.mkdir()
    for name in ("pytriton", "numpy"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (folder / name).symlink_to(Path(spec.origin).parent)
    (folder / "nvidia_pytriton.libs").symlink_to((folder / "pytriton").resolve().parent / "nvidia_pytriton.libs")


def test_this_environment_is_taken_where_it_can_be(folder: Path) -> None:
    assert not distribution.find_distribution().is_relative_to(folder)
    distribution.ensure_triton()
    assert not folder.exists()


@pytest.mark.usefixtures("numpy_2")
def test_the_folder_is_taken_otherwise(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match="or let `homomorph serve` install Triton into a folder of its own"):
        distribution.find_distribution()
    reports: list[Progress] = []
    monkeypatch.setattr(distribution, "make_triton_folder", lambda: link_packages(folder))
    for _ in range(2):
        distribution.ensure_triton(reports.append)
    assert [report.stage for report in reports] == [f"Installing Triton into {folder}, once (75 MB)"]
    found = distribution.find_distribution()
    assert found == folder / "pytriton" / "tritonserver"
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert distribution.environment(found)["PYTHONPATH"] == f"{folder}{os.pathsep}/elsewhere"


def test_without_torch_nothing_is_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServerError, match=rf"to serve, {re.escape(install_hint('export'))}.*torch"):
        distribution.ensure_triton()
    assert not folder.exists()


def test_a_repository_that_cannot_be_served_is_refused_before_anything_is_installed(
    homomorph: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distribution, "make_triton_folder", lambda: pytest.fail("it was installed"))
    monkeypatch.setattr(distribution.importlib.metadata, "version", lambda name: "2.3.5")
    outcome = homomorph("serve", "--repository", tmp_path / "absent")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no model repository" in outcome.err


def test_pip_fills_the_folder_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        target = Path(command[command.index("--target") + 1])
        target.mkdir()
        (target / "numpy").touch()
        return subprocess.CompletedProcess(command, len(commands) - 1, "", "WARNING: x\nERROR: no matching numpy\n")

    monkeypatch.setattr(triton_folder.subprocess, "run", pip)
    assert triton_folder.make_triton_folder() == folder
    assert [path.name for path in folder.iterdir()] == ["numpy"]
    assert commands[0][-2:] == list(triton_folder.REQUIREMENTS)
    (folder / "numpy").write_text("old")
    with pytest.raises(ServerError, match=r"could not be installed into .*: ERROR: no matching numpy"):
        triton_folder.make_triton_folder()
    assert (folder / "numpy").read_text() == "old"
    assert [path.name for path in folder.parent.iterdir()] == ["triton"]


def test_a_pip_that_hangs_is_ended(folder: Path, hanging_program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(hanging_program))
    monkeypatch.setattr(triton_folder, "_INSTALL_TIMEOUT_S", 0.5)
    with pytest.raises(ServerError, match=r"could not be installed into .* within 0\.5 s"):
        triton_folder.make_triton_folder()
    assert not folder.exists()


def test_a_compiler_that_hangs_is_ended(
    hanging_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", str(hanging_program))
    monkeypatch.setattr(guard, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(guard, "_BUILD_TIMEOUT_S", 0.5)
    assert guard.build_guard() is None
    assert len(caplog.messages) == 1
    assert "timed out after 0.5 seconds" in caplog.text


@pytest.mark.server
def test_a_server_answers_from_an_environment_with_numpy_2(
    served: Any, folder: Path, tmp_path: Path, pictures: npt.NDArray[np.uint8]
) -> None:
    """Its processes get a numpy that calls itself 2, and would send empty answers if they took it."""
    link_packages(folder)
    numpy_2 = tmp_path / "numpy_2" / "numpy"
    numpy_2.mkdir(parents=True)
    (numpy_2 / "__init__.py").write_text("raise ImportError('the numpy of this environment')")
    program = """
import os, sys
from homomorph_export.serving import distribution, server
distribution.importlib.metadata.version = lambda name: "2.3.5"
from homomorph_client import MorphClient
import numpy as np
os.environ["PYTHONPATH"] = sys.argv[1]  # for the server's processes alone
pictures = np.load(sys.argv[2])
with server.TritonServer(server.Path(sys.argv[3]), models=["morph"]) as running:
    with MorphClient(running.grpc_url) as client:
        np.save(sys.argv[4], client.morph(*pictures, steps=3))
"""
    np.save(tmp_path / "pictures.npy", pictures)
    out = tmp_path / "frames.npy"
    words = [str(numpy_2.parent), str(tmp_path / "pictures.npy"), str(served.repository), str(out)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    strengths = np.repeat(np.linspace(0, 1, 3, dtype=np.float32)[None, :, None], 3, axis=2)
    expected = served.expected(pictures[:1], pictures[1:], strengths)[0]
    assert int(np.abs(np.load(out).astype(int) - expected.astype(int)).max()) <= 1
