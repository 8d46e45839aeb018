"""Write frames as a strip (.png), a looping animation (.gif), a video (.mp4), or a folder of pictures.

Every output is written all or nothing.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from homomorph_client.errors import OutputError
from homomorph_client.files import replacing
from homomorph_client.version import install_hint

FRAMES_PER_S = 12
"""Frame rate of animations and videos."""


def check_output(path: Path) -> None:
    """Check that frames can be written to a path, before they are computed.

    Raises:
        OutputError: the suffix is not .png, .gif or .mp4, the path holds other files or cannot be written to, or PyAV
            is needed and missing.
    """
    writer = _writer(path)
    if writer is _write_mp4 and importlib.util.find_spec("av") is None:
        raise OutputError(f"{path}: to write .mp4, {install_hint('ui')}, or write a .gif")
    if writer is _write_folder and path.exists():
        _check_replaceable(path)
    check_writable(path)


def check_writable(path: Path) -> None:
    """Check that a file, and its parent folders, can be created.

    Raises:
        OutputError: a parent exists and is no folder, or the permission is missing.
    """
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"{path} cannot be written: {parent} is not a folder")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{path} cannot be written: no permission to write in {parent}")


def write_output(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    """Write frames in the format of the path's suffix. Parent folders are created; an older output is replaced.

    Args:
        path: .png: all frames side by side; .gif: a loop forwards and backwards; .mp4: a video; no suffix, or an
            existing folder: frame-000.png, frame-001.png, ...
        frames: uint8 [S, H, W, 3], RGB, values in [0, 255].

    Raises:
        OutputError: as `check_output`, or writing failed.
    """
    check_output(path)
    with replacing(path) as partial:
        _writer(path)(partial, frames)


def _writer(path: Path) -> Callable[[Path, npt.NDArray[np.uint8]], None]:
    if path.is_dir() or not path.suffix:
        return _write_folder
    try:
        return {".png": _write_strip, ".gif": _write_gif, ".mp4": _write_mp4}[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path}: {path.suffix} cannot be written: give .png, .gif, .mp4 or a folder") from None


def _check_replaceable(folder: Path) -> None:
    """Check that a folder holds only frames of an earlier morph, so that no other files are lost."""
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file without a suffix: give .png, .gif, .mp4 or a folder")
    for file in folder.iterdir():
        if not file.match("frame-[0-9]*.png"):
            raise OutputError(f"the folder {folder} holds {file.name}: give a new folder, or one with frames only")


def _write_strip(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(path, "PNG")


def _write_gif(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    there_and_back = [Image.fromarray(frame) for frame in (*frames, *frames[-2:0:-1])]
    there_and_back[0].save(
        path, "GIF", save_all=True, append_images=there_and_back[1:], duration=1000 // FRAMES_PER_S, loop=0
    )


def _write_mp4(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    import av

    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise OutputError(f"an .mp4 needs an even height and width, not {width}x{height}")
    with av.open(path, "w", format="mp4") as container:
        # 4:2:0 is the only pixel format that every player supports.
        stream = container.add_stream("libx264", rate=FRAMES_PER_S, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_folder(path: Path, frames: npt.NDArray[np.uint8]) -> None:
    path.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"frame-{index:03d}.png")
