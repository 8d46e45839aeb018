"""The key that a server wants from clients who share memory with it, and the file in which it leaves the key.

A server that maps memory for everybody would let every client read what others have shared. So `homomorph serve`
restricts these calls to a random key, which lies in shared memory itself, readable for the server's user alone: who can
read it could read that user's memory anyway. A client of another user, or in a container that does not see the
server's /dev/shm, could not share memory in the first place.
"""

from __future__ import annotations

import os
from pathlib import Path

HEADER_PREFIX = "triton-grpc-protocol-"
"""How the names of Triton's gRPC headers that hold keys begin."""
SHARED_MEMORY_KEY = "homomorph-shared-memory"
"""Name of the key."""


def key_file(grpc_port: int) -> Path:
    """Return where a server of this user on that port leaves its key."""
    return Path("/dev/shm") / f"homomorph_key_{os.getuid()}_{grpc_port}"


def write_key(grpc_port: int, key: str) -> Path:
    """Leave a server's key for clients of the same user.

    Raises:
        OSError: another user's file has that name, or it cannot be written.
    """
    path = key_file(grpc_port)
    path.unlink(missing_ok=True)  # of a server that was killed
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    return path


def key_header(grpc_port: int) -> list[tuple[str, str]]:
    """Return the gRPC header with the key of the server on that port; none if it left no key for this user."""
    try:
        key = key_file(grpc_port).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return []
    if not key.isalnum():
        return []
    return [(f"{HEADER_PREFIX}{SHARED_MEMORY_KEY}", key)]
