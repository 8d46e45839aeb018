"""One training step with the published recipe's terms and updates, in the order of work of HomoInterpGAN's public code.

That code updates D, Dis, P, and E with the T_i one after the other, and for each update computes anew what it needs:

- every update of Dis encodes the batch and applies all T_i anew; five of them precede one of E and the T_i;
- the perceptual loss and the teacher of the guidance are two VGG-19s, with gradients for their own weights, and either
  runs up to relu5_1 whatever is wanted of it; pictures pass them again for every update;
- D is applied once for its own update and once for that of E;
- the updates of D and P send their gradients on through E, where they are dropped.

A step here has the updates of one step of `homomorph train`, and from the same weights and batch the same values of all
terms. The public code does more still, and that is left out: it updates D and P beside every update of Dis.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from homomorph.data.batches import Batch
from homomorph.models.critics import FeatureCritic
from homomorph.models.morph import interpolate
from homomorph.models.perceptual import Perceptual
from homomorph.training import losses
from homomorph.training.draws import draw_strengths
from homomorph.training.networks import Networks
from homomorph.training.recipe import PUBLISHED


def published_step(
    nets: Networks,
    optimizers: Mapping[str, torch.optim.Optimizer],
    batch: Batch,
    pictures: Tensor,
    balance: Tensor,
    *,
    step: int,
    seed: int,
) -> dict[str, float]:
    """Update every network once, Dis five times.

    Args:
        nets: what is updated. Phi's weights get gradients too, as in the public code, and keep their values.
        optimizers: the trainer's, by the names of what they update.
        batch: labels and pairs.
        pictures: the batch's, normalised, [B, 3, H, W].
        balance: what each label counts for the attribute head, [2, L].
        step: with the seed, decides the strengths and the points of the gradient penalty, as in the trainer.
        seed: of the run.

    Returns:
        Each term's unweighted value, before the update that it is for.
    """
    recipe, model, groups = PUBLISHED, nets.model, nets.model.config.groups
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    source, target = batch.source, batch.target
    labels_a, labels_b = batch.labels[source], batch.labels[target]
    known_a, known_b = batch.known[source], batch.known[target]
    strengths = draw_strengths(len(source), len(groups) + 1, generator, recipe.whole_strengths)
    columns = [column for column, names in enumerate(groups.values()) for _ in names]
    labels_v, known_v = losses.mixed_labels(labels_a, labels_b, known_a, known_b, strengths[:, columns])
    terms: dict[str, Tensor] = {}

    # Dis and A', each time on features and morphs of their own.
    for _ in range(recipe.critic_steps):
        features = model.encoder(pictures)
        features_a, features_b = features[source], features[target]
        morphed = interpolate(features_a, model.deltas(features_a, features_b), strengths.unsqueeze(1)).squeeze(1)
        mix = torch.rand(len(source), generator=generator)
        nets.zero_grad()
        terms |= critic_terms(nets.critic, features_a.detach(), morphed.detach(), mix, labels_a, known_a, balance)
        critic_loss(terms).backward()
        optimizers["critic"].step()

    # D.
    nets.zero_grad()
    terms |= _reconstruction(nets, features, pictures)
    _reconstruction_loss(terms).backward(retain_graph=True)
    _clip_and_step(optimizers["decoder"])

    # P.
    nets.zero_grad()
    terms["guidance"] = _guidance(nets, features, pictures)
    (recipe.l_kg * terms["guidance"]).backward(retain_graph=True)
    _clip_and_step(optimizers["guidance"])

    # E and the T_i. What only the T_i are to learn starts from features that E gets no gradient from.
    nets.zero_grad()
    detached_a, detached_b = features_a.detach(), features_b.detach()
    deltas = model.deltas(detached_a, detached_b)
    morphed_t = interpolate(detached_a, deltas, strengths.unsqueeze(1)).squeeze(1)
    terms["gan"] = -nets.critic(morphed)[0].mean()
    terms["homomorphism"] = losses.attribute_loss(nets.critic(morphed_t)[1], labels_v, known_v)
    terms["total"] = losses.total_loss(detached_a + deltas.sum(dim=1), detached_b)
    loss = (
        _reconstruction_loss(_reconstruction(nets, features, pictures))
        + recipe.l_kg * _guidance(nets, features, pictures)
        + recipe.l_gan * terms["gan"]
        + recipe.l_hom * terms["homomorphism"]
        + recipe.l_total * terms["total"]
    )
    loss.backward()
    for name in ("encoder", "branches"):
        _clip_and_step(optimizers[name])
    return {name: value.item() for name, value in terms.items()}


def critic_terms(
    critic: FeatureCritic,
    real: Tensor,
    fake: Tensor,
    mix: Tensor,
    labels: Tensor,
    known: Tensor,
    balance: Tensor,
) -> dict[str, Tensor]:
    """Return what Dis and A' minimise.

    Args:
        critic: Dis and A'.
        real: F_a, [B, C, h, w].
        fake: F, the same shape.
        mix: where between them the gradient is looked at, in [0, 1], [B].
        labels: z_a, [B, L].
        known: which of them are known, bool [B, L].
        balance: what each label counts, [2, L].
    """
    fake_score, logits = critic(fake)
    return {
        "wasserstein": losses.critic_loss(critic(real)[0], fake_score),
        "penalty": losses.gradient_penalty(lambda point: critic(point)[0], real, fake, mix),
        "head": losses.attribute_loss(logits, labels, known, balance),
    }


def critic_loss(terms: Mapping[str, Tensor]) -> Tensor:
    """Weigh the terms of `critic_terms`."""
    return terms["wasserstein"] + PUBLISHED.lambda_p * terms["penalty"] + terms["head"]


def whole_phi(phi: Perceptual, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return relu3_1 and relu5_1 of normalised pictures [B, 3, H, W]; the public code always computes both."""
    shallow = phi.relu3_1(pictures)
    return shallow, phi.relu5_1(shallow)


def _reconstruction(nets: Networks, features: Tensor, pictures: Tensor) -> dict[str, Tensor]:
    decoded = nets.model.decoder(features)
    shown, _unused = whole_phi(nets.phi, decoded)
    wanted, _unused = whole_phi(nets.phi, pictures)
    return {"pixel": losses.pixel_error(decoded, pictures).mean(), "phi3": losses.relative_error(shown, wanted)}


def _reconstruction_loss(terms: Mapping[str, Tensor]) -> Tensor:
    return PUBLISHED.l_recon * (terms["phi3"] + PUBLISHED.l_pixel * terms["pixel"])


def _guidance(nets: Networks, features: Tensor, pictures: Tensor) -> Tensor:
    _unused, deep = whole_phi(nets.phi, pictures)
    return losses.relative_error(nets.guidance(features, deep.shape[2:]), deep)


def _clip_and_step(optimizer: torch.optim.Optimizer) -> None:
    """Update as the trainer does, gradients shortened to 1."""
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
