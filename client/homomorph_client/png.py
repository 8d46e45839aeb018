"""Reads a PNG's chunks and writes a PNG that has only those that matter (PNG specification, third edition)."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field

from PIL import Image

from homomorph_client.colours import from_code_points, from_gamma
from homomorph_client.errors import PictureError
from homomorph_client.picture_warnings import warn

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE_BYTES = 16 * 2**20
"""Largest ICC profile that is applied."""
_MAX_CHUNKS = 1_000_000
_MAX_METADATA = 2**16
"""Largest EXIF or XMP chunk that we read the orientation from."""
_ORIENTING = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
"""First bytes of the text chunks that can hold the orientation."""


@dataclass
class Chunks:
    """The chunks of a PNG that we read."""

    pixels: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Kind and content of the chunks that Pillow decodes pixels from."""
    orienting: list[tuple[bytes, bytes]] = field(default_factory=list)
    """EXIF and XMP."""
    colours: dict[bytes, bytes] = field(default_factory=dict)
    """cICP, iCCP, sRGB, gAMA, cHRM."""


def read_chunks(data: bytes, name: str) -> Chunks:
    """Read a PNG's chunks. Skips the content of text chunks."""
    found = Chunks()
    offset, count = len(SIGNATURE), 0
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        begin, offset = offset + 8, offset + 12 + length
        count += 1
        if count > _MAX_CHUNKS:
            raise PictureError(f"{name} has more than {_MAX_CHUNKS:,} chunks")
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"tRNS"):
            content = data[begin : begin + length]
            if len(content) == length and not _has_right_checksum(data, begin, length):
                raise PictureError(f"{name} cannot be decoded, it is damaged: wrong checksum of {kind.decode()}")
            found.pixels.append((kind, content))
        elif kind == b"IEND":
            break
        elif kind in (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"):
            if _has_right_checksum(data, begin, length):
                found.colours.setdefault(kind, data[begin : begin + length])
            else:
                warn(name, f"its chunk {kind.decode()} is damaged and was not applied")
        elif kind == b"eXIf" or (kind in (b"tEXt", b"zTXt", b"iTXt") and data.startswith(_ORIENTING, begin)):
            content = data[begin : begin + length]
            if (
                length <= _MAX_METADATA
                and _has_right_checksum(data, begin, length)
                and _is_small_unpacked(kind, content)
            ):
                found.orienting.append((kind, content))
    return found


def _has_right_checksum(data: bytes, begin: int, length: int) -> bool:
    """Whether a chunk's checksum is right."""
    end = begin + length
    return data[end : end + 4] == struct.pack(">I", zlib.crc32(memoryview(data)[begin - 4 : end]))


def _is_small_unpacked(kind: bytes, content: bytes) -> bool:
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


def colour_profile(colours: dict[bytes, bytes], name: str) -> bytes | None:
    """Return the ICC profile of a PNG's colours; None: sRGB."""
    if len(content := colours.get(b"cICP", b"")) == 4:
        return from_code_points(content[0], content[1], name)
    if b"iCCP" in colours:
        profile = _inflated(colours[b"iCCP"].partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
        if profile is None:
            warn(name, "its colour profile is damaged or too large and was not applied")
        return profile
    if b"sRGB" in colours:
        return None
    gamma, light = colours.get(b"gAMA", b""), colours.get(b"cHRM", b"")
    values = [value / 100_000 for value in struct.unpack(">8I", light)] if len(light) == 32 else None
    return from_gamma(
        struct.unpack(">I", gamma)[0] / 100_000 if len(gamma) == 4 else None, (*values,) if values else None
    )


def assemble(pixels: list[tuple[bytes, bytes]], others: list[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG with these chunks."""
    out = io.BytesIO()
    out.write(SIGNATURE)
    for kind, content in (*pixels[:1], *others, *pixels[1:], (b"IEND", b"")):
        out.write(struct.pack(">I", len(content)) + kind)
        out.write(content)
        out.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
    return out.getvalue()


def low_bytes(data: bytes) -> Image.Image:
    """Decode the lower bytes of an RGB PNG of 16 bits."""
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    # With the byte order swapped, the "upper" bytes are the lower ones.
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    image.load()
    return image
