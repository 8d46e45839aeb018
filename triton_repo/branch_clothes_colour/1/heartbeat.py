"""Touch a file every second, to show the server's keeper that a model's process still runs Python."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

INTERVAL_S = 1.0


def start_heartbeat() -> None:
    """Start a thread that touches a file in the folder `HOMOMORPH_HEARTBEATS`, named by the id of this process.

    The file is no longer touched if the process is stopped, or if one thread holds Python's lock all the time. Without
    a keeper there is no such folder, and no thread is started.
    """
    folder = os.environ.get("HOMOMORPH_HEARTBEATS")
    if folder:
        threading.Thread(target=_beat, args=(Path(folder) / str(os.getpid()),), daemon=True).start()


def _beat(file: Path) -> None:
    while file.parent.is_dir():
        file.touch()
        time.sleep(INTERVAL_S)
