"""Commands in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

_IMPORTED = (
    *("dicebear_styles", "homomorph_cli.main", "homomorph_export.exporter", "homomorph.batch", "homomorph.data.align"),
    *("homomorph.data.render_set", "homomorph.training.labeller"),
    *("homomorph.training.loop", "homomorph.training.methods"),
)


@pytest.fixture(scope="session")
def start_command() -> Callable[..., BaseProcess]:
    """Start `homomorph` with words of any type, in a process that has imported torch and whatever else is slow.

    `largest_file` is the size in bytes of the largest file that the command can write; `errors` is the file for its
    stderr.
    """
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(list(_IMPORTED))

    def start(*words: object, largest_file: int | None = None, errors: Path | None = None) -> BaseProcess:
        lines = ["import os, resource, sys", f"sys.argv = {['homomorph', *map(str, words)]!r}"]
        if errors is not None:
            lines.append(f"os.dup2(os.open({str(errors)!r}, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)")
        if largest_file is not None:
            lines.append(f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file}, {largest_file}))")
        lines.append("from homomorph_cli.main import run; run()")
        process = forkserver.Process(target=exec, args=("\n".join(lines),))
        process.start()
        return process

    return start
