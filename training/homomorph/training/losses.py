"""Functions that the losses of several methods share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """sum(weights * values) / sum(weights), 0 where all weights are 0; weights are broadcast.

    Values whose weight is 0 may be anything but NaN and infinity.
    """
    weights = weights.expand_as(values)
    return (weights * values).sum() / weights.sum().clamp(min=1e-6)


def attribute_loss(logits: Tensor, labels: Tensor, counts: Tensor, balance: Tensor | None = None) -> Tensor:
    """-z log A - (1 - z) log(1 - A), the cross-entropy of a classifier A of labels z.

    Args:
        logits: of A, [B, L].
        labels: z in [0, 1], [B, L].
        counts: weight of each label, 0 where it is unknown, [B, L].
        balance: factors for labels that are 0 and that are 1, so that rare ones are learned too, [2, L]; 1 by default.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if balance is not None:
        entropy = entropy * (balance[0] + labels * (balance[1] - balance[0]))
    return weighted_mean(entropy, counts)
