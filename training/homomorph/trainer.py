"""The training loop.

homomorph render data/avatars --count 20000 --size 64
homomorph train data/avatars --out runs/avatars64 --preset avatars64
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from homomorph import losses
from homomorph.config import ModelConfig
from homomorph.critics import FeatureCritic, Guidance, PictureCritic, Prototypes
from homomorph.data.batches import Batch, PairedBatches
from homomorph.data.labels import LabelledPictures, label_balance, occurrence
from homomorph.data.loading import load_batches
from homomorph.errors import TrainingError
from homomorph.interruption import Interruption
from homomorph.label_features import fit_label_features, save_label_features
from homomorph.label_prior import LabelPrior
from homomorph.networks import MorphModel, interpolate
from homomorph.perceptual import Perceptual, SmallVgg, Vgg19, train_small_vgg
from homomorph.pixels import normalise
from homomorph.recipe import Preset, Recipe
from homomorph.run import save_model
from homomorph.state import begin, load_state, save_state
from homomorph.strips import group_strips

_log = logging.getLogger(__name__)

# Batches beyond the training steps' own numbers.
_PHI_BATCHES = 2**31
_STRIP_BATCH = 2**32


@dataclass(frozen=True)
class Progress:
    """What one step of training reports."""

    phase: str
    """`phi`, `warm-up`, `morphs` or `critics`."""
    step: int
    """Steps done in this phase's count."""
    steps: int
    """Steps that this phase's count goes up to."""
    terms: dict[str, float]
    """Unweighted value of each term."""
    pictures_per_s: float
    """Throughput since the last report."""


class Networks(nn.Module):
    """Everything that a step updates or reads; its state is the training state on disk."""

    def __init__(self, config: ModelConfig, phi: Perceptual) -> None:
        super().__init__()
        attributes, channels = len(config.attributes), config.network.feature_channels
        self.model = MorphModel(config)
        self.ema = MorphModel(config).eval().requires_grad_(False)
        self.ema.load_state_dict(self.model.state_dict())
        self.critic = FeatureCritic(channels, attributes)
        self.picture_critic = PictureCritic(attributes)
        self.guidance = Guidance(channels, phi.deep_channels)
        self.prototypes = Prototypes(config.groups, channels, config.feature_size)
        self.label_prior = LabelPrior(attributes, config.picture_size)
        self.phi = phi


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
    checkpoint_every: int = 500,
    workers: int = 1,
    max_bad_pictures: int | None = None,
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
        checkpoint_every: steps between checkpoints.
        workers: processes that read and augment pictures.
        max_bad_pictures: how many may be unreadable; by default one in a hundred, at least 10. Each is skipped with
            a warning, and the next one in the data stands in its place.

    Yields:
        A report after every step.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or there is nothing to resume, or it is another one.
        DataError: too many pictures cannot be read.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, after the last finished step has been written for `resume`.
        TrainingError: a term became NaN or infinite.
    """
    # Adam's second moments decay into denormal numbers, which a CPU handles a hundred times slower. numpy looks at them
    # once and would warn that there are none.
    np.finfo(np.float64)
    torch.set_flush_denormal(True)

    # Set up the networks, or read them back.
    torch.manual_seed(seed)
    config = ModelConfig(groups=data.groups, picture_size=preset.picture_size, network=preset.network)
    perceptual: Perceptual = (
        Vgg19(preset.network.picture_mean, preset.network.picture_std)
        if phi == "vgg19"
        else SmallVgg(len(config.attributes))
    )
    nets = Networks(config, perceptual).to(memory_format=torch.channels_last)
    optimizers = _optimizers(nets, preset, recipe)
    settings = settings_of(config, preset, recipe, steps, phi, seed)
    if resume:
        start = load_state(out, nets, optimizers, settings)
    else:
        start = 0
        begin(out)
    batches = PairedBatches(
        data,
        batch_size=preset.batch_size,
        picture_size=preset.picture_size,
        jitter=preset.jitter,
        seed=seed,
        max_bad_pictures=max_bad_pictures,
    )
    skipped: dict[int, str] = {}
    share = occurrence(data)
    balance = torch.from_numpy(label_balance(share))
    if constant := [name for name, value in zip(config.attributes, share, strict=True) if not 0 < value < 1]:
        _log.warning("nothing can be learned of labels that all pictures share: %s", ", ".join(constant))

    def normalised(batch: Batch) -> Tensor:
        pictures = normalise(batch.pictures, preset.network)
        return pictures.contiguous(memory_format=torch.channels_last)

    # Train Phi on the labels, unless it came with its weights.
    if phi == "small" and not resume:
        phi_range = range(_PHI_BATCHES, _PHI_BATCHES + preset.phi_steps)
        with contextlib.closing(load_batches(batches, phi_range, workers, skipped)) as loader:
            pairs = ((batch, normalised(batch)) for batch in loader)
            for step, loss in enumerate(train_small_vgg(perceptual, pairs, balance), start=1):  # type: ignore[arg-type]
                yield Progress("phi", step, preset.phi_steps, {"phi": loss}, 0.0)
    nets.phi.requires_grad_(False)

    # Train.
    saved = start if resume else None
    began = time.perf_counter()
    with (
        contextlib.closing(load_batches(batches, range(start, steps), workers, skipped)) as loader,
        SummaryWriter(out / "tensorboard", purge_step=start) as writer,
        Interruption() as interruption,
    ):
        for step, batch in enumerate(loader, start=start):
            if interruption.noted:
                save_model(out, nets.ema)
                save_state(out, nets, optimizers, step, settings)
                raise KeyboardInterrupt
            phase = phase_of(step / steps, recipe)
            _set_rates(optimizers, preset, step / steps)
            terms = _train_step(
                nets, optimizers, recipe, batch, normalised(batch), balance, step=step, seed=seed, phase=phase
            )
            _update_ema(nets, min(preset.ema, (step + 1) / (step + 10)))
            done = step + 1
            checkpoint = done % checkpoint_every == 0 or done == steps
            bad = [name for name, value in terms.items() if not np.isfinite(value)]
            # Terms are taken before the weights are updated; what is written must be sound itself.
            if checkpoint and not bad and not all(value.isfinite().all() for value in nets.ema.parameters()):
                bad = ["the weights"]
            if bad:
                raise TrainingError(_diverged(done, bad, out, saved))
            if done % 20 == 0:
                for name, value in terms.items():
                    writer.add_scalar(f"terms/{name}", value, done)
            if checkpoint:
                save_model(out, nets.ema)
                save_state(out, nets, optimizers, done, settings)
                saved = done
                strips = group_strips(nets.ema, batches[_STRIP_BATCH].pictures)
                writer.add_image("strips", strips, done, dataformats="HWC")
                Image.fromarray(strips).save(out / "strips.png")
            now = time.perf_counter()
            yield Progress(phase, done, steps, terms, preset.batch_size / (now - began))
            began = now
    save_label_features(out, fit_label_features(nets.ema, data))
    if skipped:
        _log.warning("%d of %d pictures could not be used and were skipped", len(skipped), len(data.paths))


def settings_of(config: ModelConfig, preset: Preset, recipe: Recipe, steps: int, phi: str, seed: int) -> dict[str, Any]:
    """Return what defines a run, as plain values; a run that goes on must have the same."""
    return {
        "model": config.to_dict(),
        "preset": dataclasses.asdict(preset),
        "recipe": dataclasses.asdict(recipe),
        "steps": steps,
        "phi": phi,
        "seed": seed,
    }


def _train_step(
    nets: Networks,
    optimizers: dict[str, torch.optim.Adam],
    recipe: Recipe,
    batch: Batch,
    pictures: Tensor,
    balance: Tensor,
    *,
    step: int,
    seed: int,
    phase: str,
) -> dict[str, float]:
    """One update of every network by its own terms only; returns each term's unweighted value."""
    model, groups = nets.model, nets.model.config.groups
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    source, target = batch.source, batch.target
    labels_a, labels_b = batch.labels[source], batch.labels[target]
    known_a, known_b = batch.known[source], batch.known[target]
    complete = batch.known.all(dim=1)
    whole_share = 1.0 if phase == "morphs" else recipe.whole_strengths
    strengths = draw_strengths(len(source), len(groups) + 1, generator, whole_share)
    labels_v, known_v = losses.mixed_labels(labels_a, labels_b, known_a, known_b, strengths[:, _label_columns(groups)])
    complete_v = known_v.all(dim=1)
    terms: dict[str, Tensor] = {}

    # Encode each picture once; everything below shares these features.
    encoded = model.encoder(pictures)
    features_a, features_b = encoded[source], encoded[target]

    # Reconstruction and knowledge guidance: E, D and P.
    with torch.no_grad():
        shallow = nets.phi.relu3_1(pictures)
        deep = nets.phi.relu5_1(shallow)
    reconstructed = model.decoder(encoded + _noise(encoded, recipe, generator))
    terms["pixel"] = losses.pixel_loss(reconstructed, pictures)
    terms["phi3"] = losses.relative_error(nets.phi.relu3_1(reconstructed), shallow)
    terms["guidance"] = losses.relative_error(nets.guidance(encoded, deep.shape[2:]), deep)
    loss = recipe.l_recon * (terms["phi3"] + recipe.l_pixel * terms["pixel"]) + recipe.l_kg * terms["guidance"]
    if recipe.l_scale > 0:
        terms["scale"] = losses.scale_loss(features_b - features_a)
        loss = loss + recipe.l_scale * terms["scale"]

    # The decomposition of d: what T_i may carry (E and T_i), and that all together reach b (T_i).
    deltas = model.deltas(features_a, features_b)
    if recipe.l_projection > 0:
        difference, change = features_b - features_a, labels_b - labels_a
        sizes = [len(names) for names in groups.values()]
        known_groups = torch.stack([part.all(dim=1) for part in (known_a & known_b).split(sizes, dim=1)], dim=1)
        terms["projection"] = losses.projection_loss(deltas[:, :-1], nets.prototypes(change), difference, known_groups)
        loss = loss + recipe.l_projection * terms["projection"]
    if recipe.l_residual > 0:
        terms["residual"] = losses.residual_loss(deltas[:, -1])
        loss = loss + recipe.l_residual * terms["residual"]
    detached_a, detached_b = features_a.detach(), features_b.detach()
    detached_deltas = model.deltas(detached_a, detached_b)
    terms["total"] = losses.total_loss(detached_a + detached_deltas.sum(dim=1), detached_b)
    loss = loss + recipe.l_total * terms["total"]

    # What labels say of pixels.
    if recipe.l_counterfactual > 0:
        mean, variance = nets.label_prior(batch.labels, batch.placement)
        terms["label_prior"] = losses.label_prior_loss(mean, variance, pictures, complete)
        loss = loss + terms["label_prior"]

    if phase != "warm-up":
        morphed = interpolate(features_a, deltas, strengths.unsqueeze(1)).squeeze(1)
        morphed_t = interpolate(detached_a, detached_deltas, strengths.unsqueeze(1)).squeeze(1)
        whole = ((strengths == 0) | (strengths == 1)).all(dim=1)

        # Morphs with whole strengths show what labels say of them, and nothing else of the picture changes.
        # What the morph starts from: a, or b where the residual branch has led there.
        base = torch.where(strengths[:, -1] == 1, target, source)
        told = whole & complete_v & complete[base]
        if recipe.l_counterfactual > 0 and told.any():
            shown = model.decoder(morphed[told])
            base = base[told]
            with torch.no_grad():
                changed = nets.label_prior(labels_v[told], batch.placement[base])
                wanted, weight = losses.counterfactual_target(pictures[base], mean[base], *changed)
            terms["counterfactual"] = losses.counterfactual_loss(shown, wanted, weight)
            loss = loss + recipe.l_counterfactual * terms["counterfactual"]

    if phase == "critics":
        # Dis and A' on features, several updates of their own.
        critic_noise = _noise(morphed, recipe, generator)
        fake, real = (morphed_t + critic_noise).detach(), (detached_a + critic_noise).detach()
        for _ in range(recipe.critic_steps):
            real_score, _unused = nets.critic(real)
            fake_score, logits = nets.critic(fake)
            mix = torch.rand(len(real), generator=generator)
            terms["wasserstein"] = losses.critic_loss(real_score, fake_score)
            terms["penalty"] = losses.gradient_penalty(lambda x: nets.critic(x)[0], real, fake, mix)
            terms["head"] = losses.attribute_loss(logits, labels_a, known_a, balance)
            critic_loss = terms["wasserstein"] + recipe.lambda_p * terms["penalty"] + terms["head"]
            _step(optimizers["critic"], critic_loss)
        # E and T_i against Dis, T_i against A'.
        with _frozen(nets.critic):
            fake_score = nets.critic(morphed + critic_noise)[0]
            # Without the anchor, the score of F_a counts for nothing.
            real_score = nets.critic(features_a + critic_noise)[0] if recipe.anchor > 0 else fake_score.detach()
            terms["gan"] = losses.generator_loss(fake_score, real_score, recipe.anchor)
            terms["homomorphism"] = losses.attribute_loss(nets.critic(morphed_t + critic_noise)[1], labels_v, known_v)
        loss = loss + recipe.l_gan * terms["gan"] + recipe.l_hom * terms["homomorphism"]

        # The critic on decoded pictures, then T_i and D against it.
        if recipe.l_picture > 0:
            decoded = model.decoder(morphed_t)
            judged, judged_v = complete.float(), (whole & complete_v).float()
            others = torch.randperm(len(pictures), generator=generator)
            wrong = batch.labels[others]
            mismatch = (wrong != batch.labels).any(dim=1) & complete & complete[others]
            terms["picture_critic"] = losses.hinge_critic_loss(
                nets.picture_critic(pictures, batch.labels, judged),
                nets.picture_critic(decoded.detach(), labels_v, judged_v),
                nets.picture_critic(pictures, wrong, judged)[mismatch],
            )
            _step(optimizers["picture_critic"], terms["picture_critic"])
            with _frozen(nets.picture_critic):
                terms["picture"] = -nets.picture_critic(decoded, labels_v, judged_v).mean()
            loss = loss + recipe.l_picture * terms["picture"]

    names = ("encoder", "branches", "decoder", "guidance", "prototypes", "label_prior")
    for name in names:
        optimizers[name].zero_grad(set_to_none=True)
    loss.backward()
    for name in names:
        nn.utils.clip_grad_norm_(optimizers[name].param_groups[0]["params"], 1.0)
        optimizers[name].step()
    return {name: value.item() for name, value in terms.items()}


def _noise(features: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Draw what features carry on their way to D and the critics; zeros where the recipe has none."""
    if recipe.feature_noise == 0:
        return torch.zeros_like(features)
    return recipe.feature_noise * torch.randn(features.shape, generator=generator)


def phase_of(done: float, recipe: Recipe) -> str:
    """Name the phase at this share of the steps: `warm-up`, `morphs` or `critics`."""
    return "warm-up" if done < recipe.warmup else "morphs" if done < recipe.critics else "critics"


def draw_strengths(pairs: int, branches: int, generator: torch.Generator, whole_share: float) -> Tensor:
    """Draw v for each pair, [pairs, branches].

    Uniform in [0, 1] per branch as published; but a share of the pairs, spread evenly, gets 0 or 1 per branch instead,
    with a random share of ones: whole changes, of whose pictures labels can say what they have to show.
    """
    uniform = torch.rand(pairs, branches, generator=generator)
    ones = torch.rand(pairs, 1, generator=generator)
    whole = (torch.rand(pairs, branches, generator=generator) < ones).float()
    count = (torch.arange(pairs + 1) * whole_share).floor()
    return torch.where((count[1:] > count[:-1]).unsqueeze(1), whole, uniform)


def _label_columns(groups: dict[str, tuple[str, ...]]) -> list[int]:
    """For each label, the column of its group's strength."""
    return [column for column, names in enumerate(groups.values()) for _ in names]


class _frozen:
    """Let gradients pass through a network without reaching its own parameters."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __enter__(self) -> None:
        self.network.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        self.network.requires_grad_(True)


def _diverged(step: int, bad: list[str], out: Path, saved: int | None) -> str:
    """Say where a run went wrong, and what is left of it."""
    kept = f"{out} keeps the checkpoint of step {saved}" if saved else "there is no checkpoint yet"
    return (
        f"step {step}: {', '.join(bad)} became NaN or infinite; {kept}. --resume would come to the same: "
        "start a new run with another --seed"
    )


def _step(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _optimizers(nets: Networks, preset: Preset, recipe: Recipe) -> dict[str, torch.optim.Adam]:
    """Adam for each network; D always keeps the default betas."""

    def adam(network: nn.Module, rate: float, beta: float) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), rate, betas=(beta, 0.999), fused=True)

    return {
        "encoder": adam(nets.model.encoder, preset.learning_rate, recipe.beta1),
        "branches": adam(nets.model.branches, preset.learning_rate, recipe.beta1),
        "decoder": adam(nets.model.decoder, preset.learning_rate, 0.9),
        "guidance": adam(nets.guidance, preset.critic_learning_rate, 0.5),
        "label_prior": adam(nets.label_prior, preset.learning_rate, 0.9),
        "prototypes": adam(nets.prototypes, 10 * preset.critic_learning_rate, 0.9),
        "critic": adam(nets.critic, preset.critic_learning_rate, 0.5),
        "picture_critic": adam(nets.picture_critic, preset.critic_learning_rate, 0.5),
    }


def _set_rates(optimizers: dict[str, torch.optim.Adam], preset: Preset, done: float) -> None:
    """Let the rates of what is served fall along a cosine, from 1 to a twentieth."""
    share = 0.05 + 0.95 * (1 + np.cos(np.pi * done)) / 2
    for name in ("encoder", "branches", "decoder", "label_prior"):
        optimizers[name].param_groups[0]["lr"] = preset.learning_rate * share


@torch.no_grad()
def _update_ema(nets: Networks, decay: float) -> None:
    for mean, value in zip(nets.ema.parameters(), nets.model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
    # BatchNorm's statistics are running means already.
    for kept, current in zip(nets.ema.buffers(), nets.model.buffers(), strict=True):
        kept.copy_(current)
