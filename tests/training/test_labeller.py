"""Labels for the unlabelled: learned from the labelled, measured on held-out pictures, nothing overwritten."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from homomorph.data.labels import UNKNOWN, read_labelled
from homomorph.training.labeller import held_out_accuracy
from homomorph_client.files import put

COUNT = 160
RED = "[/red]"
"""A label that the terminal's tables must take literally."""


def _truth(index: int) -> tuple[int, int]:
    return index % 2, index // 2 % 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures that are bright or dark, red or blue; of a quarter nobody says which, an eighth is in no table."""
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = [f"image,bright,{RED}"]
    for index in range(COUNT):
        bright, red = _truth(index)
        picture = generator.integers(0, 40, size=(20, 16, 3))
        picture[..., 0 if red else 2] += 200 if bright else 80
        Image.fromarray(picture.astype(np.uint8)).save(folder / "images" / f"{index:03d}.png")
        if index >= 20:
            cells = ("?", "") if index < 60 else (bright, red) if index > 70 else (bright, "nan")
            rows.append(f"{index:03d}.png,{cells[0]},{cells[1]}")
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n")
    (folder / "groups.yaml").write_text(f"light: [bright]\ncolour: ['{RED}']\n")
    return folder


def test_unknown_labels_are_read_and_known_ones_kept(
    homomorph: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    (folder / "images" / "030.png").write_bytes(b"not a picture")
    before = (folder / "attributes.csv").read_text()
    out = tmp_path / "labels.csv"
    outcome = homomorph("label", folder, "--out", out, "--size", 16, "--steps", 60)
    assert outcome.code == 0, outcome.err
    assert (folder / "attributes.csv").read_text() == before
    rows = {row["image"]: row for row in csv.DictReader(out.open())}
    assert len(rows) == COUNT
    right = []
    for name, row in rows.items():
        index = int(name.removesuffix(".png"))
        for label, truth in zip(("bright", RED), _truth(index), strict=True):
            if index == 30:
                assert (row[label], row[f"{label}_confidence"]) == ("", "")
            elif index > 70 or (index >= 60 and label == "bright"):
                assert (row[label], row[f"{label}_confidence"]) == (str(truth), "")
            else:
                assert 0.5 <= float(row[f"{label}_confidence"]) <= 1
                right.append(row[label] == str(truth))
    assert np.mean(right) > 0.9
    report = json.loads((tmp_path / "labels.json").read_text())
    assert (report["trained_on"], report["held_out"]) == (90, 10)
    assert report["attributes"]["bright"]["accuracy"] >= 0.8
    assert "by guessing" in outcome.out
    # The new table is one that training reads.
    (folder / "attributes.csv").write_text(out.read_text())
    data = read_labelled(folder)
    assert np.flatnonzero(~data.known.all(axis=1)).tolist() == [
        index for index, path in enumerate(data.paths) if path.name == "030.png"
    ]


def test_nothing_is_overwritten_and_something_must_be_wanting(
    homomorph: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels.csv"
    for file in (out, tmp_path / "labels.json"):
        file.write_text("mine")
        outcome = homomorph("label", folder, "--out", out)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert f"{file} already exists" in outcome.err
        assert file.read_text() == "mine"
        file.unlink()
    table = (folder / "attributes.csv").read_text().splitlines()
    (folder / "attributes.csv").write_text("\n".join(table[:60]) + "\n")
    assert "19 pictures have labels to learn from; at least 40" in homomorph("label", folder, "--out", out).err
    (folder / "attributes.csv").write_text("\n".join([table[0], *table[60:]]) + "\n")
    for index in range(79):
        (folder / "images" / f"{index:03d}.png").unlink(missing_ok=True)
    outcome = homomorph("label", folder, "--out", out)
    assert "there is nothing to label" in outcome.err
    assert not out.exists()


def test_a_label_that_is_not_sure_stays_unknown(homomorph: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    outcome = homomorph("label", folder, "--out", out, "--size", 16, "--steps", 1, "--min-confidence", 0.999)
    assert outcome.code == 0, outcome.err
    for row in csv.DictReader(out.open()):
        assert (row["bright"] == "") == (row["bright_confidence"] != "")
    assert homomorph("label", folder, "--out", tmp_path / "x.csv", "--min-confidence", 0.4).code == 2


def test_a_kill_between_table_and_accuracy_can_be_repeated(
    homomorph: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, report = tmp_path / "labels.csv", tmp_path / "labels.json"
    words = ("label", folder, "--out", out, "--size", 16, "--steps", 2)
    puts: list[Path] = []

    def put_once(partial: Path, path: Path) -> None:
        puts.append(path)
        if len(puts) == 2:
            raise KeyboardInterrupt
        put(partial, path)

    with monkeypatch.context() as patched:
        patched.setattr("homomorph_client.files.put", put_once)
        assert homomorph(*words).code == 130
    assert len(puts) == 2
    assert not out.exists()
    assert homomorph(*words).code == 0
    assert out.exists()
    assert json.loads(report.read_text())["pictures"] == COUNT


def test_accuracy_counts_what_can_be_compared() -> None:
    labels = np.array([[1, UNKNOWN], [0, UNKNOWN], [1, UNKNOWN], [1, UNKNOWN]], dtype=np.uint8)
    probabilities = np.array([[0.9, 0.1], [0.8, 0.1], [np.nan, 0.1], [0.6, 0.1]], dtype=np.float32)
    figures = held_out_accuracy(["x", "y"], labels, probabilities)
    assert figures["x"] == {"pictures": 3, "accuracy": pytest.approx(2 / 3), "guessing": pytest.approx(2 / 3)}
    assert figures["y"] == {"pictures": 0, "accuracy": None, "guessing": None}


@pytest.mark.parametrize(
    ("out", "message"), [("labels.json", "where the accuracy goes"), ("no/labels.csv", "there is no folder")]
)
def test_a_table_that_cannot_be_written_is_said_before_the_work(
    homomorph: Callable[..., Any], folder: Path, tmp_path: Path, out: str, message: str
) -> None:
    outcome = homomorph("label", folder, "--out", tmp_path / out)
    assert outcome.code == 2
    assert message in outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {"set"}


def test_a_name_that_is_not_utf8_is_said_before_the_work_and_left_out(
    homomorph: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    (folder / "images" / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "images" / "000.png").read_bytes())
    outcome = homomorph("label", folder, "--out", tmp_path / "labels.csv", "--size", 16, "--steps", 2)
    assert outcome.code == 0, outcome.err
    assert "1 file with a name that is not UTF-8: caf\\xe9.png" in outcome.err
    assert len((tmp_path / "labels.csv").read_text(encoding="utf-8").splitlines()) == COUNT + 1


def test_a_label_of_one_known_value_is_named_and_not_guessed(
    homomorph: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    table = (folder / "attributes.csv").read_text().splitlines()
    rows = [line.rpartition(",")[0] + ("," if line.endswith((",0", "nan")) else ",1") for line in table[1:]]
    (folder / "attributes.csv").write_text("\n".join([table[0], *rows]) + "\n")
    outcome = homomorph("label", folder, "--out", tmp_path / "labels.csv", "--size", 16, "--steps", 2)
    assert outcome.code == 0, outcome.err
    assert f"Nothing can be learned about {RED}: all known labels are the same" in outcome.err
    report = json.loads((tmp_path / "labels.json").read_text())
    assert report["attributes"][RED]["accuracy"] is None
    assert report["attributes"]["bright"]["accuracy"] is not None
    rows = list(csv.DictReader((tmp_path / "labels.csv").open()))
    assert {row[RED] for row in rows} == {"", "1"}
    assert {row[f"{RED}_confidence"] for row in rows} == {""}
