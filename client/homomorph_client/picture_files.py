"""Opens picture files of known formats, up to a limit of size. Ignores damage that does not concern the pixels.

Pillow gets only the pixel chunks of a PNG, so text of any size or with a wrong checksum does no harm. A JPEG may lack
its end. Only regular files are opened, and no format for which Pillow would start another program.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from homomorph_client.colours import ColourSpace, from_code_points, from_gamma
from homomorph_client.errors import PictureError

FORMATS = (
    "PNG", "JPEG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA", "QOI", "PCX",
)  # fmt: skip
"""Pillow's names of the formats that we read. A build of Pillow may lack some of them."""
MAX_PIXELS = 64_000_000
"""Largest number of pixels. A decoded picture of this size takes 192 MB."""
MAX_FILE_BYTES = 512 * 2**20
"""Largest file. Without compression, 64 million pixels of 16-bit RGB take 384 MB."""
_MAX_PROFILE_BYTES = 16 * 2**20
_MAX_CHUNKS = 1_000_000
_MAX_METADATA = 2**16
"""Largest EXIF or XMP chunk that we read the orientation from."""
_TGA_END = b"TRUEVISION-XFILE.\0"
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_ORIENTING = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
"""First bytes of the text chunks that can hold the orientation."""
_SHORT, _BITS, _PHOTOMETRIC = 3, 258, 262
"""TIFF: the type of 16-bit numbers, and the tags of the bits per sample and of the meaning of 0."""
_LOST_PIXELS = 256
"""Number of pixels that may be missing at the end of a JPEG, besides its end mark: one block of 16 by 16."""

_WARNINGS = Lock()
"""Keeps threads from restoring each other's filters of warnings."""

_log = logging.getLogger(__name__)
_warned: set[str] = set()


@dataclass(frozen=True)
class OpenedPicture:
    """A decoded picture, and what its file says about the pixels."""

    image: Image.Image
    profile: bytes | None = None
    """ICC profile of its colours, if they are not sRGB."""
    transparent: tuple[int, ...] | None = None
    """Grey or RGB value of the transparent pixels, in PNGs of 16 bits, as the file has it."""
    inverted: bool = False
    """Whether 0 means white in its grey values."""
    low_bytes: Image.Image | None = None
    """The lower bytes of the values, which `image` lacks. Set if `transparent` is, in RGB PNGs of 16 bits."""


def open_picture(source: Path | bytes | IO[bytes], check_size: Callable[[int, int, str], None]) -> OpenedPicture:
    """Read and decode a file.

    Args:
        source: path, content, or an open file, which is read from its current position.
        check_size: raises PictureError if width and height cannot be used; called before the pixels are decoded.

    Raises:
        PictureError: the file is not a picture of a known format, is too large, or is damaged.
    """
    data, name = _content(source)
    kind = _kind(data, name)
    space: ColourSpace | None = None
    if data.startswith(_PNG):
        return _open_png(data, name, check_size)
    data, inverted = _counting_from_black(data)
    image = _decoded(data, name, kind, check_size)
    profile = image.info.get("icc_profile") or _boxed_profile(data, image.format)
    if not profile and image.format == "AVIF" and (points := _code_points(data)):
        space = from_code_points(*points, name)
    if profile and len(profile) > _MAX_PROFILE_BYTES:
        warn(name, "its colour profile is too large and was not applied")
        profile = None
    return OpenedPicture(image, profile or (space.profile() if space else None), inverted=inverted)


def is_picture(path: Path) -> bool:
    """Return whether a file's content is of a known picture format. Decodes no pixels."""
    try:
        with _open_regular(path) as file:
            head = file.read(4096)
            kinds = _kind(head, str(path))
            if not head.startswith(_PNG):
                file.seek(0)
                with quietly():
                    Image.open(file, formats=kinds)
    except Image.DecompressionBombError:
        return True
    except Exception:  # Pillow's parsers can raise any exception for a broken header
        return False
    return True


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress Pillow's warnings about damage and sizes. Our own messages replace them."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def warn(name: str, problem: str) -> None:
    """Log a problem with a picture that was read all the same. Logs each problem for its first picture only."""
    if problem not in _warned:
        _warned.add(problem)
        _log.warning("%s: %s (other pictures like it are not named)", name, problem)


def _content(source: Path | bytes | IO[bytes]) -> tuple[bytes, str]:
    """Return a file's content, and its name for messages."""
    if isinstance(source, bytes):
        data, name = source, "the picture"
    elif isinstance(source, Path):
        return _read_regular(source), str(source)
    else:
        name = str(getattr(source, "name", "the picture"))
        try:
            data = source.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            raise PictureError(f"{name} cannot be read: {error}") from error
        if not isinstance(data, bytes):
            raise PictureError(f"{name} is open as text: open it as 'rb'")
    if len(data) > MAX_FILE_BYTES:
        raise PictureError(f"{name} has more than {MAX_FILE_BYTES >> 20} MiB")
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
        # Opening a pipe would block until a process writes into it.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise PictureError(f"there is no file {path}") from error
    except ValueError as error:
        raise PictureError(f"{str(path)!r} is no name of a file: {error}") from error
    except OSError as error:
        raise PictureError(f"{path} cannot be opened: {error.strerror}") from error
    found = os.fstat(handle)
    problem = None
    if stat.S_ISDIR(found.st_mode):
        problem = "is a folder: give a picture file"
    elif not stat.S_ISREG(found.st_mode):
        problem = "is no regular file: give a picture file"
    elif found.st_size > MAX_FILE_BYTES:
        problem = f"has more than {MAX_FILE_BYTES >> 20} MiB"
    if problem:
        os.close(handle)
        raise PictureError(f"{path} {problem}")
    return os.fdopen(handle, "rb")


def _kind(data: bytes, name: str) -> tuple[str, ...]:
    """Return Pillow's names of the formats that the content may have.

    Raises:
        PictureError: the format is unknown, or it is a common format that we do not read.
    """
    heif = data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")
    if heif and b"avif" not in data[:64]:
        raise PictureError(f"{name} is a HEIC picture, which is not read: convert it to JPEG or PNG first")
    if data.startswith((b"%!PS", b"%PDF", b"\xc5\xd0\xd3\xc6")):
        raise PictureError(f"{name} is a PostScript or PDF document, not a picture: convert it to PNG first")
    return _formats(data, name)


def _formats(data: bytes, name: str) -> tuple[str, ...]:
    # A TGA file has no signature, so almost any content could be one.
    tga = name.lower().endswith((".tga", ".icb", ".vda", ".vst")) or _TGA_END in data[-64:]
    return tuple(kind for kind in _known_formats() if tga or kind != "TGA")


@functools.cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def _decoded(
    data: bytes, name: str, kinds: tuple[str, ...], check_size: Callable[[int, int, str], None]
) -> Image.Image:
    try:
        return _load(data, name, kinds, check_size)
    except PictureError:
        if not data.startswith(_JPEG) or _is_animation(data):
            raise
        image = _without_end(data, name, kinds, check_size)
        if image is None:
            raise
        return image


def _load(data: bytes, name: str, kinds: tuple[str, ...], check_size: Callable[[int, int, str], None]) -> Image.Image:
    try:
        with quietly():
            image = Image.open(io.BytesIO(data), formats=kinds)
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name} is not a picture that can be read (PNG, JPEG, GIF, WebP, AVIF, JPEG 2000, BMP, TIFF, ...)"
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has more than {MAX_PIXELS // 10**6} million pixels: scale it down first") from error
    except Exception as error:  # Pillow's parsers can raise any exception for a broken header
        raise PictureError(f"{name} cannot be opened: {error}") from error
    check_size(*image.size, name)  # only the header has been read; no pixels are decoded yet
    try:
        image.load()
    except Exception as error:  # truncated data surfaces as OSError, SyntaxError, ValueError, struct.error, ...
        raise PictureError(f"{name} cannot be decoded, it is truncated or damaged: {error}") from error
    return image


def _is_animation(data: bytes) -> bool:
    return b"MPF\0" in data[:65536]


def _without_end(
    data: bytes, name: str, kinds: tuple[str, ...], check_size: Callable[[int, int, str], None]
) -> Image.Image | None:
    """Decode a JPEG that lacks its end mark but hardly any pixels; None if it lacks more.

    Decodes it with different bytes added at the end. If all pixels are in the file, the added bytes do not change them.
    """
    data = data.rstrip(b"\xff")
    try:
        image, other = (
            _load(data + filling + b"\xff\xd9", name, kinds, check_size) for filling in (b"", b"\xa5\x3c" * 2048)
        )
    except PictureError:
        return None
    difference = np.asarray(image).astype(np.int16) - np.asarray(other)
    if np.count_nonzero(difference.reshape(image.height * image.width, -1).any(axis=1)) > _LOST_PIXELS:
        return None
    warn(name, "the end of the file is missing")
    return image


# PNG.


@dataclass
class _Chunks:
    """The chunks of a PNG that we read."""

    pixels: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Kind and content of the chunks that Pillow decodes pixels from."""
    orienting: list[tuple[bytes, bytes]] = field(default_factory=list)
    """EXIF and XMP."""
    colours: dict[bytes, bytes] = field(default_factory=dict)
    """cICP, iCCP, sRGB, gAMA, cHRM."""


def _open_png(data: bytes, name: str, check_size: Callable[[int, int, str], None]) -> OpenedPicture:
    chunks = _read_chunks(data, name)
    header = chunks.pixels[0][1] if chunks.pixels else b""
    if len(header) != 13 or chunks.pixels[0][0] != b"IHDR":
        raise PictureError(f"{name} cannot be opened: a PNG begins with the chunk IHDR")
    depth, colour = header[8], header[9]
    transparent = next((content for kind, content in chunks.pixels if kind == b"tRNS"), b"")
    keys = 3 if colour == 2 else 1
    key = struct.unpack(f">{keys}H", transparent[: 2 * keys]) if len(transparent) >= 2 * keys else None
    if colour == 3 or key is None:
        key = None
    if key and colour == 0 and depth in (2, 4):
        # Pillow widens the pixels to eight bits, but not the value of the transparent pixels.
        widened = struct.pack(">H", key[0] * 255 // (2**depth - 1))
        chunks.pixels = [(kind, widened if kind == b"tRNS" else content) for kind, content in chunks.pixels]
    if key and depth == 16:
        chunks.pixels = [(kind, content) for kind, content in chunks.pixels if kind != b"tRNS"]
    else:
        key = None
    space = _png_space(chunks.colours, name)
    try:
        image = _load(_png(chunks.pixels, chunks.orienting), name, ("PNG",), check_size)
    except PictureError:
        if not chunks.orienting:
            raise
        image = _load(_png(chunks.pixels, []), name, ("PNG",), check_size)
        warn(name, "its EXIF data is damaged")
    low_bytes = None
    if key and colour == 2:
        low_bytes = _low_bytes(_png(chunks.pixels, []))
    return OpenedPicture(image, space, transparent=key, low_bytes=low_bytes)


def _read_chunks(data: bytes, name: str) -> _Chunks:
    """Read a PNG's chunks. Skips the content of text chunks."""
    found = _Chunks()
    offset, count = len(_PNG), 0
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        begin, offset = offset + 8, offset + 12 + length
        count += 1
        if count > _MAX_CHUNKS:
            raise PictureError(f"{name} has more than {_MAX_CHUNKS:,} chunks")
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"tRNS"):
            content = data[begin : begin + length]
            if len(content) == length and not _sound(data, begin, length):
                raise PictureError(f"{name} cannot be decoded, it is damaged: wrong checksum of {kind.decode()}")
            found.pixels.append((kind, content))
        elif kind == b"IEND":
            break
        elif kind in (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"):
            if _sound(data, begin, length):
                found.colours.setdefault(kind, data[begin : begin + length])
            else:
                warn(name, f"its chunk {kind.decode()} is damaged and was not applied")
        elif kind == b"eXIf" or (kind in (b"tEXt", b"zTXt", b"iTXt") and data.startswith(_ORIENTING, begin)):
            content = data[begin : begin + length]
            if length <= _MAX_METADATA and _sound(data, begin, length) and _unfolds(kind, content):
                found.orienting.append((kind, content))
    return found


def _sound(data: bytes, begin: int, length: int) -> bool:
    """Whether a chunk's checksum is right."""
    end = begin + length
    return data[end : end + 4] == struct.pack(">I", zlib.crc32(memoryview(data)[begin - 4 : end]))


def _unfolds(kind: bytes, content: bytes) -> bool:
    """Whether a compressed text is small after decompression."""
    if kind == b"eXIf" or kind == b"tEXt":
        return True
    _, _, packed = content.partition(b"\0")
    if kind == b"iTXt":
        return packed[:1] == b"\0"
    return len(_inflated(packed[1:], _MAX_METADATA * 4) or b"x" * _MAX_METADATA * 4) < _MAX_METADATA * 4


def _inflated(packed: bytes, limit: int) -> bytes | None:
    """Decompress; None if the data is damaged or the result has `limit` bytes or more."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, limit)
    except zlib.error:
        return None
    return content if len(content) < limit else None


def _png_space(colours: dict[bytes, bytes], name: str) -> bytes | None:
    """Return the ICC profile of a PNG's colours; None: sRGB."""
    space: ColourSpace | None = None
    if len(content := colours.get(b"cICP", b"")) == 4:
        space = from_code_points(content[0], content[1], name)
    elif b"iCCP" in colours:
        profile = _inflated(colours[b"iCCP"].partition(b"\0")[2][1:], _MAX_PROFILE_BYTES)
        if profile is None:
            warn(name, "its colour profile is damaged or too large and was not applied")
        return profile
    elif b"sRGB" not in colours:
        gamma, light = colours.get(b"gAMA", b""), colours.get(b"cHRM", b"")
        values = [value / 100_000 for value in struct.unpack(">8I", light)] if len(light) == 32 else None
        space = from_gamma(
            struct.unpack(">I", gamma)[0] / 100_000 if len(gamma) == 4 else None,
            (*values,) if values else None,
        )
    return None if space is None else space.profile()


def _png(pixels: list[tuple[bytes, bytes]], others: list[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG with these chunks."""
    out = io.BytesIO()
    out.write(_PNG)
    for kind, content in (*pixels[:1], *others, *pixels[1:], (b"IEND", b"")):
        out.write(struct.pack(">I", len(content)) + kind)
        out.write(content)
        out.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
    return out.getvalue()


def _low_bytes(data: bytes) -> Image.Image:
    """Decode the lower bytes of an RGB PNG of 16 bits."""
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    # With the byte order swapped, the "upper" bytes are the lower ones.
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return image


# Boxes of JPEG 2000 and AVIF. Pillow does not report the colours of these formats.


def _boxed_profile(data: bytes, kind: str | None) -> bytes | None:
    """Return the ICC profile in a JPEG 2000's box `colr`."""
    if kind != "JPEG2000":
        return None
    place = data.find(b"colr\x02", 0, 65536)
    if place < 4:
        return None
    (length,) = struct.unpack_from(">I", data, place - 4)
    return data[place + 7 : place - 4 + length] or None


def _code_points(data: bytes) -> tuple[int, int] | None:
    """Return the code points of primaries and transfer in an AVIF's box `colr`."""
    place = data.find(b"colrnclx", 0, 65536)
    if place < 0 or place + 12 > len(data):
        return None
    primaries, transfer = struct.unpack_from(">HH", data, place + 8)
    return primaries, transfer


# TIFF.


def _counting_from_black(data: bytes) -> tuple[bytes, bool]:
    """Make 0 mean black in a deep grey TIFF. Returns whether 0 meant white, which Pillow does not report."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return data, False
    (begin,) = struct.unpack_from(order + "I", data, 4)
    if begin + 2 > len(data):
        return data, False
    (count,) = struct.unpack_from(order + "H", data, begin)
    tags: dict[int, tuple[int, int]] = {}
    for place in range(begin + 2, min(begin + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", data, place)
        if kind == _SHORT:
            tags.setdefault(tag, (place + 8, value))
    place, photometric = tags.get(_PHOTOMETRIC, (0, 1))
    if photometric != 0 or tags.get(_BITS, (0, 1))[1] <= 8:
        return data, False
    return data[:place] + struct.pack(order + "H", 1) + data[place + 2 :], True
