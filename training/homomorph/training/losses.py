"""Every term of training, each a pure function of tensors, with its equation.

Notation: F_a, F_b are E's features of a and b, d = F_b - F_a, T_i the branches, F = F_a + sum_i v_i T_i(d).
Terms are means over elements unless they say otherwise. (HomoInterpGAN, Chen et al., CVPR 2019, and the
identities that a homomorphic decomposition of d has to obey.) Terms that use labels take the mean over what is known;
where nothing is known they are 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_TOLERATED = 0.05
"""Variance of a target's pixel, in normalised units, at which it counts half. The prior is least sure along edges, and
a brow is all edge: with a fifth of this, brows hardly counted."""


def critic_loss(real_score: Tensor, fake_score: Tensor) -> Tensor:
    """E[Dis(F)] - E[Dis(F_a)], minimised by the critic (Wasserstein GAN)."""
    return fake_score.mean() - real_score.mean()


def generator_loss(fake_score: Tensor, real_score: Tensor, anchor: float) -> Tensor:
    """-E[Dis(F)] + anchor * E[Dis(F_a)], minimised by E and the T_i.

    The published loss has no anchor. Dis tells F from F_a, so only the difference of the scores means anything; E,
    which makes both, can raise the first for ever by shifting all features, and does.
    """
    return anchor * real_score.mean() - fake_score.mean()


def gradient_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E[(|grad Dis(x)|_2 - 1)^2] at x = mix * real + (1 - mix) * fake (Gulrajani et al., 2017).

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


def attribute_loss(logits: Tensor, labels: Tensor, known: Tensor, balance: Tensor | None = None) -> Tensor:
    """-z log A' - (1 - z) log(1 - A'): with z_a it trains the head on F, with z_v it trains the T_i (homomorphism).

    Args:
        logits: of A', [B, L].
        labels: in [0, 1], [B, L].
        known: which labels count, bool [B, L].
        balance: what each label counts where it is 0 and where it is 1, [2, L]; 1 by default.
    """
    counted = logits[known]
    if not len(counted):
        return counted.sum()
    weight = None if balance is None else (balance[0] + labels * (balance[1] - balance[0]))[known]
    return F.binary_cross_entropy_with_logits(counted, labels[known], weight)


def concealment_loss(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """KL(p || A): what a reader A says of a label beyond how often it occurs, p, among the pictures of the batch.

    0 where it knows no more of a picture than of any other; unlike -log(1 - A(z)), nothing is gained by having it say
    the opposite, which is as good as the truth. (Lample et al., "Fader Networks", NeurIPS 2017, ask for the opposite.)

    Args:
        logits: of the reader, [B, L].
        labels: in [0, 1], [B, L].
        known: which labels count, bool [B, L].
    """
    often = (_mean_where(labels, known, (0,))).expand_as(labels)
    said = F.binary_cross_entropy_with_logits(logits, often, reduction="none")
    least = torch.special.entr(often) + torch.special.entr(1 - often)
    return _mean_where(said - least, known, (0, 1))


def mixed_labels(
    labels_a: Tensor, labels_b: Tensor, known_a: Tensor, known_b: Tensor, strengths: Tensor
) -> tuple[Tensor, Tensor]:
    """z_v = z_a + v (z_b - z_a), and where it is known: z_a does not count where v = 1, nor z_b where v = 0.

    Args:
        labels_a: 0/1, [B, L].
        labels_b: the same.
        known_a: which of a's labels are known, bool [B, L].
        known_b: the same of b's.
        strengths: v of each label's group, [B, L].

    Returns:
        z_v [B, L], and bool [B, L].
    """
    mixed = labels_a + strengths * (labels_b - labels_a)
    return mixed, (known_a | (strengths == 1)) & (known_b | (strengths == 0))


def relative_error(value: Tensor, target: Tensor) -> Tensor:
    """mean (value - target)^2 / mean target^2, the target held fixed: comparable between networks and layers."""
    target = target.detach()
    return (value - target).square().mean() / (target.square().mean() + 1e-6)


def pixel_error(picture: Tensor, target: Tensor) -> Tensor:
    """|x - t|_1 + |x - t|^2 of each pixel, means over colours: the first keeps edges in check, the second large errors.

    Args:
        picture: [B, 3, H, W].
        target: the same.

    Returns:
        [B, 1, H, W].
    """
    difference = picture - target
    return (difference.abs() + difference.square()).mean(dim=1, keepdim=True)


def total_loss(complete: Tensor, target: Tensor) -> Tensor:
    """|F(v=1) - F_b|^2: all groups together reach b."""
    return (complete - target.detach()).square().mean()


def projection_loss(deltas: Tensor, expected: Tensor, difference: Tensor, known: Tensor) -> Tensor:
    """mean_i U_i / |T_i(d)|^2 + sum_i U_i / |d|^2, with U_i = |T_i(d) - (c_i(z_b) - c_i(z_a))|^2.

    U_i is what group i's labels do not explain of what T_i carries; the c_i are learned prototypes of the labels. So
    T_i(d) = 0 wherever a and b have the same labels in group i, and what other groups change T_i may not carry. The
    first part presses as hard on a branch that carries little as on one that carries much, or all branches would
    share d evenly; the second keeps one branch from carrying everything at the price of its own share.

    Args:
        deltas: T_i(d) of the labelled groups, [B, G, C, h, w].
        expected: differences of prototypes, same shape.
        difference: d, [B, C, h, w].
        known: of which pairs all labels of group i are known, bool [B, G]; the others say nothing of T_i.
    """
    counts = known.view(*known.shape, 1, 1, 1)
    unexplained = _mean_where((deltas - expected).square(), counts, (0, 2, 3, 4))
    carried = _mean_where(deltas.square(), counts, (0, 2, 3, 4))
    share = (unexplained / (carried + 1e-6)).mean()
    return share + unexplained.sum() / (difference.detach().square().mean() + 1e-6)


def residual_loss(delta: Tensor) -> Tensor:
    """|T_residual(d)|^2: a price on the residual branch, so that what a label names goes through its own branch."""
    return delta.square().mean()


def scale_loss(difference: Tensor) -> Tensor:
    """(log mean d^2 / 2)^2: features keep unit variance, so that weights and noise mean the same all along."""
    return (difference.square().mean() / 2 + 1e-8).log().square()


def hinge_critic_loss(real: Tensor, fake: Tensor, mismatched: Tensor) -> Tensor:
    """max(0, 1 - real) + (max(0, 1 + fake) + max(0, 1 + mismatched)) / 2; real with wrong labels counts as fake.

    There may be none with wrong labels.
    """
    wrong = F.relu(1 + mismatched).mean() if len(mismatched) else mismatched.sum()
    return F.relu(1 - real).mean() + 0.5 * (F.relu(1 + fake).mean() + wrong)


def label_prior_loss(mean: Tensor, variance: Tensor, picture: Tensor, known: Tensor) -> Tensor:
    """|mu - a|_1 + |mu - a|^2 + (log sigma^2 + |mu - a|^2 / sigma^2) / 2: what labels say of pixels, and how surely.

    The variance is fitted to the mean's errors, it does not weigh them: pixels that are hard at first would never be
    learned. (Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation", ICLR 2022.)

    Args:
        mean: [B, 3, H, W].
        variance: positive, [B, 1, H, W].
        picture: real pictures, [B, 3, H, W].
        known: of which pictures all labels are known, bool [B].
    """
    counts = known.view(-1, 1, 1, 1)
    difference = mean - picture
    error = difference.detach().square().mean(dim=1, keepdim=True)

    def average(values: Tensor) -> Tensor:
        return _mean_where(values, counts, (0, 1, 2, 3))

    return average(difference.abs()) + average(difference.square()) + 0.5 * average(variance.log() + error / variance)


def counterfactual_target(
    picture: Tensor, mean: Tensor, changed_mean: Tensor, changed_variance: Tensor
) -> tuple[Tensor, Tensor]:
    """What a picture would be with other labels, and how surely, pixel by pixel.

    Two Gaussians are multiplied: the pixel stays as it is, with the variance (mu(z') - mu(z))^2; and it is what the
    labels make it, mu(z') with the variance sigma^2(z').

    Args:
        picture: [B, 3, H, W], with labels z.
        mean: mu(z), [B, 3, H, W].
        changed_mean: mu(z'), [B, 3, H, W].
        changed_variance: sigma^2(z'), [B, 1, H, W].

    Returns:
        Target [B, 3, H, W], and its weight in [0, 1], [B, 1, H, W].
    """
    stays = (changed_mean - mean).square().mean(dim=1, keepdim=True) + 1e-5
    share = stays / (stays + changed_variance)
    target = picture + share * (changed_mean - picture)
    variance = share * changed_variance
    return target, _TOLERATED / (_TOLERATED + variance)


def attention(mean: Tensor, changed_mean: Tensor) -> Tensor:
    """c = s / its sum over the picture, s = D / (D + 0.05), D = |mu(z') - mu(z)|^2: where a change of labels shows.

    Where, and not how much: a brow on dark skin counts as a mouth does.

    Args:
        mean: mu(z), [N, 3, H, W], normalised.
        changed_mean: mu(z'), [N, 3, H, W].

    Returns:
        [N, 1, H, W], with a sum of 1 over each picture.
    """
    change = (changed_mean - mean).square().mean(dim=1, keepdim=True)
    shows = change / (change + 0.05) + 1e-8
    return shows / shows.sum(dim=(1, 2, 3), keepdim=True)


def detail_loss(error: Tensor, shows: Tensor, attended: Tensor) -> Tensor:
    """sum_l e_l^2 / sum_l e_l with e_l = sum(c_l e): a picture's error where label l shows, with c_l of `attention`.

    Averaged over all pixels, whether a brow is raised would hardly count. So each label is looked at where it shows,
    whatever its size, and the worse it is, the more it counts (the e_l that weigh are held fixed).

    Args:
        error: of B pictures, [B, 1, H, W].
        shows: in which picture each label is looked at, [N], each below B.
        attended: the c_l, [N, 1, H, W].
    """
    # Not error[shows]: its gradient adds up in whatever order threads come, and no run could be repeated.
    shown = (attended * error.index_select(0, shows)).sum(dim=(1, 2, 3))
    return (shown.detach() * shown).sum() / (shown.detach().sum() + 1e-6)


def counterfactual_loss(
    picture: Tensor, target: Tensor, weight: Tensor, shows: Tensor, attended: Tensor, focus: float
) -> Tensor:
    """w e, averaged over pixels, plus focus times the `detail_loss` of w e.

    e is `pixel_error`, with t and w of `counterfactual_target`, for v in {0, 1}. All labels that differ in a pair are
    looked at, those with v = 0 too: there it has to change, or else to stay.

    Args:
        picture: D(F), [B, 3, H, W].
        target: t, [B, 3, H, W].
        weight: w, [B, 1, H, W].
        shows: in which picture each label is looked at, [N], each below B.
        attended: the c_l, [N, 1, H, W].
        focus: what these places count.
    """
    error = weight * pixel_error(picture, target)
    return error.mean() + focus * detail_loss(error, shows, attended)


def path_loss(distances: Tensor, step: float, direct: Tensor) -> Tensor:
    """sqrt(mean_k (d_k / (step d(first, last)))^4): speed on a path, whose largest values count.

    d is the mean absolute difference of pixels. Among all ways to walk from a to b in unit time, a geodesic at constant
    speed has the least energy, which is the same mean with an exponent of 2 (Arvanitidis et al., "Latent Space Oddity",
    ICLR 2018); with 4, a burst that fills one frame of a sequence counts, and in the perceptual distances that are
    squares this is the energy. The root is taken for each path, or one with a burst would outweigh all others.

    It is looked at in steps as short as those of a sequence, as a longer one hides what happens within: D stands still
    near pictures that it was trained to reconstruct, and hurries on where it leaves them.

    In this metric every way is a shortest one on which no pixel turns back: an edge that moves costs as much as a
    picture that fades into the other, and which of them it is, is left to what makes a picture believable. A
    Euclidean one would ask for the fading. (Distances of features can be fooled: D draws dots that shorten the way.)

    Args:
        distances: d over each of K steps, [B, K].
        step: their duration, of the whole way's 1.
        direct: d between the first frame and the last, [B]. Not held fixed: what the way loses by stopping short of its
            end, it must not gain.
    """
    energy = distances.square() / (step**2 * (direct.square() + 1e-3).unsqueeze(1))
    return (energy.square().mean(dim=1) + 1e-6).sqrt().mean()


def pace_loss(distances: Tensor) -> Tensor:
    """sqrt(mean_k (d_k / mean_k d)^2), 1 where all steps of a path look equally large: evenness, whatever the length.

    d is `perceptual_distance`, a square of speed, so that this is `path_loss`'s power. That one, in pixels, also asks
    for a short way. Here nothing is gained by one: what D could draw to make pictures look alike does not help.

    Args:
        distances: d over each of K steps of equal duration, [B, K].
    """
    relative = distances / (distances.mean(dim=1, keepdim=True) + 1e-8)
    return (relative.square().mean(dim=1) + 1e-6).sqrt().mean()


def agreement_loss(frames: Tensor, picture_a: Tensor, picture_b: Tensor) -> Tensor:
    """w (|D(F) - m|_1 + |D(F) - m|^2), averaged over pixels, with m = (a + b) / 2 and w = exp(-100 |a - b|^2).

    Where a and b show the same, as a white background, every frame on the way shows it too.

    Args:
        frames: all strengths equal, [P, S, 3, H, W].
        picture_a: [P, 3, H, W].
        picture_b: the same.
    """
    agreeing = torch.exp(-100 * (picture_a - picture_b).square().mean(dim=1, keepdim=True)).unsqueeze(1)
    difference = frames - ((picture_a + picture_b) / 2).unsqueeze(1)
    return (agreeing * (difference.abs() + difference.square())).mean()


def _mean_where(values: Tensor, counts: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean over `dims` of the values that count; 0 where none does.

    Args:
        values: [B, ...].
        counts: bool, of the same shape but for sides of 1.
        dims: what the mean is taken over.
    """
    counted = counts.expand_as(values)
    # What does not count may be anything, NaN too.
    return values.where(counted, 0).sum(dim=dims) / counted.sum(dim=dims).clamp(min=1)
