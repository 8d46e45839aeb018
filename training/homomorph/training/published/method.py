"""Trains E, T_i and D by the published recipe.

homomorph train data/avatars --out runs/published --recipe published
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from homomorph.data.labels import LabelledPictures, label_balance, occurrence
from homomorph.models.config import ModelConfig
from homomorph.models.critics import FeatureCritic, Guidance
from homomorph.models.morph import MorphModel, interpolate
from homomorph.models.perceptual import Perceptual, SmallVgg, Vgg19
from homomorph.training.losses import attribute_loss
from homomorph.training.morph_method import MorphMethod, NormalisedBatch
from homomorph.training.parallel import Processes
from homomorph.training.published import losses
from homomorph.training.published.recipe import PublishedRecipe
from homomorph.training.settings import MorphPreset
from homomorph.training.updates import rate_share

PHI, MORPHS = "phi", "morphs"
"""Phases: first the small Phi learns the labels, then all other networks learn."""


@dataclass(frozen=True)
class Draws:
    """Random values of one step with P pairs and K branches."""

    phase: str
    strengths: Tensor
    """v of each branch, uniform in [0, 1], [P, K]."""
    mix: Tensor
    """Position between F_a and F at which each update of the critic penalises its gradient, in [0, 1],
    [critic_updates, P]."""


@dataclass(frozen=True)
class Morphs:
    """Outputs of E, the T_i and D for a batch."""

    encoded: Tensor
    """E of all pictures, [B, C, h, w]."""
    reconstructed: Tensor
    """D of them, [B, 3, H, W]."""
    morphed: Tensor
    """F of each pair, [P, C, h, w]."""
    morphed_by_branches: Tensor
    """The same; gradients reach the T_i alone."""
    complete_by_branches: Tensor
    """F at v = 1; gradients reach the T_i alone, [P, C, h, w]."""


class Networks(nn.Module):
    """Everything that a step updates or reads; its state is the training state on disk."""

    def __init__(self, config: ModelConfig, phi: Perceptual) -> None:
        super().__init__()
        self.model = MorphModel(config)
        self.mean = MorphModel(config).eval().requires_grad_(False)
        self.mean.load_state_dict(self.model.state_dict())
        channels = config.network.feature_channels
        self.critic = FeatureCritic(channels, len(config.attributes))
        self.guidance = Guidance(channels, phi.deep_channels)
        self.phi = phi


class PublishedMethod(MorphMethod[Draws, Morphs | None]):
    """HomoInterpGAN's terms: each network is updated by its own alone."""

    critics = ("critic",)

    def __init__(
        self,
        data: LabelledPictures,
        preset: MorphPreset,
        recipe: PublishedRecipe,
        *,
        steps: int,
        seed: int = 0,
        max_bad_pictures: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Make networks with random weights; see `MorphMethod` for the arguments."""
        super().__init__(data, preset, steps=steps, seed=seed, max_bad_pictures=max_bad_pictures, processes=processes)
        self._recipe = recipe
        network = preset.network
        phi: Perceptual = (
            Vgg19(network.picture_mean, network.picture_std)
            if recipe.phi == "vgg19"
            else SmallVgg(len(self.config.attributes))
        )
        self.networks = self._nets = Networks(self.config, phi).to(self.device).to(memory_format=torch.channels_last)
        self.model, self.mean_model = self._nets.model, self._nets.mean
        rate, critic_rate = preset.learning_rate, preset.critic_learning_rate
        self._rates = {
            "model.encoder": rate,
            "model.branches": rate,
            "model.decoder": rate,
            "guidance": critic_rate,
            "critic": critic_rate,
        }
        if recipe.phi == "small":
            self._rates["phi"] = 1e-3
        else:
            phi.requires_grad_(False)
        # The decoder keeps Adam's usual betas: the method's author found the others worse there.
        self.optimizers = {
            name: torch.optim.Adam(
                self._nets.get_submodule(name).parameters(),
                betas=(0.9 if name in ("model.decoder", "phi") else 0.5, 0.999),
                fused=True,
            )
            for name in self._rates
        }
        self.weights = {
            "phi": 1.0,
            "phi3": recipe.l_recon,
            "pixel": recipe.l_pixel,
            "guidance": recipe.l_kg,
            "gan": recipe.l_gan,
            "homomorphism": recipe.l_hom,
            "total": recipe.l_total,
        }
        self.critic_weights = {"wasserstein": 1.0, "penalty": recipe.lambda_p, "head": 1.0}
        self.critic_updates = recipe.critic_updates
        self.largest_norm = 1.0
        self.settings |= {"recipe": dataclasses.asdict(recipe)}
        self._balance = torch.from_numpy(label_balance(occurrence(data))).to(self.device)

    def phase(self, step: int) -> str:
        """Name what this step trains."""
        return PHI if self._recipe.phi == "small" and step < self._recipe.phi_steps else MORPHS

    def learners(self, step: int) -> tuple[str, ...]:
        """Return the small Phi in its phase, and all other networks except the critics later."""
        if self.phase(step) == PHI:
            return ("phi",)
        return tuple(name for name in self.optimizers if name not in ("phi", *self.critics))

    def learning_rate(self, name: str, step: int) -> float:
        """Return the rate: that of E, the T_i and D falls, that of the critics is constant."""
        return self._rates[name] * (rate_share(step, self._steps) if name.startswith("model.") else 1.0)

    def draw(self, batch: NormalisedBatch, step: int, generator: torch.Generator) -> Draws:
        """Draw the strengths and the positions of the gradient penalty."""
        pairs = len(batch.source)
        return Draws(
            phase=self.phase(step),
            strengths=torch.rand(pairs, len(self.config.branches), generator=generator).to(self.device),
            mix=torch.rand(self._recipe.critic_updates, pairs, generator=generator).to(self.device),
        )

    def forward(self, batch: NormalisedBatch, draws: Draws) -> Morphs | None:
        """Encode, mix and decode; None while Phi learns."""
        if draws.phase == PHI:
            return None
        model = self._nets.model
        encoded = model.encoder(batch.pictures)
        source, target = encoded[batch.source], encoded[batch.target]
        deltas = model.deltas(source, target)
        # For the terms that train the T_i alone, without gradients to E.
        own_deltas = model.deltas(source.detach(), target.detach())
        strengths = draws.strengths.unsqueeze(1)
        return Morphs(
            encoded=encoded,
            reconstructed=model.decoder(encoded),
            morphed=interpolate(source, deltas, strengths).squeeze(1),
            morphed_by_branches=interpolate(source.detach(), own_deltas, strengths).squeeze(1),
            complete_by_branches=source.detach() + own_deltas.sum(dim=1),
        )

    def critic_terms(
        self, batch: NormalisedBatch, draws: Draws, output: Morphs | None, update: int
    ) -> dict[str, Tensor]:
        """Dis tells F from F_a; A' learns z_a from F (not from F_a: on purpose, this makes T change little)."""
        if output is None:
            return {}
        critic = self._nets.critic
        real, fake = output.encoded[batch.source].detach(), output.morphed.detach()
        real_score, _unused = critic(real)
        fake_score, logits = critic(fake)
        return {
            "wasserstein": losses.critic_loss(real_score, fake_score),
            "penalty": losses.gradient_penalty(lambda x: critic(x)[0], real, fake, draws.mix[update]),
            "head": attribute_loss(logits, batch.labels[batch.source], batch.known[batch.source], self._balance),
        }

    def terms(self, batch: NormalisedBatch, draws: Draws, output: Morphs | None) -> dict[str, Tensor]:
        """Return the published terms of E, T_i, D and P, or the term of Phi while Phi learns."""
        phi = self._nets.phi
        if output is None:
            assert isinstance(phi, SmallVgg)
            logits = phi.logits(batch.pictures)
            return {"phi": attribute_loss(logits, batch.labels, batch.known, self._balance)}
        with torch.no_grad():
            shallow = phi.relu3_1(batch.pictures)
            deep = phi.relu5_1(shallow)
        sides = batch.source, batch.target
        mixed, mixed_known = losses.mixed_labels(
            (batch.labels[sides[0]], batch.labels[sides[1]]),
            (batch.known[sides[0]], batch.known[sides[1]]),
            draws.strengths[:, self.label_columns],
        )
        return {
            "phi3": losses.relative_error(phi.relu3_1(output.reconstructed), shallow),
            "pixel": losses.pixel_loss(output.reconstructed, batch.pictures),
            "guidance": losses.relative_error(self._nets.guidance(output.encoded, deep.shape[2:]), deep),
            "gan": losses.generator_loss(self._nets.critic(output.morphed)[0]),
            "homomorphism": attribute_loss(self._nets.critic(output.morphed_by_branches)[1], mixed, mixed_known),
            "total": losses.total_loss(output.complete_by_branches, output.encoded[batch.target].detach()),
        }
