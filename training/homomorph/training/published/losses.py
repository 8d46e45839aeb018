"""The losses of the published recipe, each a pure function of tensors, with its equation.

Notation: F_a, F_b are E's features of a and b, T_i the branches, F = F_a + sum_i v_i T_i(F_b - F_a). (HomoInterpGAN,
Chen et al., CVPR 2019, section 3.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def critic_loss(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """E[Dis(F)] - E[Dis(F_a)], minimised by the critic (Wasserstein GAN)."""
    return fake_score.mean() - real_score.mean()


def generator_loss(fake_score: Tensor) -> Tensor:
    """-E[Dis(F)], minimised by E and the T_i."""
    return -fake_score.mean()


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E[(|grad Dis(x)|_2 - 1)^2] at x = mix * real + (1 - mix) * fake (Gulrajani et al., NeurIPS 2017).

    Args:
        score: maps [B, ...] to [B].
        real: [B, ...].
        fake: [B, ...].
        mix: uniform in [0, 1], [B].
    """
    mix = mix.view(-1, *([1] * (real.dim() - 1)))
    point = (mix * real.detach() + (1 - mix) * fake.detach()).requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(point).sum(), point, create_graph=True)
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    penalty: Tensor = (norm - 1).square().mean()
    return penalty


def mixed_labels(
    labels: tuple[Tensor, Tensor], known: tuple[Tensor, Tensor], strengths: Tensor
) -> tuple[Tensor, Tensor]:
    """z_v = z_a + v (z_b - z_a), and where it is known.

    Args:
        labels: of a and of b, 0/1, [P, L] each.
        known: which of them are known, 0/1, [P, L] each.
        strengths: v of each label's group, [P, L].

    Returns:
        z_v, and 0/1 of where a's and b's labels are both known, [P, L] each.
    """
    return labels[0] + strengths * (labels[1] - labels[0]), known[0] * known[1]


def relative_error(value: Tensor, target: Tensor) -> Tensor:
    """mean (value - target)^2 / mean target^2, the target held fixed: comparable between networks and layers."""
    target = target.detach()
    return (value - target).square().mean() / (target.square().mean() + 1e-6)


def pixel_loss(picture: Tensor, target: Tensor) -> Tensor:
    """|e| + e^2 with e = picture - target: the first keeps edges in check, the second large errors."""
    error = picture - target
    return error.abs().mean() + error.square().mean()


def total_loss(complete: Tensor, target: Tensor) -> Tensor:
    """|F(v=1) - F_b|^2: all groups together reach b."""
    return (complete - target).square().mean()
