"""The training loop, for every method: draw, forward, update critics, update networks, report, checkpoint."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from homomorph.data.loading import load_batches
from homomorph.environment import versions
from homomorph.errors import TrainingError
from homomorph.progress import Progress, Report, silent
from homomorph.runs.record import TrainingRecord, machine, read_record, write_record
from homomorph.runs.run import save_model
from homomorph.runs.state import LOGS_FOLDER, begin, load_state, save_state
from homomorph.training.interruption import Interruption
from homomorph.training.method import Method
from homomorph.training.parallel import Processes
from homomorph.training.updates import flush_denormals, follow, frozen
from homomorph_client.files import replacing

_LOG_EVERY = 20
"""Steps between the values in TensorBoard."""


def train(
    method: Method[Any, Any, Any],
    out: Path,
    *,
    steps: int,
    seed: int = 0,
    resume: bool = False,
    checkpoint_every: int = 500,
    workers: int = 1,
    data_hash: str | None = None,
    processes: Processes | None = None,
    report: Report = silent,
    held_out_figures: Callable[[Any], Mapping[str, float]] | None = None,
) -> dict[int, str]:
    """Train, and keep `out` a usable run from the first checkpoint on. Only the first process writes.

    Args:
        method: networks, draws and losses.
        out: run folder; new or empty, unless resuming.
        steps: steps in all, those before an interruption included.
        seed: of everything that steps draw.
        resume: go on from the last checkpoint in `out`; the result is that of an uninterrupted run.
        checkpoint_every: steps between checkpoints.
        workers: processes that read and augment pictures; 0 reads them in this one.
        data_hash: what identifies the data in the run's record.
        processes: this process among those that train together; alone on the CPU in float32 by default.
        report: called after every step with the value of each term.
        held_out_figures: called with the running mean of the model at each checkpoint; its values go to TensorBoard.

    Returns:
        The pictures that could not be read and were skipped, by their index in the data, with the reason.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or there is nothing to resume, or it is another one.
        DataError: too many pictures cannot be read.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, after the last finished step has been written for `resume`.
        TrainingError: a term or a weight became NaN or infinite.
    """
    # Initialize.
    processes = processes or Processes()
    flush_denormals()
    networks, optimizers, settings = method.networks, method.optimizers, {**method.settings, "steps": steps}
    start, saved = 0, None
    if resume:
        start = saved = load_state(out, networks, optimizers, settings)
    elif processes.first:
        begin(out)
    processes.wait()
    earlier_hours = record.hours if start and (record := read_record(out)) else 0.0
    began = last_report = time.perf_counter()
    skipped: dict[int, str] = {}

    def write_run(done: int) -> None:
        save_model(out, method.mean_model)
        hours = earlier_hours + (time.perf_counter() - began) / 3600
        pictures = done * method.batch_size
        write_record(
            out,
            TrainingRecord(
                pictures,
                round(hours, 3),
                machine(processes.device, processes.count),
                settings,
                versions(),
                data_hash,
            ),
        )

    def write_checkpoint(done: int) -> None:
        # The state first: a resumed training writes the model again, in case it was killed between the two.
        save_state(out, networks, optimizers, done, settings)
        write_run(done)

    if start and processes.first:
        write_run(start)
    with (
        contextlib.closing(load_batches(method.batches, range(start, steps), workers, skipped)) as loader,
        SummaryWriter(out / LOGS_FOLDER, purge_step=start) if processes.first else contextlib.nullcontext() as writer,
        Interruption() as interruption,
    ):
        for step, read in enumerate(loader, start=start):
            # An interruption is kept until a step is complete: half a step is no state to go on from.
            if processes.any(interruption.noted):
                if writer is not None:
                    write_checkpoint(step)
                processes.wait()
                raise KeyboardInterrupt
            for name, optimizer in optimizers.items():
                optimizer.param_groups[0]["lr"] = method.learning_rate(name, step)
            terms = take_step(method, method.prepare(read), step, seed=seed, processes=processes)

            # Report.
            done = step + 1
            checkpoint = done % checkpoint_every == 0 or done == steps
            values = processes.average(_numbers(terms))
            bad = [name for name, value in values.items() if not np.isfinite(value)]
            if checkpoint and not bad and not all(value.isfinite().all() for value in method.mean_model.parameters()):
                bad = ["the weights"]
            if bad:
                raise TrainingError(_diverged(done, bad, out, saved))
            if done % _LOG_EVERY == 0 and writer is not None:
                for name, value in values.items():
                    writer.add_scalar(f"terms/{name}", value, done)

            # Write a checkpoint.
            if checkpoint and writer is not None:
                write_checkpoint(done)
                strips = method.strips()
                writer.add_image("strips", strips, done, dataformats="HWC")
                with replacing(out / "strips.png") as partial:
                    Image.fromarray(strips).save(partial)
                for name, value in (held_out_figures(method.mean_model) if held_out_figures else {}).items():
                    writer.add_scalar(f"held_out/{name}", value, done)
            saved = done if checkpoint else saved
            now = time.perf_counter()
            report(
                Progress(
                    method.phase(step), done, steps, values | {"pictures/s": method.batch_size / (now - last_report)}
                )
            )
            last_report = now
    if processes.first:
        method.finish(out)
    processes.wait()
    return skipped


def take_step(
    method: Method[Any, Any, Any], batch: Any, step: int, *, seed: int, processes: Processes
) -> dict[str, Tensor]:
    """Take one step of any method.

    Args:
        method: networks, draws and losses; its networks are updated.
        batch: what `method.prepare` returned.
        step: number of the step.
        seed: of what the step draws.
        processes: this process among those that train together.

    Returns:
        The value of each term before the step, without its weight.
    """
    method.begin_step(step)

    # Draw all random numbers.
    draws = method.draw(batch, step, _generator(seed, step, processes.rank))

    # Run the networks.
    with processes.autocast():
        output = method.forward(batch, draws)

    # Update the critics.
    critic_terms: dict[str, Tensor] = {}
    for update in range(method.critic_updates):
        with processes.autocast():
            critic_terms = method.critic_terms(batch, draws, output, update)
        if critic_terms:
            loss = _weighted(critic_terms, method.critic_weights)
            _update(method, method.critics, loss, processes, largest_norm=None)

    # Update the networks.
    learners = method.learners(step)
    others = nn.ModuleList(method.networks.get_submodule(name) for name in method.optimizers if name not in learners)
    with frozen(others):
        with processes.autocast():
            terms = method.terms(batch, draws, output)
        loss = _weighted(terms, method.weights)
        _update(method, learners, loss, processes, largest_norm=method.largest_norm)

    # Follow with the running mean of the weights.
    follow(method.mean_model, method.model, method.mean_decay(step))
    return terms | critic_terms


def _generator(seed: int, step: int, rank: int) -> torch.Generator:
    """Random numbers of one step of one process: the same however often the run was resumed."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step + (rank << 40))


def _weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """sum_i weight_i * term_i."""
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


def _update(
    method: Method[Any, Any, Any],
    names: Iterable[str],
    loss: Tensor,
    processes: Processes,
    *,
    largest_norm: float | None,
) -> None:
    """Update the networks of these optimizers by the gradient of `loss`; weights that it does not reach stay."""
    chosen = [method.optimizers[name] for name in names]
    for optimizer in chosen:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in chosen:
        parameters = [p for p in optimizer.param_groups[0]["params"] if p.grad is not None]
        if not parameters:
            continue
        processes.average_gradients(parameters)
        if largest_norm is not None:
            nn.utils.clip_grad_norm_(parameters, largest_norm)
        optimizer.step()


def _numbers(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Read all values at once: a GPU is waited for at each reading."""
    values = torch.stack([value.detach().float() for value in terms.values()]).tolist()
    return dict(zip(terms, values, strict=True))


def _diverged(step: int, bad: list[str], out: Path, saved: int | None) -> str:
    """Name the step at which a run failed, and its last good checkpoint."""
    kept = f"{out} keeps the checkpoint of step {saved}" if saved else "there is no checkpoint yet"
    return (
        f"step {step}: {', '.join(bad)} became NaN or infinite; {kept}. --resume would come to the same: "
        "start a new run with another --seed"
    )
