"""Trains a CycleGAN: one attribute, one pair of generators.

homomorph train data/avatars --method cyclegan --attribute round_glasses --out runs/round_glasses
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from homomorph.data.domains import DomainBatch, DomainBatches
from homomorph.data.labels import LabelledPictures
from homomorph.data.loading import report_skipped
from homomorph.errors import ConfigError
from homomorph.models.config import served_name
from homomorph.models.cyclegan import CycleGAN, PatchDiscriminator, start
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.models.pixels import from_normalised, normalise
from homomorph.runs.run import save_model
from homomorph.runs.state import begin, load_state, save_state
from homomorph.training import cyclegan_losses as losses
from homomorph.training.cyclegan_recipe import CycleGANPreset
from homomorph.training.image_pool import ImagePool
from homomorph.training.loop import Progress, Training, run_training
from homomorph.training.parallel import Processes
from homomorph.training.updates import flush_denormals, follow, frozen

_PHASE = "cyclegan"
_STRIP_BATCH = 2**32
_STRIP_ROWS = 6


def train_cyclegan(
    data: LabelledPictures,
    attribute: str,
    out: Path,
    *,
    preset: CycleGANPreset,
    steps: int,
    seed: int = 0,
    resume: bool = False,
    checkpoint_every: int = 500,
    workers: int = 1,
    max_bad_pictures: int | None = None,
    processes: Processes | None = None,
) -> Generator[Progress, None, None]:
    """Train the generators `attribute` and `not_attribute`, and keep `out` a usable run from the first checkpoint on.

    They are called by the attribute's `served_name`.

    Args:
        data: labelled pictures; those whose label is unknown are left out.
        attribute: the label that divides them into two domains.
        out: run folder; new or empty, unless resuming.
        preset: networks, batch, weights and rates.
        steps: how many steps in all, earlier ones of a resumed run included.
        seed: of weights, batches and what the pools keep.
        resume: go on from the last checkpoint in `out`, with the same result as without an interruption.
        checkpoint_every: steps between checkpoints.
        workers: processes that read and augment pictures.
        max_bad_pictures: how many may be unreadable; see `AugmentedPictures`.
        processes: device and precision; one process alone.

    Yields:
        A report after every step.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or there is nothing to resume, or it is another one.
        ConfigError: there are several processes.
        DataError: the attribute does not divide the pictures, or too many of them cannot be read.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, after the last finished step has been written for `resume`.
        TrainingError: a term became NaN or infinite.
    """
    processes = processes or Processes()
    if processes.count > 1:
        raise ConfigError("a CycleGAN trains in one process: start it without torchrun")
    flush_denormals()

    # Set up the networks, or read them back.
    torch.manual_seed(seed)
    config = CycleGANConfig(
        directions=(served_name(attribute), f"not_{served_name(attribute)}"),
        generator=preset.generator,
        filters=preset.filters,
        picture_size=preset.picture_size,
        residual=preset.residual,
    )
    batches = DomainBatches(
        data,
        attribute,
        batch_size=preset.batch_size,
        picture_size=preset.picture_size,
        jitter=preset.jitter,
        seed=seed,
        max_bad_pictures=max_bad_pictures,
    )
    nets = CycleNetworks(config, preset).to(processes.device).to(memory_format=torch.channels_last)
    optimizers = {
        "generators": _adam(nets.model, preset.learning_rate),
        "discriminators": _adam(nets.discriminators, preset.learning_rate),
    }
    settings = {
        "model": config.to_dict(),
        "preset": dataclasses.asdict(preset),
        "steps": steps,
        "seed": seed,
        "precision": processes.precision,
    }
    if resume:
        begun = load_state(out, nets, optimizers, settings)
    else:
        begun = 0
        begin(out)
    skipped: dict[int, str] = {}
    update = CycleStep(nets, optimizers, preset, seed=seed, processes=processes)

    # Train.
    def take_step(batch: DomainBatch, step: int) -> tuple[str, dict[str, float]]:
        rate = preset.learning_rate * min(1.0, 2 * (1 - step / steps))
        for optimizer in optimizers.values():
            optimizer.param_groups[0]["lr"] = rate
        terms = update(_pictures(batch.without, processes), _pictures(batch.having, processes), step)
        follow(nets.ema, nets.model, min(preset.ema, (step + 1) / (step + 10)))
        return _PHASE, terms

    def save(done: int) -> None:
        save_model(out, nets.ema)
        save_state(out, nets, optimizers, done, settings)

    shown = [batches[_STRIP_BATCH + row] for row in range(_STRIP_ROWS)]
    yield from run_training(
        Training(
            batches=batches,
            batch_size=2 * preset.batch_size,
            take_step=take_step,
            save=save,
            draw=lambda: direction_strips(nets.ema, shown, processes),
            served=nets.ema,
        ),
        out,
        start=begun,
        steps=steps,
        saved=begun if resume else None,
        checkpoint_every=checkpoint_every,
        workers=workers,
        skipped=skipped,
        processes=processes,
    )
    report_skipped(len(skipped), data)


class CycleNetworks(nn.Module):
    """Everything that a step updates or reads; its state is the training state on disk."""

    def __init__(self, config: CycleGANConfig, preset: CycleGANPreset) -> None:
        super().__init__()
        self.model = CycleGAN(config)
        self.discriminators = nn.ModuleDict(
            {name: PatchDiscriminator(preset.discriminator_filters) for name in config.directions}
        )
        start(self)
        self.ema = CycleGAN(config).eval().requires_grad_(False)
        self.ema.load_state_dict(self.model.state_dict())
        self.pools = nn.ModuleDict({name: ImagePool(preset.pool, config.picture_size) for name in config.directions})


class CycleStep:
    """Takes the steps of a training, one call each."""

    def __init__(
        self,
        nets: CycleNetworks,
        optimizers: Mapping[str, torch.optim.Adam],
        preset: CycleGANPreset,
        *,
        seed: int,
        processes: Processes,
    ) -> None:
        self.nets, self.optimizers, self.preset = nets, optimizers, preset
        self.seed, self.processes = seed, processes

    def __call__(self, without: Tensor, having: Tensor, step: int) -> dict[str, float]:
        """Update both generators, then both discriminators.

        Args:
            without: pictures that lack the attribute, [B, 3, H, W] in [-1, 1].
            having: pictures that have it, the same.
            step: number of the step, from which the pools' choices are drawn.

        Returns:
            Each term's unweighted value, both directions together.
        """
        nets, preset = self.nets, self.preset
        add, remove = nets.model.config.directions
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)

        # Each direction turns its source into a fake of its target.
        ways = ((add, remove, without, having), (remove, add, having, without))
        terms: dict[str, Tensor] = {}
        fakes: dict[str, Tensor] = {}
        with self.processes.autocast(), frozen(nets.discriminators):
            adversarial, cycle, identity = [], [], []
            for there, back, source, target in ways:
                # One call for both is faster than two, and no picture sees another.
                shown = torch.cat([source, target]) if preset.l_identity > 0 else source
                fakes[there], unchanged = nets.model(there, shown).tensor_split([len(source)])
                adversarial.append(losses.adversarial_loss(nets.discriminators[there](fakes[there]), real=True))
                cycle.append(losses.cycle_loss(nets.model(back, fakes[there]), source))
                if preset.l_identity > 0:
                    identity.append(losses.identity_loss(unchanged, target))
            terms = {"adversarial": _sum_of(adversarial), "cycle": _sum_of(cycle)}
            loss = terms["adversarial"] + preset.l_cycle * terms["cycle"]
            if identity:
                terms["identity"] = _sum_of(identity)
                loss = loss + preset.l_identity * terms["identity"]
        self._update("generators", loss)

        with self.processes.autocast():
            judged = []
            for there, _, _, target in ways:
                pool = nets.pools[there]
                assert isinstance(pool, ImagePool)
                fake = pool.exchange(fakes[there], generator)
                real_scores, fake_scores = nets.discriminators[there](torch.cat([target, fake])).tensor_split(
                    [len(target)]
                )
                judged.append(losses.discriminator_loss(real_scores, fake_scores))
            terms["discriminator"] = _sum_of(judged)
        self._update("discriminators", terms["discriminator"])
        return {name: value.item() for name, value in terms.items()}

    def _update(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()


@torch.no_grad()
def direction_strips(model: CycleGAN, batches: list[DomainBatch], processes: Processes) -> NDArray[np.uint8]:
    """Draw rows of: a picture, with the attribute added, taken away again; one that has it, without it, with it again.

    Returns:
        uint8 [rows * H, 6 * W, 3].
    """
    add, remove = model.config.directions
    rows: list[Tensor] = []
    for batch in batches:
        shown: list[Tensor] = []
        for pictures, there, back in ((batch.without, add, remove), (batch.having, remove, add)):
            source = _pictures(pictures[:1], processes)
            changed = model(there, source)
            shown += [source, changed, model(back, changed)]
        rows.append(torch.cat([from_normalised(picture, model.config)[0].cpu() for picture in shown], dim=2))
    return torch.cat(rows, dim=1).permute(1, 2, 0).contiguous().numpy()


def _sum_of(terms: list[Tensor]) -> Tensor:
    """Add up one term of both directions."""
    return torch.stack(terms).sum()


def _pictures(pictures: Tensor, processes: Processes) -> Tensor:
    """uint8 [B, 3, H, W] -> [-1, 1], on the training's device."""
    pictures = normalise(pictures.to(processes.device), CycleGANConfig)
    return pictures.contiguous(memory_format=torch.channels_last)


def _adam(network: nn.Module, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), rate, betas=(0.5, 0.999), fused=True)
