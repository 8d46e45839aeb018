"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Names of settings in glibc's malloc.h."""
LARGEST_MMAP_THRESHOLD = 32 << 20
"""Bytes; glibc takes no larger value."""
LARGEST_VALUE = 2**31 - 1


def keep_freed_memory(*, without_limit: bool = False) -> None:
    """Have this process keep the memory that it frees: blocks of up to 32 MiB, and 256 MiB in all at a heap's end.

    By default large blocks go back to the system after each layer of a network and come again as zeroed pages, with a
    page fault for every 4 KiB. That took a twentieth of the time of a morph. Does nothing where libc is not glibc.

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
