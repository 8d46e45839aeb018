"""Fixtures for the tests of every folder."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported, and for the commands that tests start: several workers share the cores, and threads that
    # wait for each other in turns are slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from homomorph.models.cyclegan import CycleGAN
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.runs.run import save_model
from homomorph_cli.main import run

# The same examples each time, so that what fails here fails elsewhere; a busy machine is no failure.
settings.register_profile("homomorph", derandomize=True, deadline=None, database=None)
settings.load_profile("homomorph")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, give the tests of a file to one worker, and all files that start servers to the same one.

    So a server that several files use is started once, and what a test looks for in the folder of shared memory is its
    own. (Marks of `--dist loadgroup` have no effect in pytest-xdist 3.8 with pytest 9.)
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ServersTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "servers" if starts_servers(config.rootpath / file) else file

    return ServersTogether(config, log)


@functools.cache
def starts_servers(file: Path) -> bool:
    """Whether a file of tests has tests that start the real server."""
    return "pytest.mark.server" in file.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def homomorph(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `homomorph` with words of any type, in this process."""

    def command(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["homomorph", *map(str, words)])
        with pytest.raises(SystemExit) as exited:
            run()
        return Outcome(int(exited.value.code or 0), *capsys.readouterr())

    return command


@pytest.fixture
def hanging_program(tmp_path: Path) -> Path:
    """A program that takes any words, and does nothing for long."""
    program = tmp_path / "hangs"
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def cyclegan_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two CycleGANs' runs with random weights: a residual ResNet of two directions, and an imported U-Net of one."""
    torch.manual_seed(0)
    folders = []
    for config in (
        CycleGANConfig(("smiling", "not_smiling"), "resnet_6blocks", filters=2, picture_size=64, residual=True),
        CycleGANConfig(("blond",), "unet_64", filters=2, picture_size=64),
    ):
        model = CycleGAN(config)
        for generator in model.generators.values():
            convolutions = [weights for weights in generator.parameters() if weights.ndim == 4]
            for weights in convolutions:
                torch.nn.init.kaiming_normal_(weights)
            # Else most pixels are black or white; what is added counts twice.
            convolutions[-1].detach().mul_(0.15 if config.residual else 0.3)
        folders.append(tmp_path_factory.mktemp("cyclegan") / config.directions[0])
        save_model(folders[-1], model)
    return folders[0], folders[1]
