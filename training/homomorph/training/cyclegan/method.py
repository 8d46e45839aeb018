"""Trains a CycleGAN: one attribute, one pair of generators.

homomorph train data/avatars --method cyclegan --attribute round_glasses --out runs/round_glasses
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from homomorph.data.domains import DomainBatch, DomainBatches
from homomorph.data.labels import LabelledPictures
from homomorph.errors import ConfigError
from homomorph.models.config import served_name
from homomorph.models.cyclegan import CycleGAN, PatchDiscriminator, start
from homomorph.models.cyclegan_config import CycleGANConfig
from homomorph.models.pixels import from_normalised, normalise
from homomorph.training.cyclegan import losses
from homomorph.training.cyclegan.image_pool import ImagePool, PoolDraws, draw_exchange
from homomorph.training.cyclegan.recipe import CycleGANPreset
from homomorph.training.method import Method
from homomorph.training.parallel import Processes
from homomorph.training.updates import mean_decay

_STRIP_BATCH = 2**32
"""Number of the batch whose pictures the strips show; no step uses it."""
_STRIP_ROWS = 6


@dataclass(frozen=True)
class Pictures:
    """B pictures of each domain, normalised, [B, 3, H, W]."""

    without: Tensor
    having: Tensor


@dataclass(frozen=True)
class Draws:
    """Random choices of each discriminator's pool, by direction."""

    exchanges: dict[str, PoolDraws]


@dataclass(frozen=True)
class Translated:
    """Outputs of the generators for a batch, by direction."""

    fakes: dict[str, Tensor]
    """The other domain's pictures turned into this one's, [B, 3, H, W]."""
    unchanged: dict[str, Tensor]
    """Outputs for pictures that are in this domain already, [B, 3, H, W]."""
    cycled: dict[str, Tensor]
    """The fakes turned back, [B, 3, H, W]."""


class CycleNetworks(nn.Module):
    """Everything that a step updates or reads; its state is the training state on disk."""

    def __init__(self, config: CycleGANConfig, preset: CycleGANPreset) -> None:
        super().__init__()
        self.generators = CycleGAN(config)
        self.discriminators = nn.ModuleDict(
            {name: PatchDiscriminator(preset.discriminator_filters) for name in config.directions}
        )
        start(self)
        self.mean = CycleGAN(config).eval().requires_grad_(False)
        self.mean.load_state_dict(self.generators.state_dict())
        self.pools = nn.ModuleDict({name: ImagePool(preset.pool, config.picture_size) for name in config.directions})


class CycleGANMethod(Method[Pictures, Draws, Translated]):
    """The generators `attribute` and `not_attribute`, by the attribute's `served_name`, and their discriminators."""

    critics = ("discriminators",)
    critic_weights = {"discriminator": 1.0}  # noqa: RUF012  (a constant of the class)

    def __init__(
        self,
        data: LabelledPictures,
        preset: CycleGANPreset,
        *,
        steps: int,
        seed: int = 0,
        max_bad_pictures: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Make networks with random weights.

        Args:
            data: labelled pictures; those whose label is unknown are left out.
            preset: networks, batch, weights and rates, and the attribute that divides the pictures.
            steps: steps of the training, over which rates fall.
            seed: of weights and batches.
            max_bad_pictures: how many may be unreadable; see `AugmentedPictures`.
            processes: device and precision; one process alone.

        Raises:
            ConfigError: the preset names no attribute, or there are several processes.
            DataError: the attribute does not divide the pictures.
        """
        if preset.attribute is None:
            raise ConfigError("a CycleGAN needs an attribute, the label that divides the pictures")
        self._processes = processes or Processes()
        if self._processes.count > 1:
            raise ConfigError("a CycleGAN trains in one process: start it without torchrun")
        self._preset, self._steps = preset, steps
        torch.manual_seed(seed)
        self.config = CycleGANConfig(
            directions=(served_name(preset.attribute), f"not_{served_name(preset.attribute)}"),
            generator=preset.generator,
            filters=preset.filters,
            picture_size=preset.picture_size,
            residual=preset.residual,
        )
        self.batches = DomainBatches(
            data,
            preset.attribute,
            batch_size=preset.batch_size,
            picture_size=preset.picture_size,
            jitter=preset.jitter,
            seed=seed,
            max_bad_pictures=max_bad_pictures,
        )
        nets = CycleNetworks(self.config, preset).to(self._processes.device).to(memory_format=torch.channels_last)
        self.networks = self._nets = nets
        self.model, self.mean_model = nets.generators, nets.mean
        self.optimizers = {
            name: torch.optim.Adam(
                nets.get_submodule(name).parameters(), preset.learning_rate, betas=(0.5, 0.999), fused=True
            )
            for name in ("generators", "discriminators")
        }
        self.batch_size = 2 * preset.batch_size
        self.weights = {"adversarial": 1.0, "cycle": preset.l_cycle, "identity": preset.l_identity}
        self.settings = {
            "model": self.config.to_dict(),
            "preset": dataclasses.asdict(preset),
            "seed": seed,
            "precision": self._processes.precision,
        }

    def phase(self, step: int) -> str:
        """Name what this step trains."""
        return "cyclegan"

    def learning_rate(self, name: str, step: int) -> float:
        """Return a rate that is constant in the first half of the steps and falls to 0 in the second half."""
        return self._preset.learning_rate * min(1.0, 2 * (1 - step / self._steps))

    def mean_decay(self, step: int) -> float:
        """Return the decay of the weights' running mean."""
        return mean_decay(self._preset.ema, step)

    def prepare(self, batch: DomainBatch) -> Pictures:
        """uint8 [B, 3, H, W] -> [-1, 1], on the training's device."""
        return Pictures(*(self._normalised(pictures) for pictures in (batch.without, batch.having)))

    def draw(self, batch: Pictures, step: int, generator: torch.Generator) -> Draws:
        """Draw which pictures the pools exchange."""
        count = len(batch.without)
        return Draws({name: draw_exchange(count, generator) for name in self.config.directions})

    def forward(self, batch: Pictures, draws: Draws) -> Translated:
        """Turn each domain into the other and back."""
        fakes, unchanged, cycled = {}, {}, {}
        for there, back, source, target in self._directions(batch):
            # One call for both is faster than two, and no picture sees another.
            outputs = self._nets.generators(there, torch.cat([source, target]))
            fakes[there], unchanged[there] = outputs.tensor_split([len(source)])
            cycled[there] = self._nets.generators(back, fakes[there])
        return Translated(fakes, unchanged, cycled)

    def critic_terms(self, batch: Pictures, draws: Draws, output: Translated, update: int) -> dict[str, Tensor]:
        """Return the discriminators' loss on real pictures and pictures of the pools."""
        judged = []
        for there, _, _, target in self._directions(batch):
            pool, discriminator = self._nets.pools[there], self._nets.discriminators[there]
            assert isinstance(pool, ImagePool)
            fake = pool.exchange(output.fakes[there], draws.exchanges[there])
            real_scores, fake_scores = discriminator(torch.cat([target, fake])).tensor_split([len(target)])
            judged.append(losses.discriminator_loss(real_scores, fake_scores))
        return {"discriminator": torch.stack(judged).sum()}

    def terms(self, batch: Pictures, draws: Draws, output: Translated) -> dict[str, Tensor]:
        """Return each term, summed over both directions."""
        terms: dict[str, list[Tensor]] = {"adversarial": [], "cycle": [], "identity": []}
        for there, _, source, target in self._directions(batch):
            scores = self._nets.discriminators[there](output.fakes[there])
            terms["adversarial"].append(losses.adversarial_loss(scores, real=True))
            terms["cycle"].append(losses.cycle_loss(output.cycled[there], source))
            terms["identity"].append(losses.identity_loss(output.unchanged[there], target))
        return {name: torch.stack(values).sum() for name, values in terms.items()}

    @torch.no_grad()
    def strips(self) -> NDArray[np.uint8]:
        """Draw rows of six pictures: one gets the attribute and loses it again, another loses it and gets it again.

        Returns:
            uint8 [rows * H, 6 * W, 3].
        """
        add, remove = self.config.directions
        rows: list[Tensor] = []
        for row in range(_STRIP_ROWS):
            batch = self.batches[_STRIP_BATCH + row]
            frames: list[Tensor] = []
            for pictures, there, back in ((batch.without, add, remove), (batch.having, remove, add)):
                source = self._normalised(pictures[:1])
                changed = self._nets.mean(there, source)
                frames += [source, changed, self._nets.mean(back, changed)]
            rows.append(torch.cat([from_normalised(frame, self.config)[0].cpu() for frame in frames], dim=2))
        return torch.cat(rows, dim=1).permute(1, 2, 0).contiguous().numpy()

    def _directions(self, batch: Pictures) -> tuple[tuple[str, str, Tensor, Tensor], ...]:
        """Return each direction, the direction back, the pictures that it changes, and those of the other domain."""
        add, remove = self.config.directions
        return (add, remove, batch.without, batch.having), (remove, add, batch.having, batch.without)

    def _normalised(self, pictures: Tensor) -> Tensor:
        pictures = normalise(pictures.to(self._processes.device), CycleGANConfig)
        return pictures.contiguous(memory_format=torch.channels_last)
