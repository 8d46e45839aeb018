"""Warnings about pictures: ours are logged, Pillow's are suppressed."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from threading import Lock

_WARNINGS = Lock()
"""Keeps threads from restoring each other's filters of warnings."""

_log = logging.getLogger(__name__)
_warned: set[str] = set()


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
        _log.warning("%s: %s (later pictures with this problem are not reported)", name, problem)
