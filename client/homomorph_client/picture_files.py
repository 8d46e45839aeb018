"""Opens picture files of known formats, up to a limit of size. Ignores damage that does not concern the pixels.

Pillow gets only the pixel chunks of a PNG, so text of any size or with a wrong checksum does no harm. A JPEG may lack
its end. Only regular files are opened, and no format for which Pillow would start another program.
"""

from __future__ import annotations

import functools
import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import BmpImagePlugin, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from homomorph_client import png
from homomorph_client.colours import from_code_points
from homomorph_client.containers import boxed_profile, code_points, counting_from_black
from homomorph_client.errors import PictureError
from homomorph_client.files import open_regular
from homomorph_client.picture_warnings import quietly, warn

_FORMATS = (
    "PNG", "JPEG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA", "QOI", "PCX",
)  # fmt: skip
"""Pillow's names of the formats that we read. A build of Pillow may lack some of them."""
MIN_SIDE = 8
"""Smallest height and width in pixels: one cell of the models' features."""
MAX_PIXELS = 64_000_000
"""Largest number of pixels. A decoded picture of this size takes 192 MB."""
_MAX_FILE_BYTES = 512 * 2**20
"""Largest file. Without compression, 64 million pixels of 16-bit RGB take 384 MB."""
_TGA_END = b"TRUEVISION-XFILE.\0"
_JPEG = b"\xff\xd8\xff"
_ICON = b"\0\0\1\0"
_MAX_ICONS = 256
"""Largest number of pictures in an icon's file."""
_TILE_WIDTH, _TILE_HEIGHT, _BIG_TIFF = 322, 323, 43
"""Numbers in TIFF: two tags, and the version with 64-bit offsets."""
_TAG_BYTES = {1: 1, 3: 2, 4: 4}
"""Bytes of a number in a tag of TIFF, by its type."""
_MAX_TAGS = 2**16
"""Largest number of tags in TIFF."""
_LOST_PIXELS = 256
"""Number of pixels that may be missing at the end of a JPEG, besides its end mark: one block of 16 by 16."""


@dataclass(frozen=True)
class OpenedPicture:
    """A decoded picture, and its file's statements about its colours, transparency and depth."""

    image: Image.Image
    profile: bytes | None = None
    """ICC profile of its colours, if they are not sRGB."""
    transparent: tuple[int, ...] | None = None
    """Grey or RGB value of the transparent pixels, in PNGs of 16 bits, as the file has it."""
    inverted: bool = False
    """Whether 0 means white in its grey values."""
    low_bytes: Image.Image | None = None
    """The lower bytes of the values, which `image` lacks. Set if `transparent` is, in RGB PNGs of 16 bits."""


def open_picture(source: Path | bytes | IO[bytes]) -> OpenedPicture:
    """Read and decode a file.

    Args:
        source: path, content, or an open file, which is read from its current position.

    Raises:
        PictureError: the file is not a picture of a known format, is too small or too large, or is damaged.
    """
    data, name = _content(source)
    if not data:
        rewind = ", or was read to its end: seek(0) before it is given" if hasattr(source, "seek") else ""
        raise PictureError(f"{name} is not a picture: it is empty{rewind}")
    formats = _formats(data, name)
    if data.startswith(png.SIGNATURE):
        return _open_png(data, name)
    data, inverted = counting_from_black(data)
    image = _decoded(data, name, formats)
    profile = image.info.get("icc_profile") or boxed_profile(data, image.format)
    if not profile and image.format == "AVIF" and (points := code_points(data)):
        profile = from_code_points(*points, name)
    elif profile and len(profile) > png.MAX_PROFILE_BYTES:
        warn(name, "its colour profile is too large and was not applied")
        profile = None
    return OpenedPicture(image, profile, inverted=inverted)


def check_size(width: int, height: int, name: str) -> None:
    """Check the size of a picture, before its pixels are decoded.

    Raises:
        PictureError: it is smaller than `MIN_SIDE` or larger than `MAX_PIXELS`.
    """
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"{name} is {width}x{height} pixels: at least {MIN_SIDE}x{MIN_SIDE} are needed")
    _check_pixels(width, height, name)


def _check_pixels(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise PictureError(f"{name} is {width}x{height}: more than {limit} million pixels, scale it down first")


def is_picture(path: Path) -> bool:
    """Return whether a file's content is of a known picture format. Decodes no pixels."""
    try:
        with _open_regular(path) as file:
            head = file.read(4096)
            formats = _formats(head, str(path))
            if not head.startswith(png.SIGNATURE):
                file.seek(0)
                with quietly():
                    Image.open(file, formats=formats)
    except Image.DecompressionBombError:
        return True
    except Exception:  # Pillow's parsers can raise any exception for a broken header
        return False
    return True


def _content(source: Path | bytes | IO[bytes]) -> tuple[bytes, str]:
    """Return a file's content, and its name for messages."""
    if isinstance(source, bytes):
        data, name = source, "the picture"
    elif isinstance(source, Path):
        return _read_regular(source), str(source)
    else:
        name = str(getattr(source, "name", "the picture"))
        try:
            data = source.read(_MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            raise PictureError(f"{name} cannot be read: {error}") from error
        if not isinstance(data, bytes):
            raise PictureError(f"{name} is open as text: open it as 'rb'")
    if len(data) > _MAX_FILE_BYTES:
        raise PictureError(f"{name} has more than {_MAX_FILE_BYTES >> 20} MiB")
    return data, name


def _read_regular(path: Path) -> bytes:
    try:
        with _open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror}") from error


def _open_regular(path: Path) -> IO[bytes]:
    """Open a file. Refuses files that are not regular or too large."""
    try:
        file = open_regular(path)
    except FileNotFoundError as error:
        raise PictureError(f"there is no file {path}") from error
    except ValueError as error:
        raise PictureError(f"{str(path)!r} is no name of a file: {error}") from error
    except OSError as error:
        raise PictureError(f"{path} cannot be opened: {error.strerror}") from error
    if os.fstat(file.fileno()).st_size > _MAX_FILE_BYTES:
        file.close()
        raise PictureError(f"{path} has more than {_MAX_FILE_BYTES >> 20} MiB")
    return file


def _formats(data: bytes, name: str) -> tuple[str, ...]:
    """Return Pillow's names of the formats that the content may have.

    Raises:
        PictureError: it is a common format that we do not read.
    """
    heif = data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")
    if heif and b"avif" not in data[:64]:
        raise PictureError(f"{name} is a HEIC picture, which is not read: convert it to JPEG or PNG first")
    if data.startswith((b"%!PS", b"%PDF", b"\xc5\xd0\xd3\xc6")):
        raise PictureError(f"{name} is a PostScript or PDF document, not a picture: convert it to PNG first")
    if data.startswith(b"version https://git-lfs"):
        raise PictureError(f"{name} is a git-lfs pointer, not a picture: run `git lfs pull` where it comes from")
    # A TGA file has no signature, so almost any content could be one.
    tga = name.lower().endswith((".tga", ".icb", ".vda", ".vst")) or _TGA_END in data[-64:]
    return tuple(kind for kind in _known_formats() if tga or kind != "TGA")


@functools.cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(kind for kind in _FORMATS if kind in Image.OPEN)


def _decoded(data: bytes, name: str, formats: tuple[str, ...]) -> Image.Image:
    try:
        return _load(data, name, formats)
    except PictureError:
        if not data.startswith(_JPEG) or b"MPF\0" in data[:65536]:  # several pictures in one file
            raise
        image = _without_end(data, name, formats)
        if image is None:
            raise
        return image


def _load(data: bytes, name: str, formats: tuple[str, ...]) -> Image.Image:
    if data.startswith(_ICON):
        _check_icons(data, name)
    try:
        with quietly():
            image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name} is not a picture that can be read (PNG, JPEG, GIF, WebP, AVIF, JPEG 2000, BMP, TIFF, ...)"
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has more than {MAX_PIXELS // 10**6} million pixels: scale it down first") from error
    except Exception as error:  # Pillow's parsers can raise any exception for a broken header
        raise PictureError(f"{name} cannot be opened: {error}") from error
    check_size(*image.size, name)  # only the header has been read; no pixels are decoded yet
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiles(data, name)
    try:
        image.load()
    except Exception as error:  # truncated data surfaces as OSError, SyntaxError, ValueError, struct.error, ...
        raise PictureError(f"{name} cannot be decoded, it is truncated or damaged: {error}") from error
    return image


def _check_icons(data: bytes, name: str) -> None:
    """Check the sizes of an icon's pictures. Pillow decodes one of them when it opens the file.

    Raises:
        PictureError: one of them is too large, or there are too many.
    """
    count = int.from_bytes(data[4:6], "little")
    if count > _MAX_ICONS:
        raise PictureError(f"{name} holds {count} icons: at most {_MAX_ICONS} are read")
    file = io.BytesIO(data)
    for start in range(18, 18 + 16 * count, 16):
        offset = int.from_bytes(data[start : start + 4], "little")
        kind = PngImagePlugin.PngImageFile if data.startswith(png.SIGNATURE, offset) else BmpImagePlugin.DibImageFile
        file.seek(offset)
        try:
            with quietly():
                size = kind(file).size
        except Exception:  # damaged: Pillow does not read it either
            continue
        _check_pixels(*size, name)


def _check_tiles(data: bytes, name: str) -> None:
    """Check the size of a TIFF's tiles. A whole tile is decoded, even if the picture is a small part of it.

    Pillow and libtiff take different ones of several tags with the same number. So none may be too large.

    Raises:
        PictureError: a tile is too large.
    """
    order: Literal["big", "little"] = "big" if data.startswith(b"MM") else "little"

    def number(start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], order)

    large = number(2, 2) == _BIG_TIFF
    offset_size, count_size, entry_size = (8, 8, 20) if large else (4, 2, 12)
    first = number(offset_size, offset_size)
    sides = {_TILE_WIDTH: 1, _TILE_HEIGHT: 1}
    for index in range(min(number(first, count_size), _MAX_TAGS)):
        entry = first + count_size + index * entry_size
        tag, kind = number(entry, 2), number(entry + 2, 2)
        if tag in sides:
            size = _TAG_BYTES.get(kind, offset_size)
            sides[tag] = max(sides[tag], number(entry + 4 + offset_size, size))
    _check_pixels(sides[_TILE_WIDTH], sides[_TILE_HEIGHT], f"a tile of {name}")


def _without_end(data: bytes, name: str, formats: tuple[str, ...]) -> Image.Image | None:
    """Decode a JPEG that lacks its end mark but hardly any pixels; None if it lacks more.

    Decodes it with different bytes added at the end. If all pixels are in the file, the added bytes do not change them.
    """
    data = data.rstrip(b"\xff")
    try:
        image, other = (_load(data + end + b"\xff\xd9", name, formats) for end in (b"", b"\xa5\x3c" * 2048))
    except PictureError:
        return None
    difference = np.asarray(image).astype(np.int16) - np.asarray(other)
    if np.count_nonzero(difference.reshape(image.height * image.width, -1).any(axis=1)) > _LOST_PIXELS:
        return None
    warn(name, "the end of the file is missing")
    return image


def _open_png(data: bytes, name: str) -> OpenedPicture:
    chunks = png.read_chunks(data, name)
    header = chunks.pixels[0][1] if chunks.pixels else b""
    if len(header) != 13 or chunks.pixels[0][0] != b"IHDR":
        raise PictureError(f"{name} cannot be opened: a PNG begins with the chunk IHDR")
    depth, colour = header[8], header[9]
    transparent = next((content for kind, content in chunks.pixels if kind == b"tRNS"), b"")
    keys = 3 if colour == 2 else 1
    key = struct.unpack(f">{keys}H", transparent[: 2 * keys]) if len(transparent) >= 2 * keys else None
    if colour == 3:  # the transparency of a palette's colours, which Pillow applies
        key = None
    if key and colour == 0 and depth in (2, 4):
        # Pillow widens the pixels to eight bits, but not the value of the transparent pixels.
        widened = struct.pack(">H", key[0] * 255 // (2**depth - 1))
        chunks.pixels = [(kind, widened if kind == b"tRNS" else content) for kind, content in chunks.pixels]
    if key and depth == 16:
        chunks.pixels = [(kind, content) for kind, content in chunks.pixels if kind != b"tRNS"]
    else:
        key = None
    space = png.colour_profile(chunks.colours, name)
    try:
        image = _load(png.assemble(chunks.pixels, chunks.orienting), name, ("PNG",))
    except PictureError:
        if not chunks.orienting:
            raise
        image = _load(png.assemble(chunks.pixels, []), name, ("PNG",))
        warn(name, "its EXIF data is damaged")
    low_bytes = None
    if key and colour == 2:
        low_bytes = png.low_bytes(png.assemble(chunks.pixels, []))
    return OpenedPicture(image, space, transparent=key, low_bytes=low_bytes)
