"""CycleGAN's terms, each a pure function of tensors (Zhu et al., ICCV 2017, section 3).

Notation: G adds the attribute, F takes it away; x lacks it, y has it; Dis_Y judges G(x) against y.
"""

from __future__ import annotations

from torch import Tensor


def adversarial_loss(scores: Tensor, *, real: bool) -> Tensor:
    """mean (Dis - 1)^2 where pictures are real or shall pass as such, else mean Dis^2.

    (Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017.)

    Args:
        scores: of patches, any shape.
        real: whether the pictures are real, or should pass as real.
    """
    return (scores.float() - float(real)).square().mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """(mean (Dis(y) - 1)^2 + mean Dis(G(x))^2) / 2: halved, so that Dis learns at half of G's pace.

    Args:
        real: scores of real pictures' patches, any shape.
        fake: scores of generated ones', from the pool.
    """
    return (adversarial_loss(real, real=True) + adversarial_loss(fake, real=False)) / 2


def cycle_loss(there_and_back: Tensor, picture: Tensor) -> Tensor:
    """|F(G(x)) - x|_1: the way there and back restores the picture."""
    return (there_and_back - picture).abs().mean()


def identity_loss(unchanged: Tensor, picture: Tensor) -> Tensor:
    """|G(y) - y|_1: a picture that has the attribute already stays as it is, and keeps its colours."""
    return (unchanged - picture).abs().mean()
