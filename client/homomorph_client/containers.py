"""Reads from JPEG 2000, AVIF and TIFF files what Pillow does not report about their colours."""

from __future__ import annotations

import struct

_SHORT, _BITS, _PHOTOMETRIC = 3, 258, 262
"""TIFF: the type of 16-bit numbers, and the tags of the bits per sample and of the meaning of 0."""


def boxed_profile(data: bytes, kind: str | None) -> bytes | None:
    """Return the ICC profile in a JPEG 2000's box `colr`."""
    if kind != "JPEG2000":
        return None
    place = data.find(b"colr\x02", 0, 65536)
    if place < 4:
        return None
    (length,) = struct.unpack_from(">I", data, place - 4)
    return data[place + 7 : place - 4 + length] or None


def code_points(data: bytes) -> tuple[int, int] | None:
    """Return the code points of primaries and transfer in an AVIF's box `colr`."""
    place = data.find(b"colrnclx", 0, 65536)
    if place < 0 or place + 12 > len(data):
        return None
    primaries, transfer = struct.unpack_from(">HH", data, place + 8)
    return primaries, transfer


def counting_from_black(data: bytes) -> tuple[bytes, bool]:
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
