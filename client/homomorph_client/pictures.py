"""Pictures in: whatever a caller has becomes uint8 RGB, HWC, with values in [0, 255].

Converted: grey, palette, bilevel, 16-bit grey (the whole range, not its lowest 256 values), CMYK, transparency
(laid on white), arrays of uint8, uint16, bool or floats in [0, 1]; of an animation the first frame. EXIF orientation is
applied. Everything else raises `PictureError` with a single line.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from homomorph_client.errors import PictureError

Picture: TypeAlias = "str | Path | Image.Image | npt.NDArray[np.generic]"
"""What a picture may be given as: a path, a PIL image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]."""

MIN_SIDE = 8
"""Smallest height and width in pixels: one cell of the models' features."""
MAX_PIXELS = 64_000_000
"""Largest number of pixels; decoded, such a picture takes 192 MB."""

# Pillow's own guard against decompression bombs warns or raises, depending on the size. Ours is stricter and always
# raises, so the warning is silenced around `Image.open`; the lock keeps threads from restoring each other's filters.
_WARNINGS = threading.Lock()


def load_picture(picture: Picture) -> npt.NDArray[np.uint8]:
    """Read a picture at its own size.

    Args:
        picture: path, PIL image or array; floats must lie in [0, 1], integers must be uint8 or uint16.

    Returns:
        uint8 [H, W, 3], RGB, values in [0, 255].

    Raises:
        PictureError: it cannot be read or converted, or is smaller than `MIN_SIDE` or larger than `MAX_PIXELS`.
    """
    return np.array(_to_image(picture), dtype=np.uint8)


def fit_picture(picture: Picture, size: int) -> npt.NDArray[np.uint8]:
    """Read a picture, crop its centre to a square and resize it.

    Args:
        picture: as for `load_picture`.
        size: height and width of the result in pixels.

    Returns:
        uint8 [size, size, 3], RGB, values in [0, 255]; unchanged where the picture has that size already.

    Raises:
        PictureError: as for `load_picture`.
    """
    image = _to_image(picture)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    # Bicubic is antialiased in Pillow, and with its single negative lobe a white area next to a dark line stays
    # white; Lanczos would leave a grey ring there.
    return np.array(square.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def _to_image(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return _decode(picture, "the picture")
    if isinstance(picture, np.ndarray):
        return _flatten(Image.fromarray(_array_to_uint8(picture)), "the array")
    if isinstance(picture, str | Path):
        return _read(Path(picture))
    raise PictureError(f"a picture is a path, a PIL image or a numpy array, not {type(picture).__name__}")


def _read(path: Path) -> Image.Image:
    if path.is_dir():
        raise PictureError(f"{path} is a folder: give a picture file")
    try:
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except FileNotFoundError as error:
        raise PictureError(f"there is no file {path}") from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{path} is not a picture that can be read (PNG, JPEG, GIF, WebP, BMP, TIFF, ...)"
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path} has more than {MAX_PIXELS // 10**6} million pixels: scale it down first") from error
    except Exception as error:  # Pillow's parsers let through whatever a broken header provokes
        raise PictureError(f"{path} cannot be opened: {error}") from error
    with image:
        return _decode(image, str(path))


def _decode(image: Image.Image, name: str) -> Image.Image:
    _check_size(*image.size, name)  # the header alone: nothing is decoded yet
    try:
        upright = ImageOps.exif_transpose(image)
        upright.load()
    except Exception as error:  # truncated data surfaces as OSError, SyntaxError, ValueError, struct.error, ...
        raise PictureError(f"{name} cannot be decoded, it is truncated or damaged: {error}") from error
    return _flatten(upright, name)


def _check_size(width: int, height: int, name: str) -> None:
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"{name} is {width}x{height} pixels: at least {MIN_SIDE}x{MIN_SIDE} are needed")
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise PictureError(f"{name} is {width}x{height}: more than {limit} million pixels, scale it down first")


def _flatten(image: Image.Image, name: str) -> Image.Image:
    """Convert any mode of Pillow's to RGB; transparency is laid on white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_deep_to_uint8(image, name))
    if image.mode == "La":  # the one mode that Pillow cannot take to RGBA directly
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _deep_to_uint8(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Scale grey of more than 8 bits, which Pillow's own `convert` would clip at 255."""
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
    _check_size(array.shape[1], array.shape[0], "the array")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array, np.uint8)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return _uint16_to_uint8(array)
    if np.issubdtype(array.dtype, np.floating):
        return _floats_to_uint8(array, "the array")
    raise PictureError(f"an array must be uint8, uint16, bool or floats in [0, 1], not {array.dtype}")


def _uint16_to_uint8(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 257 * 255


def _floats_to_uint8(values: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.uint8]:
    floats = values.astype(np.float32)
    if not np.isfinite(floats).all():
        raise PictureError(f"{name} holds NaN or infinite values")
    if floats.min() < 0 or floats.max() > 1:
        low, high = floats.min(), floats.max()
        raise PictureError(f"{name} holds floats from {low:g} to {high:g}: expected [0, 1], or uint8 for [0, 255]")
    scaled: npt.NDArray[np.uint8] = np.rint(floats * 255).astype(np.uint8)
    return scaled
