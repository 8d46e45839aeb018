"""Label files: what is read, and what is refused in one line that says where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from homomorph.data.labels import UNKNOWN, LabelledPictures, label_balance, occurrence, read_labelled
from homomorph.errors import DataError

CSV = "image,smiling,blond,round\na.png,1,0,0\nb.png,0,1,1\n"
CELEBA = "2\nsmiling blond round\na.png  1 -1 -1\nb.png -1  1  1\n"
GROUPS = "expression: [smiling]\nglasses: [round]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    (tmp_path / "groups.yaml").write_text(GROUPS)
    return tmp_path


@pytest.mark.parametrize(("name", "text"), [("attributes.csv", CSV), ("list_attr_celeba.txt", CELEBA)])
def test_both_formats_say_the_same(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    data = read_labelled(folder)
    assert data.groups == {"expression": ("smiling",), "glasses": ("round",)}
    assert [path.name for path in data.paths] == ["a.png", "b.png"]
    np.testing.assert_array_equal(data.labels, [[1, 0], [0, 1]])
    assert data.known.all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("attributes.csv", "image,smiling,blond,round\na.png,?,0,0\nb.png,0,,NaN\n"),
        ("attributes.csv", "image,smiling,blond,round\na.png,,0,0\nb.png,0,, ? \n"),
        ("list_attr_celeba.txt", "2\nsmiling blond round\na.png  0 -1 -1\nb.png -1  1  0\n"),
    ],
)
def test_an_unknown_label_is_none(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    data = read_labelled(folder)
    np.testing.assert_array_equal(data.known, [[False, True], [True, False]])
    np.testing.assert_array_equal(data.labels, [[UNKNOWN, 0], [0, UNKNOWN]])


def test_paths_can_be_counted_chosen_and_cut(folder: Path) -> None:
    (folder / "attributes.csv").write_text(CSV)
    paths = read_labelled(folder).paths
    assert list(paths) == [folder / "a.png", folder / "b.png"]
    assert paths[-1] == folder / "b.png"
    assert list(paths[1:]) == [folder / "b.png"]


def test_rare_labels_count_more_and_common_ones_as_they_are() -> None:
    labels = np.zeros((1000, 6), dtype=np.uint8)
    for column, count in enumerate((500, 100, 20, 1, 0, 1000)):
        labels[:count, column] = 1
    labels[20:, 2] = UNKNOWN
    labels[:20:2, 2] = 0
    data = LabelledPictures([Path("a")] * 1000, labels, {"x": tuple("pqrstu")})
    share = occurrence(data)
    np.testing.assert_allclose(share, [0.5, 0.1, 0.5, 0.001, 0, 1])
    absent, present = label_balance(share)
    np.testing.assert_array_equal(absent, [1, 1, 1, 1, 1, 10])
    np.testing.assert_array_equal(present, [1, 1, 1, 10, 10, 1])
    np.testing.assert_allclose(label_balance(np.array([0.04, np.nan])), [[1, 1], [2.5, 1]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("attributes.csv", CSV.replace("round", "square"), "no column round"),
        ("attributes.csv", CSV.replace("a.png,1", "a.png,2"), r"line 2: a label must be 0 or 1, .*, not '2'"),
        ("attributes.csv", CSV.replace("b.png,0,1,1", "b.png,0,1"), "line 3: expected 3 labels"),
        ("attributes.csv", CSV.replace("b.png", "c.png"), r"line 3: there is no picture .*c\.png"),
        ("attributes.csv", CSV.replace("image", "file"), "first column must be 'image'"),
        ("attributes.csv", "", "first column must be 'image'"),
        ("attributes.csv", CSV.partition("b.png")[0], "needs at least 2"),
        ("list_attr_celeba.txt", CELEBA.replace("-1", "2"), "line 3: a label must be -1 or 1, .*, not '2'"),
        ("list_attr_celeba.txt", CELEBA.replace("2\n", "3\n", 1), "promises 3 pictures, but 2 follow"),
        ("list_attr_celeba.txt", CELEBA.partition("\n")[2], "first line must be the number of pictures"),
        ("notes.txt", "", "neither attributes.csv nor list_attr_celeba.txt"),
    ],
)
def test_bad_labels_are_refused(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_labelled(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[smiling]", "must map group names"),
        ("expression: smiling", "must map group names"),
        ("expression: [smiling", "is not YAML"),
        ("Expression: [smiling]", "lower-case"),
        ("residual: [smiling]", "reserved"),
        ("expression: []", "names no attribute"),
        ("expression: [smiling]\nmood: [smiling]", "'smiling' stands in group"),
        ("{}", "at least one attribute group"),
    ],
)
def test_bad_groups_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / "attributes.csv").write_text(CSV)
    (folder / "groups.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_labelled(folder)


def test_a_missing_folder_or_groups_file_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no data folder"):
        read_labelled(folder / "elsewhere")
    (folder / "attributes.csv").write_text(CSV)
    (folder / "groups.yaml").unlink()
    with pytest.raises(DataError, match=r"there is no .*groups\.yaml"):
        read_labelled(folder)
