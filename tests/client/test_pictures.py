"""What `load_picture` and `fit_picture` convert, and what they refuse."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from homomorph_client.errors import PictureError
from homomorph_client.picture_files import MAX_PIXELS, MIN_SIDE
from homomorph_client.pictures import fit_picture, load_picture

RED_LEFT = np.zeros((16, 16, 3), np.uint8)
RED_LEFT[:, :8, 0] = 255


def test_array_is_returned_unchanged() -> None:
    assert np.array_equal(load_picture(RED_LEFT), RED_LEFT)


def test_path_image_and_array_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RED_LEFT).save(path)
    for picture in (path, str(path), Image.open(path), RED_LEFT):
        assert np.array_equal(load_picture(picture), RED_LEFT)


def test_result_is_writable_and_independent() -> None:
    source = RED_LEFT.copy()
    load_picture(source)[:] = 7
    assert np.array_equal(source, RED_LEFT)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90 degrees clockwise
    Image.fromarray(RED_LEFT[:, :12]).save(tmp_path / "a.png", exif=exif)
    picture = load_picture(tmp_path / "a.png")
    assert picture.shape == (12, 16, 3)
    assert (picture[:8, :, 0] == 255).all()
    assert (picture[8:] == 0).all()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_keeps_its_whole_range(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
    expected = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert np.array_equal(load_picture(tmp_path / f"a.{suffix}"), expected)
    assert np.array_equal(load_picture(ramp), expected)


def test_32_bit_grey_beyond_16_bits_is_refused() -> None:
    with pytest.raises(PictureError, match="0 to 65535"):
        load_picture(Image.fromarray(np.full((8, 8), 70_000, np.int32)))


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "YCbCr", "HSV"])
def test_white_stays_white_in_every_mode(mode: str) -> None:
    assert (load_picture(Image.new("RGB", (8, 8), "white").convert(mode)) == 255).all()


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(load_picture(tmp_path / "a.jpg").astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparent_becomes_white(mode: str) -> None:
    assert (load_picture(Image.new(mode, (8, 8), 0)) == 255).all()


def test_half_transparent_black_is_grey() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 3] = 128
    assert np.abs(load_picture(pixels).astype(int) - 127).max() <= 1


def test_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "a.png", transparency=1)
    assert (load_picture(tmp_path / "a.png") == 255).all()


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (load_picture(tmp_path / "a.gif") == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((8, 8), 7, np.uint8), 7),
        (np.full((8, 8, 1), 7, np.uint8), 7),
        (np.ones((8, 8), np.bool_), 255),
        (np.full((8, 8, 3), 0.5, np.float32), 128),
        (np.full((8, 8, 3), 1.0, np.float64), 255),
        (np.full((8, 8), 0.25, np.float16), 64),
        (np.full((8, 8, 3), 1.0000001, np.float32), 255),
        (np.full((8, 8, 3), -1e-9), 0),
        (np.full((8, 8, 3), 65535, np.uint16), 255),
        (np.full((8, 8, 3), 65535, ">u2"), 255),
        (np.full((8, 8, 3), 0.5, ">f4"), 128),
        (np.full((8, 8, 3), 7, np.int64), 7),
        (np.full((8, 8, 3), 255, ">i4"), 255),
        (np.ma.masked_array(np.full((8, 8, 3), 7, np.uint8), True), 7),
    ],
    ids=lambda value: f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else str(value),
)
def test_array_types(array: npt.NDArray[np.generic], expected: int) -> None:
    picture = load_picture(array)
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert (picture == expected).all()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((3, 16, 16), np.uint8), "must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], not [3, 16, 16]"),
        (np.zeros((1, 16, 16, 3), np.uint8), "not [1, 16, 16, 3]"),
        (np.zeros(16, np.uint8), "not [16]"),
        (np.zeros((0, 16, 3), np.uint8), "16x0 pixels"),
        (np.zeros((1, 1, 3), np.uint8), f"at least {MIN_SIDE}x{MIN_SIDE}"),
        (np.zeros((16, 7, 3), np.uint8), "7x16 pixels"),
        (np.full((16, 16, 3), 256), "integers from 256 to 256: expected 0 to 255"),
        (np.full((16, 16, 3), -1), "integers from -1 to -1: expected 0 to 255"),
        (np.zeros((16, 16, 3), np.complex64), "not complex64"),
        (np.full((16, 16, 3), "a"), "not <U1"),
        (np.full((16, 16, 3), np.nan), "NaN or infinite"),
        (np.full((16, 16, 3), 255.0), "expected [0, 1]"),
        (np.full((16, 16, 3), -0.1), "expected [0, 1]"),
        (Image.new("RGB", (1, 1)), "1x1 pixels"),
        (Image.fromarray(np.full((8, 8), 2, np.float32)), "expected [0, 1]"),
        (io.BytesIO(), "it is empty, or was read to its end: seek(0)"),
        (None, "not NoneType"),
        ([[1, 2], [3, 4]], "not list"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_refused(picture: object, message: str) -> None:
    with pytest.raises(PictureError, match=re.escape(message)) as caught:
        load_picture(picture)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def _png_header_only(width: int, height: int) -> bytes:
    """Return a PNG whose header promises a size and whose pixels are missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _jpeg(size: int = 64) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "JPEG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_text("hello"), "not a picture"),
        (lambda path: path.write_bytes(b""), "not a picture: it is empty"),
        (lambda path: path.write_bytes(_jpeg()[:2000]), "truncated or damaged"),
        (lambda path: path.write_bytes(_png_header_only(16, 16)), "truncated or damaged"),
        (lambda path: path.write_bytes(_png_header_only(20_000, 20_000)), "million pixels"),
        (lambda path: path.write_bytes(_png_header_only(10_000, 9_000)), "10000x9000"),
        (lambda path: path.write_bytes(_png_header_only(1, 1)), "1x1 pixels"),
    ],
    ids=["missing", "folder", "text", "empty", "truncated-jpeg", "no-pixels", "20000x20000", "10000x9000", "1x1"],
)
@pytest.mark.filterwarnings("error")
def test_files_refused(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "picture.png"
    make(path)
    with pytest.raises(PictureError, match=re.escape(message)) as caught:
        load_picture(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_limit_on_pixels_leaves_room_for_a_camera() -> None:
    assert MAX_PIXELS > 8192 * 5464


def test_fit_crops_the_centre() -> None:
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 200
    assert (fit_picture(wide, 16) == 200).all()
    assert (fit_picture(wide.transpose(1, 0, 2), 16) == 200).all()


def test_fit_leaves_the_right_size_alone() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(fit_picture(noise, 64), noise)


def test_fit_is_antialiased() -> None:
    """One-pixel stripes average to grey; picking every eighth pixel would give black or white."""
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(fit_picture(stripes, 64)[8:-8, 8:-8].astype(int) - 127).max() < 16


def test_fit_keeps_a_white_background_white() -> None:
    """Shrinking rings next to dark lines; the white beside them must not turn grey."""
    picture = np.full((256, 256, 3), 255, np.uint8)
    picture[:, 120:136] = 0
    fitted = fit_picture(picture, 64)
    assert (fitted[:, :28] == 255).all()
    assert (fitted[:, 36:] == 255).all()
