"""A repository is replaced in one step, and holds whole exports, whoever else exports, reads or is killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homomorph.models.config import ModelConfig
from homomorph_client.files import staging
from homomorph_export.catalogue import morph_models, translation_models
from homomorph_export.contract import Model
from homomorph_export.errors import ExportError
from homomorph_export.manifest import Manifest
from homomorph_export.repository import check_replaceable, publish, write_description

Hair, Hat = (morph_models(ModelConfig({name: (name,)}), labels=False) for name in ("hair", "hat"))
Translate = translation_models({"smiling": 4}, 64)


def export(repository: Path, models: tuple[Model, ...], method: str = "homomorph") -> None:
    """Do what an export does once its files are made, without weights."""
    with staging(repository.resolve()) as staged:
        for model in models:
            write_description(staged / model.name, model, method=method)
        names = tuple(model.name for model in models)
        publish(staged, repository, Manifest(64, 8, "fp32", {}, names, {}, {}, method))


def names(models: tuple[Model, ...]) -> set[str]:
    return {model.name for model in models}


def folders(repository: Path) -> set[str]:
    return {path.name for path in repository.iterdir() if path.is_dir()}


def test_whoever_looks_sees_one_export(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    export(repository, Hair)
    seen: list[set[str]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            handle = os.open(repository, os.O_RDONLY)
            seen.append(set(os.listdir(handle)) - {"manifest.json"})
            os.close(handle)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(5):
            export(repository, Hat)
            export(repository, Hair)
    finally:
        ended.set()
        looking.join()
    whole = [names(Hair), names(Hat)]
    # A listing of a folder that has just been replaced, and is being removed, is shorter.
    assert [found for found in seen if not any(found <= each for each in whole)] == []
    assert folders(repository) == names(Hair)


def test_exports_at_once_do_not_mix(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    work: list[tuple[Any, ...]] = [(Hair,), (Hat,), (Translate, "cyclegan")] * 4
    threads = [threading.Thread(target=export, args=(repository, *arguments)) for arguments in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    morphs = folders(repository) - names(Translate)
    assert morphs in (names(Hair), names(Hat))
    assert names(Translate) <= folders(repository)
    manifest = json.loads((repository / "manifest.json").read_text())
    listed = set(manifest["models"]).union(*(other["models"] for other in manifest["others"]))
    assert listed == folders(repository)
    assert os.listdir(tmp_path) == ["repository"]


KILLED = """
import os, pathlib, signal, sys
from homomorph_client.files import staging
with staging(pathlib.Path(sys.argv[1])) as staged:
    (staged / "half").mkdir(parents=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    export(repository, Hair)
    subprocess.run([sys.executable, "-c", KILLED, str(repository)], check=False)
    assert len(os.listdir(tmp_path)) == 2
    export(repository, Hat)
    assert os.listdir(tmp_path) == ["repository"]
    assert folders(repository) == names(Hat)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b", 7, None])
def test_a_manifest_of_paths_deletes_nothing(tmp_path: Path, name: object) -> None:
    repository = tmp_path / "repository"
    export(repository, Hair)
    (tmp_path / "x").mkdir()
    (repository / "mine").mkdir()
    manifest = json.loads((repository / "manifest.json").read_text())
    (repository / "manifest.json").write_text(json.dumps(manifest | {"models": [name]}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExportError, match=r"manifest\.json is damaged"):
        export(repository, Hat)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_manifest_that_lists_a_foreign_folder_does_not_delete_it(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    export(repository, Hair)
    (repository / "mine").mkdir()
    (repository / "mine" / "file").write_text("keep me")
    manifest = json.loads((repository / "manifest.json").read_text())
    (repository / "manifest.json").write_text(json.dumps(manifest | {"models": [*manifest["models"], "mine"]}))
    export(repository, Hat)
    assert (repository / "mine" / "file").read_text() == "keep me"


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "null", "7", '{"models": []', '{"models": [], "others": [1]}', "\xff"]
)
def test_a_damaged_manifest_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ExportError, match=r"manifest\.json is damaged") as caught:
        export(tmp_path / "repository", Hair)
    assert "\n" not in str(caught.value)


def linked(repository: Path) -> None:
    shutil.move(repository, repository.with_name("elsewhere"))
    repository.symlink_to("elsewhere", target_is_directory=True)


def with_links(repository: Path) -> None:
    (repository / "link").symlink_to("nowhere")
    (repository / "notes").mkdir()
    (repository / "notes" / "link").symlink_to("nowhere")


@pytest.mark.parametrize("change", [linked, with_links])
def test_links_stay_links(tmp_path: Path, change: Callable[[Path], None]) -> None:
    repository = tmp_path / "repository"
    export(repository, Hair)
    repository.chmod(0o750)
    change(repository)
    links = {path for path in tmp_path.rglob("*") if path.is_symlink()}
    export(repository, Hat)
    assert {path for path in tmp_path.rglob("*") if path.is_symlink()} == links
    assert names(Hat) <= folders(repository)
    assert repository.stat().st_mode & 0o777 == 0o750


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    with pytest.raises(ExportError, match="is the current folder"):
        check_replaceable(Path())
    check_replaceable(tmp_path / "other")
