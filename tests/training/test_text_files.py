"""Damaged and hostile files give one line of the package's own error, in bounded time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from homomorph.batch import folder_items
from homomorph.data.labels import read_groups
from homomorph.data.parquet_pictures import unpack_pictures
from homomorph.data.provenance import read_provenance
from homomorph.errors import CheckpointError, ConfigError, DataError
from homomorph.runs.record import read_record
from homomorph.runs.run import load_model, load_tensors
from homomorph.training.settings import read_preset
from homomorph_client.errors import HomomorphError
from homomorph_export.configuration import read_config
from homomorph_export.manifest import check_weights

READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "config.json": (load_model, CheckpointError),
    "model.safetensors": (lambda folder: load_tensors(folder / "model.safetensors"), CheckpointError),
    "training.json": (read_record, CheckpointError),
    "render.json": (read_provenance, DataError),
    "groups.yaml": (lambda folder: read_groups(folder / "groups.yaml"), DataError),
    "preset.yaml": (lambda folder: read_preset(str(folder / "preset.yaml")), ConfigError),
    "manifest.json": (check_weights, HomomorphError),
    "config.pbtxt": (lambda folder: read_config(folder / "config.pbtxt"), ValueError),
    "a.parquet": (unpack_pictures, DataError),
    "b.parquet": (lambda folder: list(folder_items(folder)), DataError),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", READERS)
def test_nobody_waits_for_a_pipe(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    read, kind = READERS[name]
    with pytest.raises(kind, match=f"{name}.*it is no regular file"):
        read(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [name for name in READERS if name.endswith((".json", ".yaml"))])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 40 + b"1" + b"}" * 40, b"\xff", b"x" * 2**21])
def test_damaged_files_give_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    read, kind = READERS[name]
    with pytest.raises(kind, match=name) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


BOMB = "a: [&a x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""References that expand to 10^8 names."""


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", [BOMB, "steps: 2024-13-01", "steps: 1\nsteps: 2", "recipe: " + "{a: " * 300 + "}" * 300]
)
def test_unwanted_yaml_in_a_preset_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "preset.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"preset\.yaml") as caught:
        read_preset(str(tmp_path / "preset.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", ["steps=2024-13-01", "recipe=" + "[" * 2000, "a" + ".a" * 2000 + "=1", "a=[&x 1, *x]"]
)
def test_unwanted_yaml_in_a_setting_is_refused(change: str) -> None:
    with pytest.raises(ConfigError):
        read_preset("avatars64", [change])


def test_as_many_groups_as_fit_into_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "groups.yaml").write_text("".join(f"g{number}: [a{number}]\n" for number in range(14500)))
    with pytest.raises(DataError, match="14500 groups are more than"):
        read_groups(tmp_path / "groups.yaml")


@pytest.mark.parametrize("files", [[], {"a.pt": 1}, "a.pt"])
def test_a_manifest_without_a_mapping_of_files(tmp_path: Path, files: object) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"models": [], "files": files}))
    with pytest.raises(HomomorphError, match=r"manifest.json is damaged \(`files` must map"):
        check_weights(tmp_path)
