"""Folders in, folders out: each result once, whole, and again only where it is missing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from homomorph.batch import Compute, Item, folder_items, paired_items, run_local
from homomorph.errors import DataError
from homomorph.progress import Progress
from homomorph_client.pictures import Picture, load_picture


@dataclass(frozen=True)
class Darken:
    """Halves a picture, and logs each call; `fatal` ends the process, once."""

    log: str
    fatal: str = ""
    factor: int = 2

    def settings(self) -> dict[str, Any]:
        return {"factor": self.factor}

    @contextlib.contextmanager
    def open(self) -> Iterator[Compute]:
        def compute(pictures: Sequence[Picture]) -> np.ndarray[Any, np.dtype[np.uint8]]:
            pixels = [load_picture(picture) for picture in pictures]
            with Path(self.log).open("a") as file:
                file.write(f"{pixels[0][0, 0, 0]}\n")
            marker = Path(self.log + ".died")
            if self.fatal and isinstance(pictures[0], Path) and pictures[0].stem == self.fatal and not marker.exists():
                marker.touch()
                os._exit(1)
            return np.stack(pixels) // np.uint8(self.factor)

        yield compute


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        path = tmp_path / "in" / f"{'below/' * (index % 2)}{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (10 * index, 0, 0)).save(path)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "._0.png").write_bytes(b"junk")
    return tmp_path / "in"


def results(out: Path) -> dict[str, int]:
    """The red of the first pixel of each result."""
    return {
        path.relative_to(out).as_posix(): int(np.asarray(Image.open(path))[0, 0, 0])
        for path in sorted(out.rglob("*.png"))
    }


EXPECTED = {"0.png": 0, "2.png": 10, "4.png": 20, "below/1.png": 5, "below/3.png": 15, "below/5.png": 25}


def test_each_picture_becomes_a_file_and_only_missing_ones_are_made_again(folder: Path, tmp_path: Path) -> None:
    work, out = Darken(str(tmp_path / "log")), tmp_path / "out"
    reports: list[Progress] = []
    outcome = run_local(folder_items(folder), work, out, concurrency=3, total=6, report=reports.append)
    assert (outcome.written, outcome.skipped, outcome.failed) == (6, 0, {})
    assert [report.done for report in reports] == [1, 2, 3, 4, 5, 6]
    assert results(out) == EXPECTED
    (out / "below" / "3.png").unlink()
    outcome = run_local(folder_items(folder), work, out)
    assert (outcome.written, outcome.skipped) == (1, 5)
    assert len((tmp_path / "log").read_text().split()) == 7
    assert results(out) == EXPECTED


def test_pictures_that_differ_in_their_ending_alone_have_a_result_each(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 0, 0)).save(folder / "0.webp", lossless=True)
    assert run_local(folder_items(folder), Darken(str(tmp_path / "log")), tmp_path / "out").written == 7
    found = results(tmp_path / "out")
    assert (found.pop("0.png.png"), found.pop("0.webp.png")) == (0, 100)
    assert found == {name: red for name, red in EXPECTED.items() if name != "0.png"}
    items, _ = paired_items(folder, folder)
    assert [item.name for item in items][:2] == ["0.png", "0.webp"]


def test_other_settings_do_not_get_among_the_results(folder: Path, tmp_path: Path) -> None:
    run_local(folder_items(folder), Darken(str(tmp_path / "log")), tmp_path / "out")
    with pytest.raises(DataError, match="holds results of other settings"):
        run_local(folder_items(folder), Darken(str(tmp_path / "log"), factor=3), tmp_path / "out")
    with pytest.raises(DataError, match="already holds something else"):
        run_local(folder_items(folder), Darken(str(tmp_path / "log")), folder)


def test_a_bad_picture_costs_its_own_result_alone(folder: Path, tmp_path: Path) -> None:
    data = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(data[: len(data) // 2])
    outcome = run_local(folder_items(folder), Darken(str(tmp_path / "log")), tmp_path / "out")
    assert outcome.written == 5
    assert "truncated" in outcome.failed["2"]
    (folder / "2.png").write_bytes(data)
    assert run_local(folder_items(folder), Darken(str(tmp_path / "log")), tmp_path / "out").written == 1


def test_pairs_are_of_one_name_or_in_order(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "below").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(other / "below" / "3.jpg")
    items, said = paired_items(folder, other)
    assert items == [Item("below/3", (folder / "below" / "3.png", other / "below" / "3.jpg"))]
    assert said == "pictures of the same name; left out: 5 without a partner"
    items, _ = paired_items(folder, other / "below" / "3.jpg")
    assert items[0].pictures == (folder / "0.png", other / "below" / "3.jpg")
    assert len(items) == 6
    (other / "below" / "3.jpg").rename(other / "x.jpg")
    with pytest.raises(DataError, match="have no picture of the same name"):
        paired_items(folder, other)
    for index in range(5):
        Image.new("RGB", (16, 16)).save(other / f"y{index}.png")
    items, said = paired_items(folder, other)
    assert items[0].pictures == (folder / "0.png", other / "x.jpg")
    assert said == "in order, as no name is in both"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no pictures"):
        paired_items(folder, tmp_path / "empty")


@pytest.fixture
def parquet(folder: Path, tmp_path: Path) -> Path:
    pandas = pytest.importorskip("pandas")
    rows = []
    for index in range(6):
        out = io.BytesIO()
        Image.new("RGB", (16, 16), (10 * index, 0, 0)).save(out, "PNG")
        rows.append({"image": {"bytes": out.getvalue(), "path": "a.png"}, "Smiling": index % 2 == 0})
    (tmp_path / "hf").mkdir()
    pandas.DataFrame(rows[:4]).to_parquet(tmp_path / "hf" / "train-0.parquet")
    pandas.DataFrame(rows[4:]).to_parquet(tmp_path / "hf" / "train-1.parquet")
    return tmp_path / "hf"


def test_parquet_is_read_without_unpacking(parquet: Path, tmp_path: Path) -> None:
    assert run_local(folder_items(parquet), Darken(str(tmp_path / "log")), tmp_path / "out").written == 6
    assert sorted(results(tmp_path / "out").values()) == [0, 5, 10, 15, 20, 25]
    assert run_local(folder_items(parquet), Darken(str(tmp_path / "log")), tmp_path / "out").skipped == 6


@pytest.mark.parametrize(
    ("name", "said"),
    [("empty", "empty holds no pictures"), ("none", "there is no folder none"), ("a.txt", "a.txt is not a folder")],
)
def test_a_folder_without_pictures_is_refused_before_a_server_is_asked(
    homomorph: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("a.txt").touch()
    outcome = homomorph("batch", name, "--set", "glasses=none", "--out", "out", "--url", "127.0.0.1:9")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("batch in --target none.png", "there is no file none.png"),
        ("batch in --set glasses=none", "no server answers"),
        ("batch in --translate smiling,", "a step has no name"),
        ("morph in none.png", "there is no picture or folder none.png"),
        ("morph in in", "no server answers"),
        ("morph in/0.png in/2.png --format gif", "--format is for folders"),
    ],
)
def test_an_early_error_is_one_line_and_nothing_is_written(
    homomorph: Callable[..., Any],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = homomorph(*command.split(), "--out", "out", "--url", "127.0.0.1:9", "--timeout", 5)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert said in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_of_ray_write_each_result_once_though_one_dies(folder: Path, parquet: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from homomorph.batch_ray import run_on_ray

    # Ray's processes cannot import the tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        work = Darken(str(tmp_path / "log"), fatal="2")
        outcome = run_on_ray(folder, work, tmp_path / "out", workers=2)
        assert outcome.failed == {}
        assert outcome.written + outcome.skipped == 6
        assert (tmp_path / "log.died").exists()
        assert results(tmp_path / "out") == EXPECTED
        assert run_on_ray(folder, work, tmp_path / "out", workers=2).skipped == 6
        outcome = run_on_ray(parquet, Darken(str(tmp_path / "log")), tmp_path / "out2", workers=2)
        assert outcome.written == 6
        assert sorted(results(tmp_path / "out2").values()) == [0, 5, 10, 15, 20, 25]
    finally:
        ray.shutdown()


def test_the_commands_take_folders(homomorph: Callable[..., Any], tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    assert homomorph("render", faces, "--count", 3, "--size", 64, "--workers", 0).code == 0
    out = tmp_path / "edited"
    edit = ("--run", "avatars64", "--set", "glasses=round_glasses", "--steps", 2)
    for command in (("edit", faces / "images", *edit), ("batch", faces / "images", *edit)):
        outcome = homomorph(*command, "--out", out)
        assert outcome.code == 0, outcome.err
    assert f"{out}: 0 written, 3 were there already" in outcome.out
    assert {Image.open(path).size for path in out.glob("*.png")} == {(128, 64)}
    assert json.loads((out / "batch.json").read_text())["run"] == "avatars64"
    morph = ("--run", "avatars64", "--steps", 2, "--out", tmp_path / "m", "--format", "frames")
    outcome = homomorph("morph", faces / "images", faces / "images", *morph)
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "m").rglob("frame-*.png"))) == 6
    outcome = homomorph(
        "translate", faces / "images", "--steps", "smiling", "--run", "smiling64", "--out", tmp_path / "t"
    )
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "t").glob("*.png"))) == 3
    assert homomorph("batch", faces, "--out", tmp_path / "x").err.count("\n") == 1
