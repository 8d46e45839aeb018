"""Writes files and folders so that each appears whole or not at all, and names their content by checksums.

Homomorph writes every file through `replacing`: under a temporary name in the same folder, then flushed to the disk,
then renamed. A full disk, a lost permission or an interruption leaves the old content, or none.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import itertools
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from homomorph_client.errors import OutputError

_MANY_FILES = 64
"""From this number of files on, one flush of all file systems is faster than a flush of each file."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Flag of Linux's renameat2."""
_MARK = ".partial"
_count = itertools.count()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Let a block write a file or a folder, which is moved to `path` when the block ends.

    An older file or folder at `path` stays until then and is replaced in one step. Temporary files of killed processes
    are removed first.

    Args:
        path: the file or folder; its parent folders are made.

    Yields:
        A free path in the same folder, with the same suffix. The block writes its file or folder there. If it writes
        nothing, nothing changes.

    Raises:
        OutputError: writing failed, because the disk is full or a permission is missing.
    """
    with staging(path) as partial:
        yield partial
        if partial.exists():
            put(partial, path.absolute())


@contextlib.contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside a path, for a file or a folder that `put` moves there.

    Temporary files of killed processes are removed first. A file that the block leaves under the name is removed at
    its end.

    Args:
        path: the file or folder; its parent folders are made.

    Yields:
        A free path in the same folder, with the same suffix.

    Raises:
        OutputError: writing failed, because the disk is full or a permission is missing.
    """
    path = path.absolute()
    partial = path.with_name(f"{_prefix(path)}{os.getpid()}-{next(_count)}{_MARK}{path.suffix}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
            yield partial
    finally:
        remove(partial)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process or thread is in a block of the same folder.

    Some network file systems cannot lock a folder; there, the block runs at once.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8; it appears whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_bytes(text.encode())


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert the system's errors on writing a file into one line that names the file.

    Raises:
        OutputError: the disk is full, a permission is missing, or the like.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{path} cannot be written: the disk is full ({error.strerror})") from error
        if error.errno == errno.EBUSY:
            raise OutputError(f"{path} cannot be replaced, it is a mount point: give a folder in it") from error
        place, named = str(path.absolute()), str(error.filename)
        if error.filename is not None and not (place.startswith(named) or named.startswith(str(Path(place).parent))):
            raise  # the error is about another file, which the block reads
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def put(partial: Path, path: Path) -> None:
    """Flush a file or folder and rename it to `path` in one step, even if a folder with content is there already."""
    flush(partial)
    if path.is_dir() and not path.is_symlink() and any(path.iterdir()):
        exchange(partial, path)
        remove(partial)
    elif path.is_dir() and not path.is_symlink() and partial.is_file():
        path.rmdir()
        partial.replace(path)
    else:
        partial.replace(path)
    _flush_one(path.parent)


def exchange(one: Path, other: Path) -> None:
    """Exchange the names of two files or folders of one file system, in one step if the system supports it.

    Raises:
        OSError: renaming failed.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):  # network file systems do not support it
            raise OSError(number, os.strerror(number), str(other))
    aside = one.with_name(one.name + "-aside")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def flush(path: Path) -> None:
    """Flush a file, or a folder with everything in it, to the disk."""
    if not path.is_dir():
        return _flush_one(path)
    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    if len(files) > _MANY_FILES:
        return os.sync()
    for file in files:
        _flush_one(file)
    return _flush_one(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it. Does nothing if it does not exist or may not be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files for `path` that ended processes of this machine have left."""
    pattern = re.compile(rf"{re.escape(_prefix(path))}(\d+)-\d+{re.escape(_MARK)}.*", re.DOTALL)
    for found in list(path.parent.iterdir()):
        if (match := pattern.fullmatch(found.name)) and not _lives(int(match[1])):
            remove(found)


def _prefix(path: Path) -> str:
    # Other machines may share the folder, and their process numbers mean nothing here. The name is cut because file
    # systems take at most 255 bytes.
    name = path.name.encode(errors="surrogateescape")[:120].decode(errors="ignore")
    return f".{name}.{re.sub('[^A-Za-z0-9]', '', socket.gethostname())[:32]}-"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _flush_one(path: Path) -> None:
    if path.is_symlink():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """Return homomorph's folder in the user's cache, for files that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "homomorph"


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading, if it is a regular file. Opening a pipe would wait for a process that writes into it.

    Raises:
        OSError: it is a folder (IsADirectoryError), a pipe or a device, does not exist, or cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
