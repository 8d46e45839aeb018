"""Converts a caller's picture to uint8 RGB, HWC, with values in [0, 255], in sRGB.

Converts colours with an ICC profile or in another space than sRGB, grey, palette, bilevel, grey of 12 to 16 bits (its
whole range, not only the lowest 256 values), CMYK, and arrays of integers, bool or floats in [0, 1]. Transparent pixels
become white. The first frame of an animation is used. EXIF orientation is applied. Everything else raises
`PictureError` with a single line. docs/your-data.md has the same as a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from homomorph_client.colours import to_srgb
from homomorph_client.errors import PictureError
from homomorph_client.picture_files import OpenedPicture, check_size, open_picture
from homomorph_client.picture_warnings import quietly, warn

Picture: TypeAlias = "str | Path | bytes | IO[bytes] | Image.Image | npt.NDArray[np.generic]"
"""Accepted forms of a picture: a path, the bytes of a file, a file object, a PIL image, or an array [H, W],
[H, W, 1], [H, W, 3] or [H, W, 4]."""

_ORIENTATION = 0x0112
"""EXIF's tag of the orientation."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> transposition that sets the picture upright."""
_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS = 0, 262, 258
"""A value and two tags of TIFF."""


def load_picture(picture: Picture) -> npt.NDArray[np.uint8]:
    """Read a picture at its own size.

    Args:
        picture: path, bytes, file object, PIL image or array. In arrays, floats must be in [0, 1], uint16 uses its
            whole range, and other integers must be from 0 to 255.

    Returns:
        uint8 [H, W, 3], sRGB, values in [0, 255].

    Raises:
        PictureError: the picture cannot be read or converted, or is too small or too large; see `picture_files`.
    """
    return np.array(_to_image(picture), dtype=np.uint8)


def fit_picture(picture: Picture, size: int) -> npt.NDArray[np.uint8]:
    """Read a picture, crop its centre to a square and resize it.

    Args:
        picture: as for `load_picture`.
        size: height and width of the result in pixels.

    Returns:
        uint8 [size, size, 3], RGB, values in [0, 255]; unchanged if the picture has that size already.

    Raises:
        PictureError: as for `load_picture`.
    """
    image = _to_image(picture)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    # Pillow's bicubic filter is antialiased. It has a single negative lobe, so a white area next to a dark line stays
    # white. Lanczos would leave a grey ring there.
    return np.array(square.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def _to_image(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        check_size(*picture.size, "the picture")  # only the header has been read; no pixels are decoded yet
        try:
            picture.load()
        except Exception as error:  # truncated data surfaces as OSError, SyntaxError, ValueError, struct.error, ...
            raise PictureError(f"the picture cannot be decoded, it is truncated or damaged: {error}") from error
        return _convert(OpenedPicture(picture, picture.info.get("icc_profile")), "the picture")
    if isinstance(picture, np.ndarray):
        return _flatten(Image.fromarray(_array_to_uint8(picture)), None, "the array")
    if isinstance(picture, str | Path):
        return _convert(open_picture(Path(picture)), str(picture))
    if isinstance(picture, bytes) or hasattr(picture, "read"):
        return _convert(open_picture(picture), "the picture")
    raise PictureError(
        f"a picture is a path, a file object, bytes, a PIL image or a numpy array, not {type(picture).__name__}"
    )


def _convert(opened: OpenedPicture, name: str) -> Image.Image:
    """Set a decoded picture upright and bring it to opaque sRGB."""
    image = opened.image
    try:
        if opened.transparent is not None:
            image = _with_transparency(image, opened.transparent, opened.low_bytes)
        upright = _UPRIGHT.get(_orientation(opened.image, name))
        if upright is not None:
            turned = image.transpose(upright)
            turned.info = image.info
            image = turned
        image = _like_its_file(opened, image)
        return _flatten(image, opened.profile, name)
    except PictureError:
        raise
    except Exception as error:  # what Pillow cannot convert
        raise PictureError(f"{name} cannot be converted to RGB: {error}") from error


def _orientation(image: Image.Image, name: str) -> int:
    """Return EXIF's orientation; 1 (upright) if there is none."""
    try:
        with quietly():
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF can raise any exception
        warn(name, "its EXIF data is damaged")
        return 1


def _with_transparency(image: Image.Image, key: tuple[int, ...], low_bytes: Image.Image | None) -> Image.Image:
    """Make the pixels of one value transparent. Compares all 16 bits, because 8 bits do not identify them."""
    values = np.asarray(image).astype(np.uint16)
    if low_bytes is not None:
        values = values * 256 + np.asarray(low_bytes)
    seen = np.not_equal(values.reshape(*values.shape[:2], -1), key).any(axis=2)
    rgb = image if image.mode == "RGB" else Image.fromarray(_uint16_to_uint8(values)).convert("RGB")
    rgba = rgb.convert("RGBA")
    rgba.putalpha(Image.fromarray(seen.astype(np.uint8) * np.uint8(255)))
    rgba.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return rgba


def _like_its_file(opened: OpenedPicture, image: Image.Image) -> Image.Image:
    """Convert the values of a deep grey TIFF to 16 bits, the largest value white, as in other formats."""
    if not isinstance(opened.image, TiffImagePlugin.TiffImageFile) or image.mode not in ("I;16", "I;16B", "I", "F"):
        return image
    tags: Any = opened.image.tag_v2
    values = np.asarray(image)
    bits = tags.get(_BITS, (16,))[0]
    if image.mode.startswith("I;16") and bits < 16:
        values = (values.astype(np.uint32) * 65535 // (2**bits - 1)).astype(np.uint16)
    if opened.inverted or tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = 1 - values if image.mode == "F" else 65535 - values
    return Image.fromarray(values)


def _flatten(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Convert any of Pillow's modes to RGB and its colours to sRGB. Transparent pixels become white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_deep_to_uint8(image, name))
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    alpha = None
    if image.has_transparency_data:
        if image.mode not in ("LA", "RGBA"):
            image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert(image.mode.removesuffix("A"))
    elif image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode in ("1", "LX") else "RGB")
    image, problem = to_srgb(image, profile)
    if problem:
        warn(name, problem)
    if alpha is None:
        return image
    image.putalpha(alpha)
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _deep_to_uint8(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Scale grey of more than 8 bits to 8. Pillow's own `convert` would clip it at 255."""
    values = np.asarray(image)
    if image.mode == "F":
        return _floats_to_uint8(values, name)
    if values.min() < 0 or values.max() > 65535:
        raise PictureError(f"{name} holds grey values from {values.min()} to {values.max()}: expected 0 to 65535")
    return _uint16_to_uint8(values)


def _array_to_uint8(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Check an array's shape and bring its values to [0, 255]; one channel loses its axis."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise PictureError(f"an array must be [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], not {list(array.shape)}")
    check_size(array.shape[1], array.shape[0], "the array")
    array = np.asarray(array).astype(array.dtype.newbyteorder("="), copy=False)  # big-endian files, masks, matrices
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array, np.uint8)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return _uint16_to_uint8(array)
    if np.issubdtype(array.dtype, np.integer):
        if array.min() < 0 or array.max() > 255:
            raise PictureError(
                f"the array holds integers from {array.min()} to {array.max()}: expected 0 to 255, or uint16 for all "
                "of its range"
            )
        return array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        return _floats_to_uint8(array, "the array")
    raise PictureError(f"an array must hold integers, bool or floats in [0, 1], not {array.dtype}")


def _uint16_to_uint8(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 257 * 255


def _floats_to_uint8(values: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.uint8]:
    floats = values.astype(np.float32)
    if not np.isfinite(floats).all():
        raise PictureError(f"{name} holds NaN or infinite values")
    scaled = np.rint(floats * 255)  # before the check: rounding errors, as in 1.0000001, do not matter
    if scaled.min() < 0 or scaled.max() > 255:
        low, high = floats.min(), floats.max()
        raise PictureError(f"{name} holds floats from {low:g} to {high:g}: expected [0, 1], or uint8 for [0, 255]")
    whole: npt.NDArray[np.uint8] = scaled.astype(np.uint8)
    return whole
