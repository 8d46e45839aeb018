"""How far a command is: a bar for each stage in a terminal, elsewhere a line now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 30.0
"""Between two lines of one stage, so that a log says that the work goes on and stays short."""

Report = Callable[[str, int, int], None]
"""Takes the name of a stage, how much of it is done, and how much there is."""


@contextlib.contextmanager
def stage_progress() -> Iterator[Report]:
    """Show how far each stage is. Until the first report nothing is shown: a wrong argument gets its error alone."""
    console = Console()
    if not console.is_interactive:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console)
    tasks: dict[str, TaskID] = {}
    with contextlib.ExitStack() as shown:

        def bars(stage: str, done: int, total: int) -> None:
            if not tasks:
                shown.enter_context(progress)
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield bars


def _lines() -> Report:
    began: dict[str, float] = {}
    printed = 0.0

    def lines(stage: str, done: int, total: int) -> None:
        nonlocal printed
        now = time.monotonic()
        if stage in began and done < total and now - printed < LINE_EVERY_S:
            return
        printed = now
        print(f"{stage}: {done} of {total}, {now - began.setdefault(stage, now):.0f} s", flush=True)

    return lines
