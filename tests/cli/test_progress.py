"""How far a command is: bars in a terminal, lines now and then without one, on stderr alone."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from homomorph.progress import Progress, silent
from homomorph_cli.progress import progress_display


class Clock:
    """Time that a test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the lines take the time from."""
    clock = Clock()
    monkeypatch.setattr("homomorph_cli.progress.time.monotonic", clock)
    return clock


def test_lines_come_first_after_growing_pauses_and_last(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as report:
        for done in range(1, 101):
            report(Progress("training", done, 100, {"loss": 1 / done}))
            clock.now_s += 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "training: 1/100, loss 1",
        "training: 2/100, 1 s elapsed, 1 min 38 s left, loss 0.5",
        "training: 4/100, 3 s elapsed, 1 min 36 s left, loss 0.25",
        "training: 8/100, 7 s elapsed, 1 min 32 s left, loss 0.125",
        "training: 16/100, 15 s elapsed, 1 min 24 s left, loss 0.0625",
        "training: 32/100, 31 s elapsed, 1 min 08 s left, loss 0.0312",
        "training: 62/100, 1 min 01 s elapsed, 38 s left, loss 0.0161",
        "training: 92/100, 1 min 31 s elapsed, 8 s left, loss 0.0109",
        "training: 100/100, 1 min 39 s elapsed, loss 0.01",
    ]


def test_remaining_time_counts_from_where_the_stage_began(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as report:
        report(Progress("training", 5000, 5100))
        clock.now_s += 10
        report(Progress("training", 5010, 5100))
    assert capsys.readouterr().err.splitlines()[-1] == "training: 5010/5100, 10 s elapsed, 1 min 30 s left"


def test_stages_without_a_total_are_a_line_each(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as report:
        report(Progress("Tracing encoder"))
        report(Progress("Tracing decoder"))
        report(Progress("overload", detail="triton [cpu] at 40 requests/s"))
    lines = ["Tracing encoder", "Tracing decoder", "overload: triton [cpu] at 40 requests/s"]
    assert capsys.readouterr().err.splitlines() == lines


def test_a_terminal_shows_a_bar_a_stage_from_the_first_report_on() -> None:
    screen = io.StringIO()
    with progress_display(Console(file=screen, force_terminal=True, force_interactive=True, width=100)) as report:
        assert screen.getvalue() == ""
        report(Progress("pictures", 4, 4))
        report(Progress("[/red]", 1, 2))
        report(Progress("Starting Triton"))
        report(Progress("pixel", 16, 32, {"loss": 0.5}, detail="[512x8x8]"))
    shown = screen.getvalue()
    assert "4/4" in shown
    assert "[/red]" in shown
    assert "Starting Triton" in shown
    assert "16/32" in shown
    assert "[512x8x8]  loss 0.5" in shown


def test_silent_ignores_reports() -> None:
    silent(Progress("training", 1, 2))


def test_a_command_shows_bars_in_a_terminal(tmp_path: Path) -> None:
    there, here = pty.openpty()
    words = ["render", str(tmp_path / "set"), "--count", "3", "--size", "16", "--workers", "0"]
    done = subprocess.run(
        [sys.executable, "-c", "from homomorph_cli.main import run; run()", *words],
        stdout=subprocess.PIPE,
        stderr=here,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        check=True,
        timeout=120,
    )
    os.close(here)
    shown = os.read(there, 1 << 16).decode()
    os.close(there)
    assert "rendering" in shown
    assert "3/3" in shown
    assert done.stdout.decode() == f"3 pictures of 16x16 pixels in {tmp_path / 'set'}\n"
