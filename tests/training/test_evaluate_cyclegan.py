"""CycleGANs among the systems that are compared: only what they do counts, and what they lack is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from homomorph.data.labels import LabelledPictures, read_labelled
from homomorph.evaluation.distance import judge_distance
from homomorph.evaluation.evaluator import Evaluator
from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.held_out import HeldOut, read_held_out
from homomorph.evaluation.measure import measure_method
from homomorph.evaluation.measured_pairs import all_pairs, translated_pairs
from homomorph.evaluation.page import SECTIONS
from homomorph.evaluation.path import PATH_FRAMES
from homomorph.evaluation.translation import SWITCH_AT, Translation, directions_of
from homomorph.models.config import ModelConfig
from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.models.morph import MorphModel
from homomorph.models.translator import Translator
from homomorph.runs.record import read_record
from homomorph.runs.run import save_model
from homomorph.training import loop
from homomorph.training.cyclegan.recipe import CycleGANPreset
from homomorph.training.methods import make_method
from homomorph.training.settings import MorphPreset

PAIRS = 24


@pytest.fixture(scope="module")
def held_out(folder: Path) -> HeldOut:
    return read_held_out(read_labelled(folder), 32, PAIRS, 11)


@pytest.fixture(scope="module")
def cyclegan() -> CycleGAN:
    """Untrained: it changes every picture, and not towards what it is called."""
    torch.manual_seed(0)
    config = CycleGANConfig(("dark_skin", "not_dark_skin"), "resnet_6blocks", filters=2, picture_size=32)
    return CycleGAN(config).eval().requires_grad_(False)


def test_directions_are_found_by_their_names(held_out: HeldOut) -> None:
    add, remove = directions_of(("dark_skin", "not_dark_skin"), held_out.groups)
    assert (add.group, add.column, add.value, remove.value) == ("skin", remove.column, 1, 0)
    assert [name for group in held_out.groups.values() for name in group][add.column] == "dark_skin"
    differs = held_out.labels_a[:, add.column] != held_out.labels_b[:, add.column]
    assert (add.applies(held_out) ^ remove.applies(held_out)).tolist() == differs.tolist()


def test_it_switches_and_comes_back(cyclegan: CycleGAN, held_out: HeldOut) -> None:
    system = Translation(cyclegan, "dark_skin")
    a, b = held_out.source[:3], held_out.target[:3]
    strengths = np.zeros((3, 4, 7), np.float32)
    strengths[:, :, 2] = (0, SWITCH_AT - 0.01, SWITCH_AT, 1)
    frames = system.morph(a, b, strengths)
    translator = Translator([cyclegan])
    for row in range(3):
        there, back = translator.chained(a[row].transpose(1, 2, 0), ["dark_skin", "not_dark_skin"])
        assert (frames[row, :2] == a[row]).all()
        assert (frames[row, 2:] == there.transpose(2, 0, 1)).all()
        returned = system.reconstruct(a)
        assert returned is not None
        assert np.abs(returned[row].astype(int) - back.transpose(2, 0, 1)).max() <= 1
    alone = CycleGAN(CycleGANConfig(("dark_skin",), "resnet_6blocks", filters=2, picture_size=32)).eval()
    assert Translation(alone, "dark_skin").reconstruct(a) is None


class Painter(Translation):
    """A perfect one: draws what the group shall look like."""

    def __init__(self, held_out: HeldOut, cyclegan: CycleGAN) -> None:
        super().__init__(cyclegan, "dark_skin")
        self.held_out = held_out

    def reconstruct(self, pictures: Pictures) -> Pictures:
        return pictures

    def _changed(self, direction: str, pictures: Pictures) -> Pictures:
        rows = [next(i for i, a in enumerate(self.held_out.source) if (a == picture).all()) for picture in pictures]
        assert self.held_out.redrawn is not None
        return self.held_out.redrawn.counterfactuals["skin"][rows]


def test_only_pairs_that_differ_its_way_count(
    cyclegan: CycleGAN, held_out: HeldOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homomorph.evaluation.measure.moved_picture", lambda augment, picture: picture)
    directions = directions_of(("dark_skin", "not_dark_skin"), held_out.groups)
    measured_pairs = translated_pairs(cyclegan, directions, held_out)
    assert [measured.rows.tolist() for measured in measured_pairs] == [
        np.flatnonzero(direction.applies(held_out)).tolist() for direction in directions
    ]
    torch.manual_seed(0)
    evaluator = Evaluator(held_out.labels.shape[1], widths=(8, 8, 8)).eval()
    object.__setattr__(measured_pairs[0], "method", Painter(held_out, cyclegan))
    taken = measure_method(
        measured_pairs[:1],
        held_out,
        evaluator,
        judge_distance(evaluator),
        displayed_pairs=measured_pairs[0].rows[:2].tolist(),
    )
    assert taken.pairs == len(measured_pairs[0].rows)
    assert taken.displayed_pairs == measured_pairs[0].rows[:2].tolist()
    figures = taken.figures
    assert figures["counterfactual"] == {"skin": pytest.approx(1)}
    assert figures["jump"] == pytest.approx(PATH_FRAMES - 1)
    assert figures["background"] == {"reconstruction": 0, "morph": 0}
    assert figures["shift"] == 0
    assert isinstance(figures["transfer"], dict)
    assert list(figures["transfer"]) == ["skin"]
    # What it has not is no number.
    assert np.isnan([figures["endpoint"], *figures["monotonicity"].values()]).all()  # type: ignore[union-attr]
    assert "counterfactual_half" not in figures
    # Of one attribute, transfer is the share of pairs that now show it.
    assert figures["transfer_direction"] == {"dark_skin": figures["transfer"]["skin"]}
    # Its probability is what it was below the switch, and what it came to from there on.
    (along,) = taken.direction_responses.values()
    assert np.ptp(along[:5]) == np.ptp(along[5:]) == 0
    whole = all_pairs(Painter(held_out, cyclegan), held_out, directions)
    assert list(whole.columns) == list(held_out.groups)


def test_the_command_compares_it_with_the_others(
    homomorph: Callable[..., Any], folder: Path, data: LabelledPictures, tiny: MorphPreset, tmp_path: Path
) -> None:
    preset = CycleGANPreset(
        "dark_skin", generator="resnet_6blocks", filters=2, discriminator_filters=2, picture_size=32, batch_size=2
    )
    loop.train(make_method(data, preset), tmp_path / "skin", steps=3, workers=0)
    record = read_record(tmp_path / "skin")
    assert record is not None
    assert record.pictures == 2 * 2 * 3
    torch.manual_seed(0)
    config = ModelConfig(groups=read_labelled(folder).groups, picture_size=32, network=tiny.network)
    save_model(tmp_path / "morph", MorphModel(config))
    words = ["--data", folder, "--out", tmp_path / "report", "--pairs", PAIRS, "--evaluator-steps", 3]
    page = tmp_path / "page.md"
    page.write_text("# Mine\n" + "".join(f"<!-- {name} -->old<!-- end -->\nkept {name}\n" for name in SECTIONS))
    outcome = homomorph("evaluate", tmp_path / "morph", tmp_path / "skin", *words, "--page", page)
    assert outcome.code == 0
    assert outcome.err.splitlines()[-1].startswith("cyclegan: ")  # progress alone
    check_written(page)
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    meta = metrics.pop("meta")
    assert list(metrics) == ["pixel", "latent", "slerp", "homomorph", "detailed", "cyclegan"]
    assert list(metrics["cyclegan"]["transfer"]) == ["skin"]
    assert metrics["cyclegan"]["monotonicity"] == {"skin": None}
    assert metrics["cyclegan"]["endpoint"] is None
    assert metrics["cyclegan"]["reconstruction"]["psnr"] < 100
    for system in metrics.values():
        assert set(system["transfer_direction"]) == {"dark_skin", "not_dark_skin"}
    assert meta["pairs_of_methods"]["homomorph"] == PAIRS > meta["pairs_of_methods"]["cyclegan"] > 0
    assert meta["frechet_floor_of_translations"]["cyclegan"] > meta["frechet_floor"]
    assert set(meta["weights"]) == {"morph", "skin"}
    cost = metrics["cyclegan"]["cost"]
    assert cost["parameters_per_attribute_millions"] == cost["parameters_millions"] > 0
    assert cost["training_pictures_thousands"] == pytest.approx(0.012)
    assert cost["frame_time"] > 0
    assert metrics["homomorph"]["cost"]["frame_time"] == 1
    assert metrics["pixel"]["cost"] | {"frame_time": None} == {
        "training_pictures_thousands": 0,
        "training_hours": 0,
        "parameters_millions": 0,
        "parameters_per_attribute_millions": None,
        "weights_mb": 0,
        "frame_time": None,
    }
    report = (tmp_path / "report" / "report.html").read_text()
    assert "cyclegan changes one attribute and has nothing between its ends" in report

    # Alone, it is compared with blending pixels.
    assert homomorph("evaluate", tmp_path / "skin", *words).code == 0
    alone = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert list(alone) == ["pixel", "cyclegan", "meta"]
    assert alone["cyclegan"]["transfer_direction"].keys() == metrics["cyclegan"]["transfer_direction"].keys()
    assert alone["cyclegan"]["cost"]["frame_time"] is None


def check_written(page: Path) -> None:
    """Hold a page against what it should have: its own words, tables of all systems, and its pictures beside it."""
    text = page.read_text()
    assert text.startswith("# Mine\n")
    assert "old" not in text
    for name in SECTIONS:
        assert f"<!-- end -->\nkept {name}\n" in text
    assert f"Measured on {PAIRS} pairs, " in text
    assert text.count("| figure | pixel | latent | slerp | homomorph | detailed | cyclegan |\n") == 2
    assert re.search(r"\n\| `endpoint` \| 0.000 \|.*\| - \|\n", text)
    assert re.search(r"\n\| `weights_mb` \| 0.000 \|", text)
    assert "\n\n`skin` was trained on " in text
    assert " A frame of homomorph's took " in text
    assert text.count(" at 0, 0.2, 0.5, 0.8 and 1, between the two pictures.*") == 2
    pictures = re.findall(r"\]\((.*?)\)", text)
    ways = ("dark-skin", "not-dark-skin")
    assert set(pictures) == {
        "page-curves.png",
        *(f"page-{way}{moved}.png" for way in ways for moved in ("", "-moved")),
    }
    assert {path.name for path in page.parent.glob("*.png")} == set(pictures)
    # The systems below each other, a and b at the ends: in the pictures as they are, these are the same in all rows.
    sheet = np.asarray(Image.open(page.parent / "page-dark-skin.png"))
    rows = sheet[:, -7 * 32 :].reshape(6, 32, 7 * 32, 3)
    assert (rows[:, :, :32] == rows[0, :, :32]).all()
    assert (rows[0, :, :32] == rows[0, :, 32:64]).all(), "pixel begins with a itself"
    moved = np.asarray(Image.open(page.parent / "page-dark-skin-moved.png"))[:, -7 * 32 :].reshape(6, 32, 7 * 32, 3)
    assert (moved[:, :, -32:] == moved[0, :, -32:]).all(), "all systems get the same moved pictures"
    assert (moved[:, :, -32:] != rows[:, :, -32:]).any()


def test_a_page_without_marks_is_refused_at_once(homomorph: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    words = ["evaluate", "avatars64", "--data", folder, "--out", tmp_path / "report", "--page", page]
    for text, message in (
        (None, "is no page that figures"),
        ("<!-- measured --><!-- end -->", "<!-- figures --> once"),
    ):
        if text is not None:
            page.write_text(text)
        outcome = homomorph(*words)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert message in outcome.err
        assert not (tmp_path / "report").exists()


def test_what_cannot_be_compared_is_refused_at_once(
    homomorph: Callable[..., Any], folder: Path, cyclegan_runs: tuple[Path, Path], tiny: MorphPreset, tmp_path: Path
) -> None:
    groups = read_labelled(folder).groups
    save_model(tmp_path / "morph", MorphModel(ModelConfig(groups=groups, picture_size=32, network=tiny.network)))
    for runs, message in (
        ([tmp_path / "morph", cyclegan_runs[0]], "pictures of different sizes"),
        ([cyclegan_runs[1]], "'blond' is no attribute of the pictures"),
    ):
        outcome = homomorph("evaluate", *runs, "--data", folder, "--out", tmp_path / "report", "--pairs", PAIRS)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert message in outcome.err
        assert not (tmp_path / "report").exists()
