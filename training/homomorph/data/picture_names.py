"""Lists the files of a folder, and finds those that the names in a table of labels mean."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from homomorph.errors import DataError
from homomorph_client.picture_files import is_picture

_JUNK = frozenset(("thumbs.db", "desktop.ini", "icon\r", "ehthumbs.db"))
_JUNK_FOLDERS = frozenset(("__macosx", "@eadir"))


class PictureNames:
    """The files below a folder by their names, relative to it."""

    def __init__(self, folder: Path, *, others: frozenset[str] = frozenset()) -> None:
        """List a folder and all folders in it. What Macs and Windows leave beside pictures is left out.

        Args:
            folder: holds pictures.
            others: names of files to leave out.

        Raises:
            DataError: the folder cannot be read.
        """
        self.folder = folder
        self.files: list[str] = []
        """Relative names in order."""
        self.not_text: list[str] = []
        """Names that are not UTF-8, with escapes in place of the other bytes."""
        self.hidden = 0
        """Files that were left out because of their names: those with a dot in front, `Thumbs.db` and the like."""

        def refuse(error: OSError) -> None:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

        for place, folders, names in os.walk(folder, onerror=refuse, followlinks=False):
            folders[:] = sorted(name for name in folders if name[0] != "." and name.lower() not in _JUNK_FOLDERS)
            below = os.path.relpath(place, folder)
            for name in sorted(names):
                if name[0] == "." or name.lower() in _JUNK:
                    self.hidden += 1
                    continue
                relative = name if below == "." else f"{below}/{name}"
                if relative in others:
                    continue
                try:
                    relative.encode()
                except UnicodeEncodeError:
                    self.not_text.append(os.fsencode(relative).decode("ascii", errors="backslashreplace"))
                    continue
                self.files.append(relative)
        self._exact = frozenset(self.files)
        self._by_last_part: dict[str, dict[str, list[str]]] = {}

    def pictures(self) -> Iterator[str]:
        """Yield the names of the files whose content is a picture's."""
        return (name for name in self.files if is_picture(self.folder / name))

    def find(self, name: str) -> str | None:
        """Return the file that a table's name means; None if there is none.

        A name that is not there as it is written is sought by its last part, then also without regard to how accents
        are composed, to small and capital letters, to blanks at its ends, and to the ending.

        Raises:
            DataError: the name leads out of the folder, or several files fit it.
        """
        name = name.replace("\\", "/")
        if name.startswith("/"):
            # The folder may have been given relative to the working folder, or be a link.
            places = (self.folder, self.folder.absolute(), self.folder.resolve())
            place = next((place for place in places if Path(name).is_relative_to(place)), None)
            if place is None:
                raise DataError(f"{name!r} is an absolute path: names are relative to {self.folder}")
            name = Path(name).relative_to(place).as_posix()
        if ".." in PurePosixPath(name).parts:
            raise DataError(f"{name!r} leads out of {self.folder}")
        if name in self._exact:
            return name
        for kind, (of_file, of_name) in _SPELLINGS.items():
            if kind not in self._by_last_part:
                self._by_last_part[kind] = _group(self.files, of_file)
            wanted = of_name(name)
            found = [
                file
                for file in self._by_last_part[kind].get(_last(wanted), [])
                if _ends_with(of_file(file), wanted) or _ends_with(wanted, of_file(file))
            ]
            if len(found) == 1:
                return found[0]
            if found:
                raise DataError(f"{name!r} could be {found[0]} or {found[1]}: write which folder it is in")
        return None

    def near(self, name: str) -> str | None:
        """Return the file whose name is most like a name that is not there; None if none is like it."""
        candidates = self.files[:20_000]
        return next(iter(difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)), None)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _ends_with(name: str, end: str) -> bool:
    """Whether a path ends with another, folder by folder."""
    return name == end or name.endswith("/" + end)


def _plain(name: str) -> str:
    parts = unicodedata.normalize("NFC", name.removeprefix("./")).split("/")
    return "/".join(part.strip() for part in parts)


def _small(name: str) -> str:
    return _plain(name).casefold()


def _without_ending(name: str) -> str:
    return PurePosixPath(_small(name)).with_suffix("").as_posix() if name else ""


_SPELLINGS: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "plain": (_plain, _plain),
    "small letters": (_small, _small),
    "name without an ending": (_without_ending, _small),  # before the next: the name may have a dot, as in `face.12`
    "another ending": (_without_ending, _without_ending),
}
"""What a file's name and a table's name must have in common to mean the same file, from strict to lenient."""


def _group(files: Iterable[str], simplified: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for file in files:
        found[_last(simplified(file))].append(file)
    return dict(found)
