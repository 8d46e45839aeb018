"""Packages are installed under their own names, typed, and with no more dependencies than they need."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import homomorph_client
from homomorph_cli import bench, one_line_errors
from homomorph_client import version
from homomorph_client.version import DISTRIBUTION, WEIGHTS, __version__, install_hint
from homomorph_export.serving.triton_folder import REQUIREMENTS

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib  # type: ignore[import-not-found, no-redef]

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PACKAGES = ("homomorph", "homomorph_bench", "homomorph_cli", "homomorph_client", "homomorph_export", "homomorph_ui")


def test_no_page_and_no_message_installs_a_foreign_package() -> None:
    """PyPI's `homomorph` is a library of hidden Markov models. A warning may name it; a command may not."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [
        ROOT / name for name in tracked.splitlines() if name.endswith((".md", ".py", ".toml", "Makefile", ".yaml"))
    ]
    foreign = re.compile(r"pip install [^\n`]*[\s'\"]homomorph(?![\w-])(?! would bring)|['\"]homomorph\[")
    found = [
        f"{file.relative_to(ROOT)}: {match.group()}"
        for file in files
        if file.exists()
        for match in foreign.finditer(file.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_name_and_the_version_stand_once() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert homomorph_client.__version__ == __version__
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "homomorph_client.version.__version__"}


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, "pip install 'homomorph-interpolation[train]'"),
        (
            {"url": "https://example.org/homomorph.whl", "archive_info": {}},
            "pip install 'homomorph-interpolation[train]'",
        ),
        ({"url": "file:///home/me/my%20clone", "dir_info": {}}, "pip install '/home/me/my clone[train]'"),
        ({"url": "file:///home/me/clone", "dir_info": {"editable": True}}, "pip install -e '/home/me/clone[train]'"),
    ],
)
def test_an_extra_is_installed_from_where_homomorph_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, record: dict[str, Any] | None, command: str
) -> None:
    (tmp_path / "METADATA").write_text(f"Name: {DISTRIBUTION}\n", encoding="utf-8")
    if record is not None:
        (tmp_path / "direct_url.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr(version, "distribution", lambda name: importlib.metadata.PathDistribution(tmp_path))
    assert version.install_hint("train") == command


def test_an_extra_is_installed_by_name_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "DISTRIBUTION", "no-such-distribution")
    assert version.install_hint("train") == "pip install 'no-such-distribution[train]'"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed_and_has_a_version(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"][package]
    assert importlib.import_module(package).__version__ == __version__


def test_only_the_server_holds_numpy_back() -> None:
    bounded = {
        name
        for name, needs in {"client": PROJECT["dependencies"], **EXTRAS}.items()
        for need in needs
        if need.startswith("numpy") and "<" in need
    }
    assert bounded == {"serve"}
    assert PROJECT["requires-python"] == ">=3.10"


def test_the_server_is_in_no_other_extra() -> None:
    """It would hold numpy back for everybody who installs that extra."""
    assert not any(re.search(r"[\[,]serve[\],]", need) for needs in EXTRAS.values() for need in needs)


def test_the_lock_pins_each_dependency_and_names_no_host() -> None:
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "//" not in locked
    pinned = {canonical(line) for line in locked.splitlines() if "==" in line}
    needs = [need for needs in (PROJECT["dependencies"], *EXTRAS.values()) for need in needs if "< '3.11'" not in need]
    assert {canonical(need) for need in needs} - {canonical(DISTRIBUTION)} <= pinned


def canonical(requirement: str) -> str:
    """The name of a distribution, as pip compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;, ]", requirement)[0]).lower()


def test_the_weights_and_the_citation_have_the_version() -> None:
    weights = tomllib.loads((ROOT / "training/homomorph/weights/pyproject.toml").read_text(encoding="utf-8"))
    assert (weights["project"]["name"], weights["project"]["version"]) == (WEIGHTS, __version__)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert citation["version"] == __version__


@pytest.mark.slow
def test_the_clients_wheel_is_small_and_the_weights_have_their_own(tmp_path: Path) -> None:
    """Without isolation, so that nothing is downloaded."""
    for source in (".", "training/homomorph/weights"):
        copy = tmp_path / "source" / Path(source).name
        shutil.copytree(
            ROOT / source, copy, ignore=shutil.ignore_patterns(".*", "tests", "docs", "out", "build", "data")
        )
        words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, copy]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    wheels = {file.name.split("-")[0]: file for file in tmp_path.glob("*.whl")}
    ours, weights = wheels["homomorph_interpolation"], wheels["homomorph_interpolation_weights"]
    names = zipfile.ZipFile(ours).namelist()
    assert ours.stat().st_size < 2**20
    assert not any("safetensors" in name for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    held = {name for name in zipfile.ZipFile(weights).namelist() if ".dist-info/" not in name}
    folder = ROOT / "training" / "homomorph" / "weights"
    assert held == {f"homomorph/weights/{file.relative_to(folder)}" for file in folder.glob("*64/*")}


def test_the_servers_own_folder_holds_what_the_extra_names() -> None:
    triton, numpy = REQUIREMENTS
    assert {triton, numpy} <= set(EXTRAS["serve"])


def test_hints_name_extras_that_exist() -> None:
    assert {extra for _, extra in one_line_errors._EXTRAS.values()} <= EXTRAS.keys()
    peers = " ".join(EXTRAS["bench-peers"])
    assert all(name in peers for name in ("openvino", "fastapi", "litserve", "uvicorn"))
    assert not any(need.startswith(("openvino", "fastapi")) for need in EXTRAS["all"] + EXTRAS["bench"])


def test_a_missing_extra_says_what_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("sys.argv", ["homomorph", "train", "data"])
    with pytest.raises(SystemExit) as ended:
        one_line_errors.run_app(lambda *_, **__: missing())  # type: ignore[arg-type, return-value]
    assert ended.value.code == 2
    said = f"homomorph: to train, {install_hint('train')} (torch is not installed)\n"
    assert capsys.readouterr().err == said


def test_missing_peers_are_said_before_anything_is_measured(
    homomorph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda module: None)
    for words in (("serving",), ("model", "--runtime", "openvino")):
        outcome = homomorph("bench", *words, "--out", tmp_path / "out")
        assert outcome.code == 2
        assert install_hint("bench-peers") in outcome.err
        assert not (tmp_path / "out").exists()


def test_the_version_can_be_asked_for(homomorph: Any) -> None:
    outcome = homomorph("--version")
    assert (outcome.code, outcome.out) == (0, f"homomorph {__version__}\n")


def test_a_shell_can_complete_commands_and_options() -> None:
    for words, expected in (("homomorph gri", "grid"), ("homomorph morph --ste", "--steps")):
        command = [
            sys.executable,
            "-c",
            "import sys; sys.argv = ['homomorph']; from homomorph_cli.main import run; run()",
        ]
        shell = {"_HOMOMORPH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        completed = subprocess.run(command, env={**os.environ, **shell}, capture_output=True, text=True, check=False)
        assert completed.stdout.split() == [expected], completed.stderr


@pytest.mark.slow
def test_the_pages_build_into_a_site_without_a_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", ROOT / "docs", tmp_path]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    assert (tmp_path / "index.html").exists()


def test_each_target_of_the_makefile_is_a_script_that_a_shell_can_read() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    for target in targets.split():
        command = ["make", "--dry-run", "--always-make", target]
        recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        read = subprocess.run(["sh", "-n"], input=recipe, capture_output=True, text=True, check=False)
        assert (read.returncode, read.stderr) == (0, ""), target
