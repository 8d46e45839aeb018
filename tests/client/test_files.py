"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from homomorph_client.errors import OutputError
from homomorph_client.files import remove_leftovers, replacing, write_text


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "é")
    write_text(tmp_path / "new" / "a.txt", "b")
    assert (tmp_path / "new" / "a.txt").read_text() == "b"
    assert os.listdir(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("old", [None, "empty", "full", "file"])
def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path, old: str | None) -> None:
    place = tmp_path / "run"
    if old in ("empty", "full"):
        place.mkdir()
    if old == "full":
        (place / "old").touch()
    if old == "file":
        place.touch()
    if old == "file":
        with pytest.raises(OutputError, match="cannot be written"), replacing(place) as partial:
            partial.mkdir()
        assert place.is_file()
    else:
        with replacing(place) as partial:
            partial.mkdir()
            (partial / "new").touch()
        assert os.listdir(place) == ["new"]
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    write_text(tmp_path / "a.txt", "old")

    def write_half() -> None:
        with replacing(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.txt cannot be written: the disk is full"), replacing(tmp_path / "a.txt"):
        Path("/dev/full").write_text("x")
    assert not os.listdir(tmp_path)


def test_an_error_about_a_file_that_is_read_stays(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        Path("/nowhere/at/all").read_text()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys; from homomorph_client.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    place = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", program, str(place)], check=False)
    (left,) = os.listdir(tmp_path)
    assert left.endswith(".partial.txt")
    other = tmp_path / left.replace("a.txt", "b.txt")
    other.touch()
    write_text(place, "whole")
    assert sorted(os.listdir(tmp_path)) == sorted([other.name, "a.txt"])


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    with replacing(place) as partial:
        partial.write_text("half")
        remove_leftovers(place)
        assert partial.exists()


def test_a_long_name_is_written(tmp_path: Path) -> None:
    place = tmp_path / ("é" * 120 + ".txt")
    write_text(place, "x")
    assert os.listdir(tmp_path) == [place.name]
