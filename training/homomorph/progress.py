"""Progress reports of long work, which calls a `Report` with a `Progress`.

Everything that takes more than a few seconds takes an argument `report: Report = silent`. The command line shows the
reports as bars or lines (`homomorph_cli.progress`); a program may do anything else with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """Progress of one stage of some work."""

    stage: str
    """Name of the stage, such as `training`. A new name begins a new stage."""
    done: int = 0
    """Steps, pictures or turns done in this stage."""
    total: int | None = None
    """Total number of them; None if unknown."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Current values, such as losses or `pictures/s`, by name."""
    detail: str | None = None
    """The current part of the stage, such as the case that a benchmark measures."""


Report = Callable[[Progress], None]
"""Called from the thread that works, as often as there is something new; returns at once."""


def silent(progress: Progress) -> None:
    """Ignore a report: the default of every `report` argument."""
