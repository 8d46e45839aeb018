"""Delays Ctrl-C and SIGTERM during training until the step is finished and its state is written."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interruption:
    """While entered, notes Ctrl-C and SIGTERM instead of raising: half a step is no state to go on from.

    Outside the main thread Python handles no signals, and nothing is noted.
    """

    def __init__(self) -> None:
        self.noted = False
        self._earlier: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A second Ctrl-C ends the training at once. A second SIGTERM does not, because `timeout` sends two by itself.
        if self.noted and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.noted = True
