"""Converts colours to sRGB with littleCMS, by a picture's ICC profile or the chunks of its PNG.

A picture without such information is in sRGB already. The order of precedence is PNG's: cICP, then an ICC profile, then
sRGB, then gAMA and cHRM (PNG specification, third edition, section 4.3). AVIF's code points come after an ICC profile.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from homomorph_client.errors import PictureError

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""CIE 1931 x and y of white, red, green and blue."""

_D65 = (0.3127, 0.3290)
SRGB: Chromaticities = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
"""The chromaticities of sRGB, which are those of BT.709."""
_PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB,
    4: (0.310, 0.316, 0.670, 0.330, 0.210, 0.710, 0.140, 0.080),
    5: (*_D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""Chromaticities by the numbers of ITU-T H.273."""
_CURVE_POINTS = 4096
_SRGB_LIKE = 0.05
"""Tolerance for a file's gamma. If its relative difference to 1/2.2 is smaller, we use sRGB's curve, as libpng does.

Many programs write gAMA 0.45455 and mean sRGB, although that exponent only approximates sRGB's curve."""

Curve = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def from_code_points(primaries: int, transfer: int, name: str) -> bytes | None:
    """Return the ICC profile of a pair of H.273's code points; None for sRGB or if they name no space.

    Raises:
        PictureError: they name high dynamic range, which eight bits cannot hold.
    """
    if transfer in (16, 18):
        raise PictureError(f"{name} is a picture of high dynamic range (PQ or HLG): convert it to sRGB first")
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS or (primaries, transfer) == (1, 13):
        return None
    return matrix_profile(_PRIMARIES[primaries], _TRANSFERS[transfer])


def from_gamma(gamma: float | None, chromaticities: Chromaticities | None) -> bytes | None:
    """Return the ICC profile of PNG's gAMA and cHRM; None for sRGB or if they name no space.

    Args:
        gamma: exponent from light to values, such as 0.45455.
        chromaticities: x and y of white and the primaries.
    """
    if chromaticities is not None and not _usable(chromaticities):
        chromaticities = None
    if gamma is not None and not 0.01 <= gamma <= 100:
        gamma = None
    curve = _srgb if gamma is None or abs(gamma * 2.2 - 1) <= _SRGB_LIKE else _power(1 / gamma)
    if curve is _srgb and (chromaticities is None or np.allclose(chromaticities, SRGB, atol=0.002)):
        return None
    return matrix_profile(chromaticities or SRGB, curve)


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """Convert an opaque picture.

    Args:
        image: of mode L, RGB, CMYK or LAB.
        profile: the picture's ICC profile; None: sRGB, or plain grey or CMYK.

    Returns:
        The picture in mode RGB, and the reason if its profile was not applied.
    """
    if image.mode == "LAB":
        return _lab_transform().apply(image), None
    problem = None
    if profile is not None:
        try:
            mode, transform = _transform(profile, image.mode)
            return (image.convert(mode) if transform is None else transform.apply(image.convert(mode))), None
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            problem = f"its colour profile cannot be applied ({error})"
    return image.convert("RGB"), problem


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode in which a profile takes a picture, and the transform to sRGB; None: it is in sRGB."""
    opened = ImageCms.getOpenProfile(io.BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    # A grey picture may have the profile of its RGB original. A grey profile says nothing about RGB colours.
    wanted = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    if wanted is None or (mode != wanted and (mode, wanted) != ("L", "RGB")):
        raise ValueError(f"it is for {space} and the picture is {mode}")
    transform = None
    for intent in (ImageCms.Intent(ImageCms.getDefaultIntent(opened)), ImageCms.Intent.RELATIVE_COLORIMETRIC):
        try:
            transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), wanted, "RGB", intent)
            break
        except ImageCms.PyCMSError:
            if intent == ImageCms.Intent.RELATIVE_COLORIMETRIC:
                raise
    assert transform is not None
    if wanted == "RGB":
        levels = np.linspace(0, 255, 9).round().astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
        changed = np.asarray(transform.apply(Image.fromarray(cube)))
        if np.abs(changed.astype(int) - cube).max() <= 1:
            return "RGB", None
    return wanted, transform


@functools.cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _power(exponent: float) -> Curve:
    return lambda value: value**exponent


def _srgb(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _bt709(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(value < 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))


_TRANSFERS: dict[int, Curve] = {
    1: _bt709,
    4: _power(2.2),
    5: _power(2.8),
    6: _bt709,
    8: _power(1.0),
    13: _srgb,
    14: _bt709,
    15: _bt709,
}
"""H.273's number of a transfer -> curve from values to light."""


def _usable(chromaticities: Chromaticities) -> bool:
    """Whether the white point and the primaries define a colour space."""
    points = np.asarray(chromaticities).reshape(4, 2)
    if not (np.isfinite(points).all() and (points[:, 1] > 0).all() and (points <= 2).all()):
        return False
    return abs(float(np.linalg.det(_xyz(points[1:]).T))) > 1e-4


def _xyz(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Chromaticities [N, 2] -> XYZ of luminance 1, [N, 3]."""
    x, y = points[..., 0], points[..., 1]
    return np.stack([x / y, np.ones_like(x), (1 - x - y) / y], axis=-1)


def matrix_profile(chromaticities: Chromaticities, curve: Curve) -> bytes:
    """Return an ICC profile with three columns and one curve (ICC.1:2010), adapted to D50 by Bradford's method.

    Args:
        chromaticities: x and y of white and the primaries.
        curve: from values in [0, 1] to light.
    """
    points = np.asarray(chromaticities, np.float64).reshape(4, 2)
    white, primaries = _xyz(points[0]), _xyz(points[1:]).T
    columns = primaries * np.linalg.solve(primaries, white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50 = np.array([0.9642, 1.0, 0.8249])
    adapted = np.linalg.solve(bradford, np.diag((bradford @ d50) / (bradford @ white)) @ bradford) @ columns
    light = np.clip(curve(np.linspace(0, 1, _CURVE_POINTS)), 0, 1)
    shared = struct.pack(">4s4xI", b"curv", _CURVE_POINTS) + (light * 65535).round().astype(">u2").tobytes()
    tags = [(name, _xyz_tag(column)) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), adapted.T, strict=True)]
    tags += [(b"wtpt", _xyz_tag(d50)), (b"rTRC", shared), (b"gTRC", shared), (b"bTRC", shared)]
    table, body = struct.pack(">I", len(tags)), b""
    begin = 128 + 4 + 12 * len(tags)
    for name, content in tags:
        table += struct.pack(">4sII", name, begin + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s12x4s", begin + len(body), b"", 0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    header += struct.pack(">28xIIII", 0, 0xF6D6, 0x10000, 0xD32D)  # perceptual; D50
    return header.ljust(128, b"\0") + table + body


def _xyz_tag(values: npt.NDArray[np.float64]) -> bytes:
    return struct.pack(">4s4xiii", b"XYZ ", *(round(float(value) * 65536) for value in values))
