"""Colours become sRGB, whatever a picture says about its numbers."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from homomorph_client.colours import SRGB, from_code_points, from_gamma, matrix_profile
from homomorph_client.errors import PictureError
from homomorph_client.pictures import load_picture

P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE = (0.3127, 0.3290, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
COLOURS = np.random.default_rng(0).integers(60, 196, (16, 16, 3), dtype=np.uint8)


def encoded(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Linear light -> sRGB's grey levels, by IEC 61966-2-1."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def decoded(levels: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    values = levels.astype(np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_xyz(points: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Matrix from RGB of these chromaticities to XYZ, after Lindbloom."""
    xy = np.asarray(points).reshape(4, 2)
    xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]])
    return xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])


def expected(light: npt.NDArray[np.float64], points: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Light of RGB of some D65 chromaticities -> sRGB's grey levels."""
    return encoded(light @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(points)).T)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: bytes, picture: npt.NDArray[np.uint8] = COLOURS) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()[:33] + b"".join(chunks) + out.getvalue()[33:]


def chrm(points: tuple[float, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in points)))


def gama(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"a\0\0" + zlib.compress(profile))


P3_PROFILE = matrix_profile(P3, lambda value: decoded(value * 255))
AS_P3 = expected(decoded(COLOURS), P3)


@pytest.mark.parametrize(
    ("chunks", "levels"),
    [
        ((), COLOURS),
        ((gama(1.0),), encoded(COLOURS / 255)),
        ((gama(0.45455),), COLOURS),
        ((gama(0.45455), chrm(SRGB)), COLOURS),
        ((gama(1 / 2.8),), encoded((COLOURS / 255) ** 2.8)),
        ((gama(0.45455), chrm(P3)), AS_P3),
        ((chrm(P3),), AS_P3),
        ((gama(1.0), chrm(ADOBE)), expected(COLOURS / 255, ADOBE)),
        ((iccp(P3_PROFILE),), AS_P3),
        ((iccp(P3_PROFILE), gama(1.0)), AS_P3),
        ((chunk(b"sRGB", b"\0"), gama(1.0), chrm(P3)), COLOURS),
        ((chunk(b"cICP", b"\x0c\x0d\0\1"), iccp(b"broken"), gama(1.0)), AS_P3),
        ((chunk(b"cICP", b"\1\x0d\0\1"), iccp(P3_PROFILE)), COLOURS),
    ],
    ids=[
        "none",
        "linear",
        "0.45",
        "srgb",
        "2.8",
        "p3",
        "chrm",
        "adobe",
        "icc",
        "icc-gama",
        "srgb-gama",
        "cicp",
        "cicp-icc",
    ],
)
def test_chunks_of_a_png_are_honoured_in_its_order(chunks: tuple[bytes, ...], levels: npt.NDArray[np.float64]) -> None:
    assert np.abs(load_picture(png_with(*chunks)) - levels).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_profiles_are_applied_in_every_format(tmp_path: Path, kind: str) -> None:
    flat = np.full((32, 32, 3), (180, 90, 70), np.uint8)
    options = {"quality": 100} if kind in ("JPEG", "WEBP", "AVIF") else {}
    Image.fromarray(flat).save(tmp_path / "a", kind, icc_profile=P3_PROFILE, **options)
    assert np.abs(load_picture(tmp_path / "a") - expected(decoded(flat), P3)).max() <= 4
    assert np.abs(load_picture(Image.open(tmp_path / "a")) - expected(decoded(flat), P3)).max() <= 4


def test_a_profile_of_jpeg_2000_is_applied(tmp_path: Path) -> None:
    flat = np.full((32, 32, 3), (180, 90, 70), np.uint8)
    out = io.BytesIO()
    Image.fromarray(flat).save(out, "JPEG2000")
    data = out.getvalue()
    place = data.index(b"colr") - 4
    (length,) = struct.unpack_from(">I", data, place)
    box = b"colr\2\0\0" + P3_PROFILE
    header = data.index(b"jp2h") - 4
    (header_length,) = struct.unpack_from(">I", data, header)
    longer = header_length + len(box) + 4 - length
    data = data[:place] + struct.pack(">I", len(box) + 4) + box + data[place + length :]
    data = data[:header] + struct.pack(">I", longer) + data[header + 4 :]
    assert np.abs(load_picture(data) - expected(decoded(flat), P3)).max() <= 2


def test_alpha_stays_where_colours_are_converted() -> None:
    rgba = np.dstack([COLOURS, np.full((16, 16), 128, np.uint8)])
    read = load_picture(png_with(gama(1.0), picture=rgba))
    assert np.abs(read - (encoded(COLOURS / 255) * 128 + 255 * 127) / 255).max() <= 2


def test_a_grey_picture_may_have_the_profile_of_rgb_or_of_grey() -> None:
    grey = COLOURS[..., 0]
    linear = matrix_profile(SRGB, lambda value: value)
    for picture in (grey, np.dstack([grey, np.full_like(grey, 255)])):
        read = load_picture(png_with(iccp(linear), picture=picture))
        assert np.abs(read - encoded(grey / 255)[..., None]).max() <= 2
        read = load_picture(png_with(gama(1.0), picture=picture))
        assert np.abs(read - encoded(grey / 255)[..., None]).max() <= 2


def test_a_profile_of_another_kind_is_not_applied(caplog: pytest.LogCaptureFixture) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(load_picture(png_with(iccp(lab))), COLOURS)
    assert "its colour profile cannot be applied" in caplog.text


def test_srgb_stays_as_it_is_to_the_last_bit() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    every = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(load_picture(png_with(iccp(srgb), picture=every)), every)


def test_code_points_of_high_dynamic_range_are_refused() -> None:
    for transfer in (16, 18):
        with pytest.raises(PictureError, match="high dynamic range"):
            from_code_points(9, transfer, "a.png")
    assert from_code_points(2, 2, "a.png") is None


def test_chromaticities_that_span_nothing_are_ignored() -> None:
    for points in ((0.0,) * 8, (0.3, 0.3) * 4, (42_949.0,) * 8):
        assert from_gamma(None, points) is None  # type: ignore[arg-type]
    assert from_gamma(0.0, None) is None
