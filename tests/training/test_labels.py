"""Label files: what is read, and what is refused in one line that says where."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
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
        ("list_attr_celeba.txt", "2\nsmiling blond round\na.png  ? -1 -1\nb.png -1  1  nan\n"),
        ("list_attr_celeba.txt", "2\nsmiling blond round\na.png  ? 0 0\nb.png 0  1  nan\n"),
        ("attributes.csv", "image,smiling,blond,round\na.png,#N/A,0,0\nb.png,0,1,#N/A\n"),
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


JSON_LINES = (
    b'{"file_name": "a.png", "box": [1, 2, 3, 4], "faces": {"eyes": [1, 2]}, "smiling": 1, "round": 0}\n',
    b'{"file_name": "b.png", "box": [4, 3, 2, 1], "faces": {"eyes": []}, "smiling": 0, "round": true}\n',
)
WORDS = "image,smiling,blond,round\na.png,{yes},{no},{no}\nb.png,{no},{yes},{yes}\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("attributes.csv", CSV.encode("utf-8-sig")),
        ("attributes.csv", CSV.encode("utf-16")),
        ("attributes.csv", CSV.encode("utf-16-le")),
        ("attributes.csv", CSV.encode("utf-32")),
        ("attributes.csv", CSV.replace("\n", "\r\n").encode()),
        ("attributes.csv", CSV.replace("\n", "\n\n").encode()),
        ("attributes.csv", CSV.replace(",", ";").encode()),
        ("attributes.csv", CSV.replace(",", "\t").encode()),
        ("attributes.tsv", CSV.replace(",", "\t").encode()),
        ("attributes.csv", CSV.replace(",", " , ").encode()),
        ("attributes.csv", CSV.replace("\n", ",\n").encode()),
        ("attributes.csv", CSV.replace("a.png", '"a.png"').encode()),
        ("attributes.csv", CSV.replace("image", "image_id").encode()),
        ("attributes.csv", CSV.replace("image", "File_Name").encode()),
        ("attributes.csv", b",image,smiling,blond,round\n0,a.png,1,0,0\n1,b.png,0,1,1\n"),
        ("attributes.csv", b"smiling,blond,image,round\n1,0,a.png,0\n0,1,b.png,1\n"),
        ("attributes.csv", b"image,smiling,blond,round,age\na.png,1,0,0,31\nb.png,0,1,1,-1.5\n"),
        ("attributes.csv", WORDS.format(yes="True", no="False").encode()),
        ("attributes.csv", WORDS.format(yes="1.0", no="0.0").encode()),
        ("attributes.csv", WORDS.format(yes="YES", no="no").encode()),
        ("attributes.csv", WORDS.format(yes="1.000000000000000000e+00", no="0.000000000000000000e+00").encode()),
        ("attributes.csv", WORDS.replace(",", ";").format(yes="1,0", no="0,0").encode()),
        ("attributes.csv", CSV.replace("\n", "\r").encode()),
        ("attributes.csv", CSV.replace("blond", '"blond\n(0 or 1)"').encode()),
        ("metadata.jsonl", b"".join(JSON_LINES)),
        ("attributes.csv", WORDS.format(yes="1", no="-1").encode()),
        ("attributes.csv", WORDS.format(yes="1.0", no="-1.0").encode()),
        ("list_attr_celeba.csv", WORDS.format(yes="1", no="-1").replace("image", "image_id").encode()),
        ("list_attr_celeba.txt", CELEBA.replace("-1", "0").encode()),
        ("list_attr_celeba.txt", CELEBA.replace("\n", "\r\n").encode("utf-8-sig")),
        ("CelebAMask-HQ-attribute-anno.txt", CELEBA.replace("blond", " blond").encode()),
        ("attributes.csv", CSV.replace("a.png", "A.PNG ").encode()),
        ("attributes.csv", CSV.replace("a.png", "images/a.png").encode()),
        ("attributes.csv", CSV.replace("a.png", ".\\a.png").encode()),
        ("attributes.csv", CSV.replace("a.png", "a.jpg").encode()),
        ("attributes.csv", CSV.replace("a.png", "a").encode()),
    ],
)
def test_tables_are_read_as_people_have_them(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    data = read_labelled(folder)
    assert [path.name for path in data.paths] == ["a.png", "b.png"]
    np.testing.assert_array_equal(data.labels, [[1, 0], [0, 1]])


@pytest.mark.parametrize("values", [(True, False), (1, 0), (1, -1), ("yes", "no")])
@pytest.mark.parametrize("kind", ["xlsx", "parquet"])
def test_excel_and_parquet_are_read(folder: Path, kind: str, values: tuple[object, object]) -> None:
    yes, no = values
    frame = pd.DataFrame({"image": ["a.png", "b.png"], "smiling": [yes, None], "round": [no, yes]})
    path = folder / f"attributes.{kind}"
    frame.to_excel(path, index=False) if kind == "xlsx" else frame.to_parquet(path)
    data = read_labelled(folder)
    np.testing.assert_array_equal(data.labels, [[1, 0], [UNKNOWN, 1]])


def test_parquet_may_have_lists_and_the_pictures_as_its_index(folder: Path) -> None:
    frame = pd.DataFrame({"image": ["a.png", "b.png"], "box": [[1, 2], [3]], "smiling": [1, 0], "round": [0, 1]})
    frame.set_index("image").to_parquet(folder / "attributes.parquet")
    np.testing.assert_array_equal(read_labelled(folder).labels, [[1, 0], [0, 1]])


def test_absolute_names_are_found_however_the_folder_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "link").symlink_to(folder)
    (folder / "attributes.csv").write_text(CSV.replace("a.png", f"{folder}/a.png").replace("b.png", f"{folder}/b.png"))
    monkeypatch.chdir(folder.parent)
    for given in (folder, Path(folder.name), folder / "link"):
        assert [path.name for path in read_labelled(given).paths] == ["a.png", "b.png"]


def test_a_name_without_an_ending_may_have_a_dot(folder: Path) -> None:
    for name in ("face.1.png", "face.2.png", "face.png"):
        Image.new("RGB", (16, 16)).save(folder / name)
    (folder / "attributes.csv").write_text(CSV.replace("a.png", "face.2").replace("b.png", "face.1"))
    assert [path.name for path in read_labelled(folder).paths] == ["face.2.png", "face.1.png"]


def test_tables_beside_the_pictures_folder_and_json_lines_are_read(folder: Path) -> None:
    (folder / "Img" / "img_align_celeba").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (folder / name).rename(folder / "Img" / "img_align_celeba" / name)
    (folder / "Anno").mkdir()
    (folder / "Anno" / "list_attr_celeba.txt").write_text(CELEBA)
    np.testing.assert_array_equal(read_labelled(folder).labels, [[1, 0], [0, 1]])
    (folder / "train").mkdir()
    rows = [
        '{"file_name": "a.png", "smiling": true, "round": 0}',
        '{"file_name": "b.png", "smiling": false, "round": 1}',
    ]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match="has several tables"):
        read_labelled(folder)
    (folder / "Anno" / "list_attr_celeba.txt").unlink()
    np.testing.assert_array_equal(read_labelled(folder).labels, [[1, 0], [0, 1]])
    (folder / "train" / "metadata.jsonl").write_text('{"a": ' * 10_000)
    with pytest.raises(DataError, match="JSON lines"):
        read_labelled(folder)


def test_names_in_another_encoding_or_form_of_accents_are_found(folder: Path) -> None:
    (folder / "a.png").rename(folder / "e\u0301te\u0301.png")  # as a Mac writes it
    for encoding in ("utf-8", "utf-16", "cp1252"):
        (folder / "attributes.csv").write_bytes(CSV.replace("a.png", "\xe9t\xe9.png").encode(encoding))
        assert read_labelled(folder).paths[0].name == "e\u0301te\u0301.png"
    assert "read as Windows-1252" in read_labelled(folder).summary()


def test_pictures_are_found_below_the_folder_and_by_content(folder: Path) -> None:
    deep = folder / "img_align_celeba" / "img_align_celeba"
    deep.mkdir(parents=True)
    (folder / "a.png").rename(deep / "a.png")
    Image.new("RGB", (16, 16)).save(deep / "more.jfif", "JPEG")
    Image.new("RGB", (16, 16)).save(deep / "without-an-ending", "AVIF")
    (folder / "b.txt").write_text("no picture")
    for junk in ("._a.png", ".DS_Store", "Thumbs.db"):
        (deep / junk).write_bytes(b"\0\5\x16\7")
    (deep / os.fsdecode(b"caf\xe9.png")).write_bytes((deep / "a.png").read_bytes())
    (folder / "attributes.csv").write_text(CSV)
    data = read_labelled(folder)
    assert list(data.paths) == [deep / "a.png", folder / "b.png"]
    assert "Left out: 3 files that no row names, such as b.txt" in data.summary()
    data = read_labelled(folder, unlisted=True)
    assert [path.name for path in data.paths] == ["a.png", "b.png", "more.jfif", "without-an-ending"]
    assert data.summary().endswith(
        "Left out: 1 file without a picture in it; 1 file with a name that is not UTF-8: "
        "img_align_celeba/img_align_celeba/caf\\xe9.png; 3 hidden files"
    )


def test_a_name_in_two_folders_must_say_which(folder: Path) -> None:
    for name in ("x", "y"):
        (folder / name).mkdir()
        Image.new("RGB", (16, 16)).save(folder / name / "c.png")
    (folder / "attributes.csv").write_text(CSV.replace("a.png", "c.png"))
    with pytest.raises(DataError, match=r"line 2: 'c\.png' could be x/c\.png or y/c\.png"):
        read_labelled(folder)
    (folder / "attributes.csv").write_text(CSV.replace("a.png", "x/c.png").replace("b.png", "y/c.png"))
    assert [path.parent.name for path in read_labelled(folder).paths] == ["x", "y"]
    (folder / "attributes.csv").write_text(CSV.replace("a.png", "z/c.png"))
    with pytest.raises(DataError, match="there is no picture"):
        read_labelled(folder)


def test_rows_without_a_picture_are_left_out_on_demand(folder: Path) -> None:
    (folder / "attributes.csv").write_text(CSV + "c.png,1,1,1\nd.png,1,1,1\n")
    with pytest.raises(DataError, match=r"line 4: there is no picture .*c\.png.*1 other rows; --allow-missing"):
        read_labelled(folder)
    data = read_labelled(folder, allow_missing=True)
    np.testing.assert_array_equal(data.labels, [[1, 0], [0, 1]])
    assert "Left out: 2 rows without a picture, such as c.png" in data.summary()


def test_one_line_says_what_is_known(folder: Path) -> None:
    (folder / "attributes.csv").write_text("image,smiling,round\na.png,1,1\nb.png,,1\n")
    assert read_labelled(folder).summary() == (
        "2 pictures: smiling 1 yes, 0 no, 1 unknown; round 2 yes, 0 no. Nothing can be learned about smiling, round: "
        "all known labels are the same. Labels by attributes.csv (0 is no, 1 is yes)"
    )


def test_pictures_in_parquet_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "celeba" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "groups.yaml").write_text(GROUPS)
    for part in range(2):
        pictures = []
        for index in range(3):
            out = io.BytesIO()
            Image.new("RGB", (16, 16), (100 * part, 50 * index, 0)).save(out, "PNG")
            pictures.append({"bytes": out.getvalue(), "path": "a.png"})
        frame = pd.DataFrame({"image": pictures, "smiling": [True, False, None], "round": [part == 0, True, False]})
        frame.to_parquet(folder / f"train-0000{part}-of-00002.parquet")
    for _ in range(2):
        data = read_labelled(folder.parent)
        np.testing.assert_array_equal(data.labels, [[1, 1], [0, 1], [UNKNOWN, 0], [1, 0], [0, 1], [UNKNOWN, 0]])
        assert np.asarray(Image.open(data.paths[4]))[0, 0].tolist() == [100, 50, 0]
        assert "unpacked from parquet" in data.summary()
    assert len(list((tmp_path / "cache" / "homomorph" / "unpacked").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("attributes.csv", CSV.replace("round", "square"), "no column round"),
        (
            "attributes.csv",
            CSV.replace("a.png,1", "a.png,2"),
            r"line 2: a label must be 0 or 1, .*, not '2' \(smiling\)",
        ),
        ("attributes.csv", CSV.replace("b.png,0,1,1", "b.png,0,1"), "line 3: expected 3 labels"),
        ("attributes.csv", CSV.replace("b.png", "c.png"), r"line 3: there is no picture .*c\.png"),
        ("attributes.csv", CSV.replace("image", "who"), "a column must be called 'image'"),
        ("attributes.csv", "", "a column must be called 'image'"),
        ("attributes.csv", CSV.partition("b.png")[0], "needs at least 2"),
        ("list_attr_celeba.txt", CELEBA.replace("-1", "2"), "line 3: a label must be .*, not '2'"),
        ("list_attr_celeba.txt", CELEBA.replace("2\n", "3\n", 1), "promises 3 pictures, but 2 follow"),
        ("list_attr_celeba.txt", CELEBA.partition("\n")[2], "first line must be the number of pictures"),
        ("notes.txt", "", "no table of labels, such as attributes.csv"),
        ("attributes.csv", CSV.replace("blond", "smiling"), "has the column smiling twice"),
        ("attributes.csv", CSV + "a.png,1,0,0\n", r"line 4: a.png stands in line 2 already"),
        ("attributes.csv", CSV + "./a.png,0,0,0\n", r"line 4: a.png stands in line 2 already"),
        ("attributes.csv", CSV.replace("a.png,1,0", "a.png,-1,0"), "both -1 and 0 among its labels"),
        ("attributes.csv", CSV.replace("a.png,1,0", "a.png,1,-1"), "both -1 and 0 among its labels"),
        ("list_attr_celeba.txt", CELEBA.replace("-1  1  1", "-1 1 0"), "both -1 and 0 among its labels"),
        ("attributes.csv", CSV.replace("a.png", "../a.png"), r"line 2: '../a.png' leads out of"),
        ("attributes.csv", CSV.replace("a.png", "/etc/passwd"), r"line 2: '/etc/passwd' is an absolute path"),
        ("attributes.csv", CSV.replace("b.png,0", "b.png," + "x" * 150_000), r"line 3: .*not 'x{40} \.\.\.'"),
        ("attributes.csv", CSV.replace("b.png,0", 'b.png,"' + "x" * 150_000 + '"'), "field larger than field limit"),
        ("attributes.csv", CSV.replace("a.png", "aa.png"), r"no picture .*aa\.png \(did you mean a\.png\?\)"),
        ("attributes.csv", "PK\3\4rubbish", "begins like an Excel file, and cannot be read"),
        ("attributes.csv", "PAR1rubbish", "is damaged parquet"),
        ("attributes.csv", "image,smiling\0", "is no text"),
        ("attributes.csv", "# my labels\n" + CSV, "a column must be called 'image'.*columns are # my labels"),
        ("metadata.jsonl", '{"image": "a.png", "smiling": [1], "round": 0}', r"not '\[1\]' \(smiling\)"),
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
        ("hair: [round]\nhair: [smiling]", "'hair' stands in it twice"),
        ("a: &a [round]\nb: *a", "references"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "references"),
        ("a: " + "[" * 20_000, "nested too deeply"),
        ("a: " + "{a: " * 20_000, "nested too deeply"),
        ("glasses: [no, round]", "does not read 'False' as a name"),
        ("glasses: [2020-13-01 25:61:00]", "groups.yaml"),
        ("x" * 2**21, "more than 256 KiB"),
        ("glasses: [image, round]", "the column image names the pictures: remove it"),
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
