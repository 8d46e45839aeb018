"""The key that clients need to share memory with a server, and the file in which the server stores it.

If every client could register memory, each could read what others have shared. So `homomorph serve` restricts these
calls to holders of a random key. The key is a file in shared memory that only the server's user can read; a process
that can read it could read that user's shared memory anyway. Clients of another user, or in a container without the
server's /dev/shm, cannot share memory with it in any case.
"""

from __future__ import annotations

import os
from pathlib import Path

HEADER_PREFIX = "triton-grpc-protocol-"
"""Prefix of the gRPC headers in which Triton expects keys."""
SHARED_MEMORY_KEY = "homomorph-shared-memory"
"""Name of the key."""


def key_file(grpc_port: int) -> Path:
    """Return the path of the key of this user's server on a port."""
    return Path("/dev/shm") / f"homomorph_key_{os.getuid()}_{grpc_port}"


def write_key(grpc_port: int, key: str) -> Path:
    """Write a server's key for clients of the same user; return its path.

    Raises:
        OSError: another user's file has this name, or the file cannot be written.
    """
    path = key_file(grpc_port)
    path.unlink(missing_ok=True)  # a server that was killed may have left its file
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return path


def key_header(grpc_port: int) -> list[tuple[str, str]]:
    """Return the gRPC header with the key of the server on a port; empty if this user has no key file for it."""
    try:
        key = key_file(grpc_port).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return []
    if not key.isalnum():
        return []
    return [(f"{HEADER_PREFIX}{SHARED_MEMORY_KEY}", key)]
