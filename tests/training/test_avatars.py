"""The built-in picture set: exact labels, the same everywhere, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from homomorph.data import avatars
from homomorph.data.labels import read_labelled
from homomorph.data.render_set import render_set
from homomorph.errors import DataError
from homomorph.progress import Progress


def test_a_set_is_the_same_again_and_grows_at_its_end(tmp_path: Path) -> None:
    render_set(tmp_path / "a", count=3, size=16, seed=5, workers=1)
    render_set(tmp_path / "b", count=5, size=16, seed=5, workers=2)
    first = sorted((tmp_path / "a" / "images").iterdir())
    assert [path.name for path in first] == ["000000.png", "000001.png", "000002.png"]
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / "images" / path.name).read_bytes()
    rows = (tmp_path / "a" / "attributes.csv").read_text().splitlines()
    assert (tmp_path / "b" / "attributes.csv").read_text().splitlines()[:4] == rows


def test_seeds_differ() -> None:
    assert [avatars.draw_looks(0, i) for i in range(4)] != [avatars.draw_looks(1, i) for i in range(4)]


def test_labels_say_what_is_drawn(avatars_folder: Path) -> None:
    data = read_labelled(avatars_folder)
    assert {"mouth", "hair_colour", "hair_style", "facial_hair", "glasses", "skin"} <= data.groups.keys()
    columns = [name for names in data.groups.values() for name in names]
    yellow = columns.index("yellow_skin")
    dark = columns.index("dark_skin")
    cheek = np.array([int(np.asarray(Image.open(path).convert("RGB"))[17, 12].sum()) for path in data.paths])
    assert np.median(cheek[data.labels[:, yellow] == 1]) > 2 * np.median(cheek[data.labels[:, dark] == 1])


@pytest.mark.parametrize("feature", [f for f in avatars.FEATURES if f.group], ids=lambda f: f.option)
def test_every_look_can_be_seen(feature: avatars.Feature) -> None:
    looks = list(avatars.draw_looks(0, 0))
    where = avatars.FEATURES.index(feature)
    seen = set()
    for label in feature.looks:
        looks[where] = label
        seen.add(avatars.render(tuple(looks), 64).tobytes())
    assert len(seen) == len(feature.looks)


def test_the_background_is_pure_white() -> None:
    picture = avatars.render(avatars.draw_looks(0, 1), 64)
    assert picture.shape == (64, 64, 3)
    assert (picture[0, 0] == 255).all()
    assert (picture[0, -1] == 255).all()


def test_what_is_on_the_way_has_mixed_colours_and_else_one_look_or_the_other() -> None:
    ours, theirs = avatars.draw_looks(0, 0), avatars.draw_looks(0, 1)
    generator = np.random.default_rng(0)
    for time, end in ((0.0, ours), (1.0, theirs)):
        looks, colours = avatars.on_the_way(ours, theirs, time, generator)
        np.testing.assert_array_equal(avatars.render(looks, 32, colours), avatars.render(end, 32))
    looks, colours = avatars.on_the_way(ours, theirs, 0.5, generator)
    assert colours == {
        option: colour
        for group in ("hair_colour", "skin", "clothes_colour")
        for option, colour in avatars.middle_colours(ours, theirs, group).items()
    }
    assert all(look in pair for look, *pair in zip(looks, ours, theirs, strict=True))
    assert looks not in (ours, theirs)


def test_a_counterfactual_changes_one_group_only() -> None:
    ours, theirs = avatars.draw_looks(0, 0), avatars.draw_looks(0, 1)
    mixed = avatars.labels(avatars.with_group(ours, theirs, "hair_colour"))
    for group, names in avatars.GROUPS.items():
        expected = avatars.labels(theirs if group == "hair_colour" else ours)
        assert {name: mixed[name] for name in names} == {name: expected[name] for name in names}


def test_an_interrupted_set_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_set(tmp_path / "set", count=500, size=16, workers=1, report=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_each_picture_is_reported_and_no_workers_render_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_processes(*arguments: object, **options: object) -> None:
        pytest.fail("a process was started")

    monkeypatch.setattr("homomorph.data.render_set.ProcessPoolExecutor", no_processes)
    reports: list[Progress] = []
    render_set(tmp_path / "set", count=3, size=16, workers=0, report=reports.append)
    assert [(report.stage, report.done, report.total) for report in reports] == [
        ("rendering", done, 3) for done in (1, 2, 3)
    ]
    assert len(list((tmp_path / "set" / "images").iterdir())) == 3


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="already exists"):
        render_set(tmp_path, count=1, size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("count", "size", "seed"), [(0, 16, 0), (1, 15, 0), (1, 5000, 0), (1, 16, -1)])
def test_numbers_out_of_range_are_refused(tmp_path: Path, count: int, size: int, seed: int) -> None:
    with pytest.raises(DataError, match="must"):
        render_set(tmp_path / "set", count=count, size=size, seed=seed)
    assert list(tmp_path.iterdir()) == []


def test_a_middle_colour_lies_between_and_changes_nothing_else() -> None:
    ours, theirs = avatars.draw_looks(1, 1), avatars.draw_looks(1, 2)  # dark and pale skin
    middle = avatars.middle_colours(ours, theirs, "skin")
    assert middle == {"skinColor": "b08f74"}  # between 614335 and ffdbb4
    assert avatars.middle_colours(ours, theirs, "glasses") == {}
    ends = [avatars.render(looks, 32).astype(float) for looks in (ours, avatars.with_group(ours, theirs, "skin"))]
    assert np.abs(avatars.render(ours, 32, middle) - (ends[0] + ends[1]) / 2).max() < 3


def test_pictures_between_two_colours_have_unknown_colour_labels(tmp_path: Path) -> None:
    render_set(tmp_path / "plain", count=40, size=32, seed=5, workers=0)
    render_set(tmp_path / "mixed", count=40, size=32, seed=5, workers=0, between=0.5)
    plain, mixed = read_labelled(tmp_path / "plain"), read_labelled(tmp_path / "mixed")
    names = [name for group in mixed.groups.values() for name in group]
    hair = [names.index(name) for name in mixed.groups["hair_colour"]]
    colours = [name for group in ("hair_colour", "skin", "clothes_colour") for name in avatars.GROUPS[group]]
    others = [index for index, name in enumerate(names) if name not in colours]
    between = ~mixed.known[:, hair].all(axis=1)
    assert 10 < between.sum() < 30
    assert mixed.known[:, others].all()
    np.testing.assert_array_equal(mixed.labels[mixed.known], plain.labels[mixed.known])
    for row in range(40):
        same = mixed.paths[row].read_bytes() == plain.paths[row].read_bytes()
        assert same == (not between[row])


def test_colours_between_are_for_a_style_with_known_colours(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--between is for --style avataaars"):
        render_set(tmp_path / "set", count=1, size=32, style="bottts", between=0.5)
