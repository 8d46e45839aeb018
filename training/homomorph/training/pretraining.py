"""Trains what the morphs' training looks through: the small Phi, and the label prior."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from homomorph.data.batches import Batch
from homomorph.models.label_prior import LabelPrior
from homomorph.models.perceptual import SmallVgg
from homomorph.training.losses import attribute_loss, label_prior_loss
from homomorph.training.parallel import Processes


def train_small_vgg(
    network: SmallVgg,
    batches: Iterable[tuple[Batch, Tensor]],
    balance: Tensor,
    processes: Processes,
    *,
    learning_rate: float = 1e-3,
) -> Iterator[float]:
    """Train on labels, one step per batch; yields each step's binary cross-entropy per label (chance: 0.69).

    `balance` is `attribute_loss`'s.
    """
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    for batch, pictures in batches:
        loss = attribute_loss(network.logits(pictures), batch.labels, batch.known, balance)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        processes.average_gradients(network.parameters())
        optimizer.step()
        yield processes.average({"phi": loss.item()}, ["phi"])["phi"]


def train_label_prior(
    network: LabelPrior,
    batches: Iterable[tuple[Batch, Tensor]],
    steps: int,
    processes: Processes,
    *,
    learning_rate: float = 2e-3,
) -> Iterator[float]:
    """Train on pictures and their labels, one step per batch; only pictures whose labels are all known count.

    Args:
        network: trained in place.
        batches: of `steps` batches, each with its normalised pictures [B, 3, H, W].
        steps: how many there are.
        processes: this process among those that train.
        learning_rate: Adam's; it rises for a twentieth of the steps and falls along a cosine.

    Yields:
        Each step's loss.
    """
    optimizer = torch.optim.Adam(network.parameters(), learning_rate, fused=True)
    for step, (batch, pictures) in enumerate(batches):
        share = 0.05 + 0.95 * (1 + np.cos(np.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = learning_rate * share * min(1.0, 20 * (step + 1) / steps)
        with processes.autocast():
            mean, variance = network(batch.labels, batch.placement)
            loss = label_prior_loss(mean, variance, pictures, batch.known.all(dim=1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        processes.average_gradients(network.parameters())
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        yield processes.average({"label_prior": loss.item()}, ["label_prior"])["label_prior"]
