"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Names of settings in glibc's malloc.h."""
LARGEST_MMAP_THRESHOLD = 32 << 20
"""In bytes; glibc accepts no larger value."""
LARGEST_VALUE = 2**31 - 1


def keep_freed_memory(*, without_limit: bool = False) -> None:
    """Let the allocator keep freed memory for reuse: blocks of up to 32 MiB, and up to 256 MiB at the end of a heap.

    By default, large blocks are returned to the system after each layer of a network and allocated again as zeroed
    pages, with a page fault for every 4 KiB. This took a twentieth of a morph's time. Does nothing without glibc.

    Args:
        without_limit: keep blocks of any size and any amount, for measurements.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    if without_limit:
        mallopt(M_MMAP_MAX, 0)
    else:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, LARGEST_VALUE if without_limit else 256 << 20)
