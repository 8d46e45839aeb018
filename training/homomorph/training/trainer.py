"""Trains E, T_i and D.

homomorph render data/avatars --count 20000 --size 64
homomorph train data/avatars --out runs/avatars64 --preset avatars64
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homomorph.data.augmented import Jitter
from homomorph.data.batches import Batch, PairedBatches
from homomorph.data.labels import LabelledPictures, label_balance, occurrence
from homomorph.data.loading import load_batches, report_skipped
from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.models.perceptual import Perceptual, SmallVgg, Vgg19
from homomorph.models.pixels import normalise
from homomorph.runs.label_features import save_label_features
from homomorph.runs.run import MODEL_FILE, save_model, sha256
from homomorph.runs.state import begin, load_state, save_state, start_from
from homomorph.training.completion import complete_residual
from homomorph.training.fit_label_features import fit_label_features
from homomorph.training.loop import Progress, Training, run_training
from homomorph.training.networks import Networks, make_optimizers, set_rates
from homomorph.training.parallel import Processes
from homomorph.training.phases import phase_of
from homomorph.training.pretraining import train_label_prior, train_small_vgg
from homomorph.training.recipe import Preset, Recipe
from homomorph.training.step import TrainingStep
from homomorph.training.strips import group_strips
from homomorph.training.updates import flush_denormals, follow

_log = logging.getLogger(__name__)

# Batches beyond the training steps' own numbers.
_PHI_BATCHES = 2**31
_STRIP_BATCH = 2**32
_PRIOR_BATCHES = 2**33


def train(
    data: LabelledPictures,
    out: Path,
    *,
    preset: Preset,
    recipe: Recipe,
    steps: int,
    phi: str = "small",
    seed: int = 0,
    resume: bool = False,
    init: Path | None = None,
    checkpoint_every: int = 500,
    workers: int = 1,
    max_bad_pictures: int | None = None,
    processes: Processes | None = None,
) -> Generator[Progress, None, None]:
    """Train E, T_i and D, and keep `out` a usable run from the first checkpoint on.

    Args:
        data: labelled pictures.
        out: run folder; new or empty, unless resuming.
        preset: sizes, batch and rates.
        recipe: weights of the terms.
        steps: how many steps in all, earlier ones of a resumed run included.
        phi: `small` (trained first on the labels) or `vgg19` (torchvision's).
        seed: of weights, batches and strengths.
        resume: go on from the last checkpoint in `out`.
        init: run folder to start from, instead of random weights; its schedule and optimizers are not taken over.
        checkpoint_every: steps between checkpoints.
        workers: processes that read and augment pictures.
        max_bad_pictures: how many may be unreadable; by default one in a hundred, at least 10. Each is skipped with
            a warning, and the next one in the data stands in its place.
        processes: this process among those that train together, with its device and precision; alone on the CPU in
            float32 by default. Only the first one writes.

    Yields:
        A report after every step.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or there is nothing to resume, or it is another one.
        DataError: too many pictures cannot be read.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, after the last finished step has been written for `resume`.
        TrainingError: a term became NaN or infinite.
    """
    flush_denormals()

    # Set up the networks, or read them back.
    processes = processes or Processes()
    torch.manual_seed(seed)
    config = ModelConfig(groups=data.groups, picture_size=preset.picture_size, network=preset.network)
    perceptual: Perceptual = (
        Vgg19(preset.network.picture_mean, preset.network.picture_std)
        if phi == "vgg19"
        else SmallVgg(len(config.attributes))
    )
    nets = Networks(config, perceptual).to(processes.device).to(memory_format=torch.channels_last)
    optimizers = make_optimizers(nets, preset, recipe)
    settings = settings_of(config, preset, recipe, steps, phi, seed, init, processes)

    def drawn(jitter: Jitter) -> PairedBatches:
        return PairedBatches(
            data,
            batch_size=preset.batch_size,
            picture_size=preset.picture_size,
            jitter=jitter,
            seed=seed,
            max_bad_pictures=max_bad_pictures,
            shard=processes.rank,
            shards=processes.count,
        )

    batches = drawn(preset.jitter)
    learned: set[str] = set()
    if resume:
        start = load_state(out, nets, optimizers, settings)
        learned = {"phi", "label_prior"}
    else:
        start = 0
        if init is not None:
            learned = start_from(init, nets, config)
        if processes.first:
            begin(out)
        processes.wait()
    skipped: dict[int, str] = {}
    share = occurrence(data)
    balance = torch.from_numpy(label_balance(share)).to(processes.device)
    if constant := [name for name, value in zip(config.attributes, share, strict=True) if not 0 < value < 1]:
        _log.warning("nothing can be learned of labels that all pictures share: %s", ", ".join(constant))

    def prepared(batch: Batch) -> tuple[Batch, Tensor]:
        batch = batch.to(processes.device)
        pictures = normalise(batch.pictures, preset.network)
        return batch, pictures.contiguous(memory_format=torch.channels_last)

    # Train Phi on the labels, unless it came with its weights.
    if phi == "small" and "phi" not in learned:
        phi_range = range(_PHI_BATCHES, _PHI_BATCHES + preset.phi_steps)
        with contextlib.closing(load_batches(batches, phi_range, workers, skipped)) as loader:
            learning = train_small_vgg(perceptual, map(prepared, loader), balance, processes)  # type: ignore[arg-type]
            for step, loss in enumerate(learning, start=1):
                yield Progress("phi", step, preset.phi_steps, {"phi": loss}, 0.0)
    nets.phi.requires_grad_(False)

    # Train the label prior, on pictures as they are: what is moved is blurred.
    if recipe.l_counterfactual > 0 and "label_prior" not in learned:
        still = drawn(dataclasses.replace(preset.jitter, probability=0.0))
        prior_range = range(_PRIOR_BATCHES, _PRIOR_BATCHES + preset.prior_steps)
        with contextlib.closing(load_batches(still, prior_range, workers, skipped)) as loader:
            expecting = train_label_prior(nets.label_prior, map(prepared, loader), preset.prior_steps, processes)
            for step, loss in enumerate(expecting, start=1):
                yield Progress("label prior", step, preset.prior_steps, {"label_prior": loss}, 0.0)
    nets.label_prior.requires_grad_(False)

    # Train.
    update = TrainingStep(nets, optimizers, recipe, balance, seed=seed, processes=processes)

    def take_step(batch: Batch, step: int) -> tuple[str, dict[str, float]]:
        phase = phase_of(step / steps, recipe)
        set_rates(optimizers, preset, step / steps)
        terms = update(*prepared(batch), step=step, phase=phase)
        follow(nets.ema, nets.model, min(preset.ema, (step + 1) / (step + 10)))
        return phase, terms

    def save(done: int) -> None:
        save_model(out, nets.ema)
        save_state(out, nets, optimizers, done, settings)

    def draw() -> NDArray[np.uint8]:
        return group_strips(_on_cpu(nets.ema), batches[_STRIP_BATCH].pictures)

    yield from run_training(
        Training(
            batches=batches,
            batch_size=preset.batch_size,
            take_step=take_step,
            save=save,
            draw=draw,
            served=nets.ema,
        ),
        out,
        start=start,
        steps=steps,
        saved=start if resume else None,
        checkpoint_every=checkpoint_every,
        workers=workers,
        skipped=skipped,
        processes=processes,
    )
    if processes.first:
        served = _on_cpu(nets.ema)
        if recipe.residual_ridge > 0:
            complete_residual(served, data, recipe.residual_ridge)
            save_model(out, served)
        save_label_features(out, fit_label_features(served, data))
    processes.wait()
    report_skipped(len(skipped), data)


def settings_of(
    config: ModelConfig,
    preset: Preset,
    recipe: Recipe,
    steps: int,
    phi: str,
    seed: int,
    init: Path | None,
    processes: Processes,
) -> dict[str, Any]:
    """Return what defines a run, as plain values; a run that goes on must have the same."""
    return {
        "model": config.to_dict(),
        "preset": dataclasses.asdict(preset),
        "recipe": dataclasses.asdict(recipe),
        "steps": steps,
        "phi": phi,
        "seed": seed,
        "init": None if init is None else sha256(init / MODEL_FILE),
        "precision": processes.precision,
        "processes": processes.count,
    }


def _on_cpu(model: MorphModel) -> MorphModel:
    """Return the model where pictures are looked at; itself if it is there."""
    return model if next(model.parameters()).device.type == "cpu" else copy.deepcopy(model).cpu()
