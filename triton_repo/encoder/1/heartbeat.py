"""Shows the server's keeper that a model's process still runs Python: a file that is touched every second."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

INTERVAL_S = 1.0


def start_heartbeat() -> None:
    """Touch the file named like this process in the folder `HOMOMORPH_HEARTBEATS`, in a thread, for as long as it runs.

    A process that is stopped, or in which one thread holds Python's lock for good, does not touch it. Without a keeper
    there is no such folder, and nothing is done.
    """
    folder = os.environ.get("HOMOMORPH_HEARTBEATS")
    if folder:
        threading.Thread(target=_beat, args=(Path(folder) / str(os.getpid()),), daemon=True).start()


def _beat(file: Path) -> None:
    while file.parent.is_dir():
        file.touch()
        time.sleep(INTERVAL_S)
