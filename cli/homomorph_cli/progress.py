"""Shows how far a command is: bars in a terminal, and a line now and then where there is none (nohup, CI)."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import rich.progress
from rich.console import Console, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from homomorph.progress import Progress, Report

_FIRST_PAUSE_S = 1.0
"""Pause between the first two lines of a stage. Each later pause is twice as long as the one before it."""
LONGEST_PAUSE_S = 30.0
"""Longest pause between two lines of a stage."""


@contextlib.contextmanager
def progress_display(console: Console | None = None) -> Iterator[Report]:
    """Show reported progress until the context ends.

    Nothing is shown before the first report, so a wrong argument gets its error line alone.

    Args:
        console: where to show it; stderr unless another is given, so that stdout has the results alone.

    Yields:
        The function to report to.
    """
    console = console or Console(stderr=True)
    if not console.is_interactive:
        yield _Lines(lambda line: console.print(line, soft_wrap=True, markup=False, highlight=False))
        return
    bars = _Bars(console)
    try:
        yield bars
    finally:
        bars.stop()


def announcing(line: str, report: Report) -> Report:
    """Return a `Report` that prints a line to stderr before it passes the first report on.

    So a command that fails before its work begins prints only its error.
    """
    printed = False

    def announced(progress: Progress) -> None:
        nonlocal printed
        if not printed:
            print(line, file=sys.stderr, flush=True)
            printed = True
        report(progress)

    return announced


class _Bars:
    """One row per stage with a known total; the stages without one share a row, which shows the latest."""

    def __init__(self, console: Console) -> None:
        self._rows = rich.progress.Progress(
            rich.progress.SpinnerColumn(finished_text=" "),
            rich.progress.TextColumn("{task.description:12}", markup=False),
            _Counted(rich.progress.BarColumn()),
            _Counted(rich.progress.MofNCompleteColumn()),
            rich.progress.TimeElapsedColumn(),
            _Counted(rich.progress.TimeRemainingColumn()),
            rich.progress.TextColumn("{task.fields[figures]}", style="dim", markup=False),
            console=console,
        )
        self._tasks: dict[str | None, rich.progress.TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        if not self._tasks:
            self._rows.start()
        key = None if progress.total is None else progress.stage
        if key not in self._tasks:
            self._tasks[key] = self._rows.add_task(progress.stage, total=progress.total, figures="")
        self._rows.update(
            self._tasks[key],
            description=progress.stage,
            completed=progress.done,
            total=progress.total,
            figures=_figures(progress),
        )

    def stop(self) -> None:
        if None in self._tasks:
            self._rows.remove_task(self._tasks[None])
        self._rows.stop()


class _Counted(rich.progress.ProgressColumn):
    """A column that is empty in rows without a total."""

    def __init__(self, column: rich.progress.ProgressColumn) -> None:
        super().__init__(table_column=column.get_table_column())
        self._column = column

    def render(self, task: rich.progress.Task) -> RenderableType:
        return Text() if task.total is None else self._column.render(task)


class _Lines:
    """A line at a stage's first report, at its last, and between them after growing pauses."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._stages: dict[str, _StageClock] = {}

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        clock = self._stages.get(progress.stage)
        if clock is None:
            clock = self._stages[progress.stage] = _StageClock(now, progress.done)
        elif now < clock.next_line_at and progress.done != progress.total:
            return
        clock.pause_s = min(2 * clock.pause_s, LONGEST_PAUSE_S)
        clock.next_line_at = now + clock.pause_s
        self._write(_line(progress, clock, now))


class _StageClock:
    """When a stage began, and when its next line is due."""

    def __init__(self, now: float, done: int) -> None:
        self.began = now
        self.first_done = done
        self.pause_s = _FIRST_PAUSE_S / 2
        self.next_line_at = now


def _line(progress: Progress, clock: _StageClock, now: float) -> str:
    elapsed_s = now - clock.began
    parts = []
    if progress.total is not None:
        parts.append(f"{progress.done}/{progress.total}")
    elif progress.done:
        parts.append(str(progress.done))
    if elapsed_s >= 1:
        parts.append(f"{_duration(elapsed_s)} elapsed")
    advanced = progress.done - clock.first_done
    if progress.total is not None and advanced > 0 and progress.done < progress.total:
        parts.append(f"{_duration(elapsed_s / advanced * (progress.total - progress.done))} left")
    if figures := _figures(progress):
        parts.append(figures)
    return ": ".join(part for part in (progress.stage, ", ".join(parts)) if part)


def _figures(progress: Progress) -> str:
    """Return the detail and the figures, such as `512x8x8  pixel 0.03  pictures/s 87`."""
    detail = () if progress.detail is None else (progress.detail,)
    return "  ".join((*detail, *(f"{name} {value:.3g}" for name, value in progress.figures.items())))


def _duration(seconds: float) -> str:
    """Return `41 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
