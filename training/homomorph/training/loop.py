"""The loop that every training runs in: batches in order, a report a step, checkpoints, and an end in good order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from homomorph.data.loading import Batches, load_batches
from homomorph.errors import TrainingError
from homomorph.runs.record import TrainingRecord, machine, read_record, write_record
from homomorph.runs.state import LOGS_FOLDER
from homomorph.training.interruption import Interruption
from homomorph.training.parallel import Processes
from homomorph_client.files import replacing


@dataclass(frozen=True)
class Progress:
    """What one step of training reports."""

    phase: str
    """What is being trained: `phi`, `label prior`, `warm-up`, `morphs` or `critics`; `cyclegan`."""
    step: int
    """Steps done in this phase's count."""
    steps: int
    """Steps that this phase's count goes up to."""
    terms: dict[str, float]
    """Unweighted value of each term."""
    pictures_per_s: float
    """Throughput since the last report."""


@dataclass(frozen=True)
class Training:
    """What one method of training does within the loop."""

    batches: Batches[Any]
    """Item `step` is a step's batch."""
    batch_size: int
    """Pictures that a step takes."""
    take_step: Callable[[Any, int], tuple[str, dict[str, float]]]
    """Takes a batch and its step's number, updates the networks, and returns the phase and the terms' values."""
    save: Callable[[int], None]
    """Writes the model, and the state after this many steps."""
    draw: Callable[[], NDArray[np.uint8]]
    """Draws pictures to look at, [H, W, 3]."""
    served: nn.Module
    """The weights that are saved as the model."""


def run_training(
    training: Training,
    out: Path,
    *,
    start: int,
    steps: int,
    saved: int | None,
    checkpoint_every: int,
    workers: int,
    skipped: dict[int, str],
    processes: Processes,
) -> Generator[Progress, None, None]:
    """Take the steps from `start` on; only the first process writes.

    Args:
        training: what a step does, and what is written.
        out: run folder.
        start: steps done already.
        steps: how many steps in all.
        saved: step of the checkpoint that `out` holds; None if there is none.
        checkpoint_every: steps between checkpoints.
        workers: processes that read and augment pictures.
        skipped: gets the pictures that could not be read.
        processes: this process among those that train together.

    Yields:
        A report after every step.

    Raises:
        DataError: too many pictures cannot be read.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, after the last finished step has been written.
        TrainingError: a term became NaN or infinite.
    """
    earlier = read_record(out) if start else None
    begun = began = time.perf_counter()

    def save(done: int) -> None:
        training.save(done)
        hours = (earlier.hours if earlier else 0) + (time.perf_counter() - begun) / 3600
        write_record(out, TrainingRecord(done * training.batch_size, round(hours, 3), machine(processes.device)))

    with (
        contextlib.closing(load_batches(training.batches, range(start, steps), workers, skipped)) as loader,
        SummaryWriter(out / LOGS_FOLDER, purge_step=start) if processes.first else contextlib.nullcontext() as writer,
        Interruption() as interruption,
    ):
        for step, batch in enumerate(loader, start=start):
            if processes.any(interruption.noted):
                if writer is not None:
                    save(step)
                processes.wait()
                raise KeyboardInterrupt
            phase, terms = training.take_step(batch, step)
            done = step + 1
            checkpoint = done % checkpoint_every == 0 or done == steps
            bad = [name for name, value in terms.items() if not np.isfinite(value)]
            # Terms are taken before the weights are updated; what is written must be sound itself.
            if checkpoint and not bad and not all(value.isfinite().all() for value in training.served.parameters()):
                bad = ["the weights"]
            if bad:
                raise TrainingError(_diverged(done, bad, out, saved))
            if done % 20 == 0 and writer is not None:
                for name, value in terms.items():
                    writer.add_scalar(f"terms/{name}", value, done)
            if checkpoint and writer is not None:
                save(done)
                strips = training.draw()
                writer.add_image("strips", strips, done, dataformats="HWC")
                with replacing(out / "strips.png") as partial:
                    Image.fromarray(strips).save(partial)
            if checkpoint:
                saved = done
            now = time.perf_counter()
            yield Progress(phase, done, steps, terms, training.batch_size / (now - began))
            began = now


def _diverged(step: int, bad: list[str], out: Path, saved: int | None) -> str:
    """Say where a run went wrong, and what is left of it."""
    kept = f"{out} keeps the checkpoint of step {saved}" if saved else "there is no checkpoint yet"
    return (
        f"step {step}: {', '.join(bad)} became NaN or infinite; {kept}. --resume would come to the same: "
        "start a new run with another --seed"
    )
