"""Every form of PNG and TIFF against a second decoder (pypng, tifffile), formats, bounds, and harmless damage."""

from __future__ import annotations

import io
import itertools
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import png
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from homomorph_client.errors import PictureError
from homomorph_client.picture_files import is_picture
from homomorph_client.pictures import load_picture

SIDE = 16
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(kind: bytes, content: bytes, *, sound: bool = True) -> bytes:
    checksum = zlib.crc32(kind + content) ^ (0 if sound else 1)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunks(file: bytes, chunks: bytes) -> bytes:
    """Put chunks behind a PNG's header."""
    return file[:33] + chunks + file[33:]


def png_file(values: npt.NDArray[np.uint16], depth: int, colour: int, *, interlaced: bool, key: bool) -> bytes:
    """Write a PNG; `key` makes the value of its first pixel transparent."""
    options: dict[str, object] = {"greyscale": colour in (GREY, GREY_ALPHA), "alpha": colour in (GREY_ALPHA, RGBA)}
    first = values.reshape(SIDE * SIDE, -1)[0].tolist()
    if colour == PALETTE:
        options = {"palette": [(40 * i % 256, 255 - 9 * i % 256, i, 17 * (i % 16)) for i in range(2**depth)]}
    elif key:
        options["transparent"] = first[0] if colour == GREY else tuple(first)
    writer = png.Writer(SIDE, SIDE, bitdepth=depth, interlace=interlaced, **options)
    out = io.BytesIO()
    writer.write(out, values.reshape(SIDE, -1).tolist())
    return out.getvalue()


def on_white(rgba: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values [H, W, 4] in [0, 1] -> grey levels [H, W, 3]."""
    alpha = rgba[..., 3:]
    return (rgba[..., :3] * alpha + 1 - alpha) * 255


def pypng_reads(file: bytes) -> npt.NDArray[np.float64]:
    width, height, rows, info = png.Reader(bytes=file).asRGBA()
    values = np.array([list(row) for row in rows], np.float64).reshape(height, width, 4)
    return on_white(values / (2 ** info["bitdepth"] - 1))


FORMS = [
    (depth, colour, interlaced, key)
    for interlaced, key in itertools.product([False, True], repeat=2)
    for colour, depths in {
        GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)
    }.items()
    for depth in depths
    if not key or colour in (GREY, RGB)
]  # fmt: skip


@pytest.mark.parametrize(("depth", "colour", "interlaced", "key"), FORMS)
def test_every_form_of_png_is_what_pypng_reads(
    tmp_path: Path, depth: int, colour: int, interlaced: bool, key: bool
) -> None:
    channels = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}[colour]
    values = np.random.default_rng(depth).integers(0, 2**depth, (SIDE, SIDE, channels), dtype=np.uint16)
    if depth == 16 and key:
        values[0, 1] = values[0, 0] ^ 1  # differs in the lower byte alone
    file = png_file(values, depth, colour, interlaced=interlaced, key=key)
    (tmp_path / "a.png").write_bytes(file)
    difference = np.abs(load_picture(tmp_path / "a.png") - pypng_reads(file))
    # Pillow takes the upper one of two bytes, of the alpha too.
    assert difference.max() <= (2 if depth == 16 else 1.01)


@pytest.mark.parametrize(
    ("dtype", "photometric", "scale"),
    [
        (np.uint8, "minisblack", 255),
        (np.uint8, "miniswhite", 255),
        (np.uint16, "minisblack", 65535),
        (np.uint16, "miniswhite", 65535),
        (np.float32, "minisblack", 1),
        (np.float32, "miniswhite", 1),
        (np.bool_, "minisblack", 1),
        (np.bool_, "miniswhite", 1),
        (np.uint8, "rgb", 255),
        (np.uint16, "rgb", 65535),
    ],
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_every_kind_of_tiff_is_what_tifffile_reads(
    tmp_path: Path, dtype: type, photometric: str, scale: int, byteorder: str
) -> None:
    shape = (SIDE, SIDE, 3) if photometric == "rgb" else (SIDE, SIDE)
    values = (np.random.default_rng(0).random(shape) * scale).round(0 if scale > 1 else 3).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric, byteorder=byteorder)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        expected = file.asarray().astype(np.float64) / scale
    expected = 1 - expected if photometric == "miniswhite" else expected
    expected = expected if photometric == "rgb" else expected[..., None].repeat(3, 2)
    difference = np.abs(load_picture(tmp_path / "a.tif") - expected * 255)
    assert difference.max() <= 1.01


def test_tiff_of_12_bits_has_its_whole_range(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, SIDE * SIDE).astype(np.uint16).reshape(SIDE, SIDE)
    pairs = values.reshape(-1, 2).astype(np.uint32)
    packed = (pairs[:, 0] << 12 | pairs[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()
    tags = [(256, 3, SIDE), (257, 3, SIDE), (258, 3, 12), (259, 3, 1), (262, 3, 1), (277, 3, 1), (278, 3, SIDE)]
    tags = [*tags[:5], (273, 4, 200), *tags[5:], (279, 4, len(packed))]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags) + b"\0\0\0\0"
    (tmp_path / "a.tif").write_bytes(head.ljust(200, b"\0") + packed)
    assert np.abs(load_picture(tmp_path / "a.tif")[..., 0] - values / 4095 * 255).max() <= 1


@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
def test_alpha_of_tiff_lies_on_white(tmp_path: Path, alpha: str) -> None:
    values = np.full((SIDE, SIDE, 4), 100, np.uint8)
    values[..., 3] = 128
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=[alpha])
    expected = 100 * 128 / 255 + 127 if alpha == "unassalpha" else 100 + 127
    assert np.abs(load_picture(tmp_path / "a.tif") - expected).max() <= 1.5


def test_lab_tiff_is_what_its_colours_are(tmp_path: Path) -> None:
    Image.new("LAB", (SIDE, SIDE), (137, 128, 128)).save(tmp_path / "a.tif")
    assert np.abs(load_picture(tmp_path / "a.tif").astype(int) - 128).max() <= 2  # L* = 53.7


@pytest.mark.parametrize(
    "kind",
    ["png", "jpg", "jfif", "jpe", "webp", "avif", "jp2", "gif", "bmp", "tif", "ppm", "ico", "tga", "mpo", "apng"],
)
def test_formats_are_known_by_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    forms = {"jfif": "JPEG", "jpe": "JPEG", "jp2": "JPEG2000", "tif": "TIFF", "jpg": "JPEG", "apng": "PNG"}
    Image.new("RGB", (SIDE, SIDE), (200, 30, 30)).save(path, forms.get(kind, kind.upper()))
    assert is_picture(path)
    assert np.abs(load_picture(path).astype(int) - (200, 30, 30)).max() <= 8
    if kind != "tga":  # which has no mark at its beginning
        path = path.rename(tmp_path / "without-an-ending")
    assert is_picture(path)
    assert np.abs(load_picture(path).astype(int) - (200, 30, 30)).max() <= 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n", "PostScript or PDF"),
        (b"%PDF-1.4\n", "PostScript or PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"<html><body>404</body></html>", "not a picture"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer, not a picture"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert not is_picture(tmp_path / "a.png")
    with pytest.raises(PictureError, match=message):
        load_picture(tmp_path / "a.png")


def test_no_other_program_is_started_for_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    eps = b"\n%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n"
    for content in (eps[1:], eps):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(PictureError):
            load_picture(tmp_path / "a.jpg")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")])
def test_pipes_and_devices_are_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.png")
    assert not is_picture(tmp_path / "a.png")
    with pytest.raises(PictureError, match="no regular file"):
        load_picture(tmp_path / "a.png")


def header_only(side: int) -> bytes:
    """A PNG without pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def icon(side: int) -> bytes:
    """An icon of a bitmap, without pixels."""
    return struct.pack("<IiiHH24x", 40, side, 2 * side, 1, 32)


@pytest.mark.parametrize("picture", [header_only(10_000), icon(10_000)], ids=["png", "bitmap"])
def test_icons_that_hold_a_large_picture_are_not_decoded(picture: bytes) -> None:
    """Pillow decodes them when it opens the file, before their size can be asked for."""
    first = header_only(16)
    where = 6 + 2 * 16
    entries = [(first, where), (picture, where + len(first))]
    table = b"".join(struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(data), at) for data, at in entries)
    with pytest.raises(PictureError, match=r"the picture is 10000x\d+: more than 64 million pixels"):
        load_picture(struct.pack("<HHH", 0, 1, 2) + table + first + picture)
    with pytest.raises(PictureError, match="the picture holds 257 icons: at most 256 are read"):
        load_picture(struct.pack("<HHH", 0, 1, 257) + bytes(257 * 16))


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])  # what Pillow reads
def test_tiff_whose_tiles_are_larger_than_it_is_not_decoded(order: str, big: bool, twice: bool) -> None:
    """libtiff would decode a whole tile of 16384x16384. The first of two tags with one number counts for it."""
    out = io.BytesIO()
    pixels = np.zeros((64, 64, 3), np.uint8)
    tifffile.imwrite(out, pixels, tile=(16, 16), byteorder=order, bigtiff=big, photometric="rgb", metadata=None)
    file = bytearray(out.getvalue())
    assert load_picture(bytes(file)).shape == (64, 64, 3)
    out.seek(0)
    with tifffile.TiffFile(out) as tiff:
        tags = {tag.name: tag.offset for tag in tiff.pages[0].tags.values()}
    value = 12 if big else 8
    for name in ("TileWidth", "TileLength"):
        struct.pack_into(f"{order}HH", file, tags[name] + 2, 4, 0)  # its type: 32 bits
        struct.pack_into(f"{order}Q" if big else f"{order}I", file, tags[name] + 4, 1)
        struct.pack_into(f"{order}I", file, tags[name] + value, 16384)
    if twice:  # and once more, as it should be
        small = bytearray(file[tags["TileWidth"] : tags["TileWidth"] + (20 if big else 12)])
        struct.pack_into(f"{order}I", small, value, 16)
        file[tags["Software"] : tags["Software"] + len(small)] = small
    with pytest.raises(PictureError, match="a tile of the picture is 16384x16384: more than 64 million pixels"):
        load_picture(bytes(file))


def test_a_million_text_chunks_take_bounded_time(tmp_path: Path) -> None:
    file = _plain_png()
    (tmp_path / "a.png").write_bytes(with_chunks(file, chunk(b"tEXt", b"a\0b") * 900_000))
    begin = time.process_time()
    assert (load_picture(tmp_path / "a.png") == (200, 30, 30)).all()
    (tmp_path / "a.png").write_bytes(with_chunks(file, chunk(b"tEXt", b"a\0b") * 1_100_000))
    with pytest.raises(PictureError, match="more than 1,000,000 chunks"):
        load_picture(tmp_path / "a.png")
    assert time.process_time() - begin < 30


def _plain_png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    "chunks",
    [
        chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2**21)),
        chunk(b"tEXt", b"a\0" + b"x" * 2**21),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 2**21)),
        chunk(b"tEXt", b"a\0b", sound=False),
        chunk(b"eXIf", b"MM\0*broken"),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"x" * 2**21)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation"),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 2**21)),
        chunk(b"iCCP", b"a\0\0broken"),
        chunk(b"gAMA", b"\0\0\0\1", sound=False),
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", b"\0" * 32),
        chunk(b"acTL", b"\0"),
        chunk(b"fcTL", b"\0" * 26),
    ],
    ids=lambda chunks: f"{chunks[4:8].decode()}-{len(chunks)}",
)
def test_good_pixels_with_bad_metadata_are_decoded(tmp_path: Path, chunks: bytes) -> None:
    (tmp_path / "a.png").write_bytes(with_chunks(_plain_png(), chunks))
    assert (load_picture(tmp_path / "a.png") == (200, 30, 30)).all()


@pytest.mark.parametrize("kind", [b"IDAT", b"IHDR"])
def test_damaged_pixels_are_not(tmp_path: Path, kind: bytes) -> None:
    file = bytearray(_plain_png())
    file[file.index(kind) + 4 + 9] ^= 1
    (tmp_path / "a.png").write_bytes(file)
    with pytest.raises(PictureError, match="damaged"):
        load_picture(tmp_path / "a.png")


@pytest.mark.parametrize("where", ["eXIf", "text", "xmp"])
def test_orientation_of_a_png_is_applied_wherever_it_stands(tmp_path: Path, where: str) -> None:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    info = PngImagePlugin.PngInfo()
    if where == "text":
        raw = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        info.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
    if where == "xmp":
        info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    options = {"exif": exif} if where == "eXIf" else {}
    Image.fromarray(picture).save(tmp_path / "a.png", pnginfo=info, **options)
    assert (load_picture(tmp_path / "a.png") == picture[::-1]).all()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("lost", "read"), [(1, True), (2, True), (400, False), (2000, False)])
def test_a_jpeg_may_lack_its_end_but_no_pixels(tmp_path: Path, lost: int, read: bool, progressive: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", progressive=progressive)
    whole = load_picture(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:-lost])
    if read:
        assert np.array_equal(load_picture(tmp_path / "a.jpg"), whole)
    else:
        with pytest.raises(PictureError, match="truncated"):
            load_picture(tmp_path / "a.jpg")


def test_damaged_exif_still_turns_the_picture(tmp_path: Path) -> None:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[:8] = 255
    # The orientation, and the resolution as text instead of a fraction.
    tags = struct.pack(">HHHIHxxHHI4sI", 2, 0x0112, 3, 1, 3, 282, 2, 4, b"abc\0", 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + tags
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert np.abs(load_picture(tmp_path / "a.jpg").astype(int) - picture[::-1]).max() <= 8


def test_bytes_and_file_objects_are_pictures(tmp_path: Path) -> None:
    data = _plain_png()
    (tmp_path / "a.png").write_bytes(data)
    for picture in (data, io.BytesIO(data), (tmp_path / "a.png").open("rb")):
        assert (load_picture(picture) == (200, 30, 30)).all()
    with pytest.raises(PictureError, match="open it as 'rb'"):
        load_picture(io.StringIO("a"))  # type: ignore[arg-type]
