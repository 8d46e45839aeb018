"""The losses of the default recipe, each a pure function of tensors, with its equation.

Notation: F_a, F_b are E's features of a and b, d = F_b - F_a, T_i the branches, F = F_a + sum_i v_i T_i(d), C the
critic. Pictures are normalised. Terms are means; where a weight says what counts, means over what counts, and 0 where
nothing does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from homomorph.training.losses import weighted_mean

_WINDOW = 5
"""Side of the windows, in pixels, in which a frame is compared with both ends of its way."""
_FEW_PIXELS = 20.0
"""Pixels added to those in which a and b differ, so that a handful of them counts less than a mouth."""
_FULL_WEIGHT = 0.3
"""Distance between both ends, in normalised units, from which a place counts fully for symmetry."""


def reconstruction_loss(picture: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """w (|e| + 2 e^2) + |mean of e over 4x4 pixels| / 2 + |differences of e between neighbours| / 2.

    e = picture - target. e^2 counts most where something is missing altogether, such as a mouth; the third part, errors
    that whole regions share, such as a grey white; the last one, edges.

    Args:
        picture: D(E(x)), [B, 3, H, W].
        target: x, the same shape.
        weight: w, what each place counts, [B, 1, H, W].
    """
    error = picture - target
    regions = F.avg_pool2d(error, 4).abs().mean()
    edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) / 2
    return (weight * _pixel_error(error)).mean() + 0.5 * regions + 0.5 * edges


def _pixel_error(error: Tensor) -> Tensor:
    """|e| + 2 e^2 of each value."""
    return error.abs() + 2 * error.square()


def arrive_loss(
    whole: Tensor, picture_a: Tensor, picture_b: Tensor, counts: Tensor, weight: Tensor, focus: float
) -> Tensor:
    """Mean of w (|e| + 2 e^2), plus `focus` times the mean of |e| + 2 e^2 where a and b differ; e = W - b.

    W is a's whole frame with all labels of b.

    Args:
        whole: W, [P, 3, H, W].
        picture_a: [P, 3, H, W].
        picture_b: [P, 3, H, W].
        counts: 1 for pairs whose frame has all labels of b, else 0, [P].
        weight: w, what each place of b counts, [P, 1, H, W].
        focus: what the second part counts.
    """
    error = _pixel_error(whole - picture_b).mean(dim=1)
    differs = ((picture_a - picture_b).abs().mean(dim=1) / 0.2).clamp(max=1)
    where_different = (error * differs).sum(dim=(1, 2)) / (differs.sum(dim=(1, 2)) + _FEW_PIXELS)
    everywhere = (weight[:, 0] * error).mean(dim=(1, 2))
    return weighted_mean(everywhere + focus * where_different, counts)


def real_loss(logits: Tensor) -> Tensor:
    """softplus(-C): the critic takes the pictures for real (Goodfellow et al., 2014, non-saturating); logits [B]."""
    return F.softplus(-logits).mean()


def fake_loss(logits: Tensor) -> Tensor:
    """softplus(C): the critic takes the pictures for morphs; logits [B]."""
    return F.softplus(logits).mean()


def conditional_loss(logits: Tensor, counts: Tensor, *, real: bool) -> Tensor:
    """softplus(-+C_{l, z_l}), label by label: the pictures pass, or do not, for real ones with these labels.

    Args:
        logits: of the critic for each label's value, [B, L].
        counts: weight of each label, 0 where it is unknown, [B, L].
        real: whether they shall pass.
    """
    return weighted_mean(F.softplus(-logits if real else logits), counts)


def gradient_penalty(score: Tensor, pictures: Tensor) -> Tensor:
    """E[|grad C(x)|^2] / 2 on real pictures (R1, Mescheder et al., ICML 2018).

    Args:
        score: sum of the logits that real pictures raise.
        pictures: real ones, [B, 3, H, W], with gradients.
    """
    (gradient,) = torch.autograd.grad(score, pictures, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


def keep_loss(morph: Tensor, picture: Tensor, counts: Tensor) -> Tensor:
    """|D(F) - a|: one group changes a picture as little as it can.

    Args:
        morph: D(F), [P, 3, H, W].
        picture: a, the same shape.
        counts: 1 for pairs of which one group alone moves, else 0, [P].
    """
    return weighted_mean((morph - picture).abs().mean(dim=(1, 2, 3)), counts)


def total_loss(source: Tensor, deltas: Tensor, target: Tensor) -> Tensor:
    """|F_a + sum_i T_i(d) - F_b| / |d|: all T_i together reach b.

    Gradients pass the divisor too. If it were held fixed, E would gain by making all features smaller.

    Args:
        source: F_a, [P, C, h, w].
        deltas: T_i(d), [P, K, C, h, w].
        target: F_b, [P, C, h, w].
    """
    return (source + deltas.sum(dim=1) - target).abs().mean() / (target - source).abs().mean().clamp(min=1e-6)


def _windowed(picture: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over colours and a window around each pixel: [P, 3, H, W] twice -> [P, 1, H, W]."""
    error = (picture - target).abs().mean(dim=1, keepdim=True)
    return F.avg_pool2d(error, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)


def front_loss(frame: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """mean of min(e_A, e_B): each place of a frame shows one end of its way or the other, and no ghost of both.

    e_A, e_B are the frame's errors to `before` and `after` in the window around each place.

    Args:
        frame: D(F) on the way, [P, 3, H, W].
        before: what it comes from, [P, 3, H, W].
        after: what it goes to, [P, 3, H, W].
    """
    return torch.minimum(_windowed(frame, before), _windowed(frame, after)).mean()


def share_loss(frame: Tensor, before: Tensor, after: Tensor, times: Tensor) -> Tensor:
    """(s - v)^2 with s = mean((x - A) sign(B - A)) / mean |B - A|: of all that changes, the share v has changed.

    Errors elsewhere, and in other directions than from A to B, do not count.

    Args:
        frame: x, [P, 3, H, W].
        before: A, [P, 3, H, W].
        after: B, [P, 3, H, W].
        times: v, [P]. Pairs whose ends are alike say little, and count less.
    """
    apart = (after - before).abs().mean(dim=(1, 2, 3))
    share = ((frame - before) * (after - before).sign()).mean(dim=(1, 2, 3)) / (apart + 1e-3)
    return weighted_mean((share - times).square(), (apart / 0.02).clamp(max=1))


def symmetry_loss(frame: Tensor, before: Tensor, after: Tensor, mirror: Tensor, counts: Tensor) -> Tensor:
    """mean of (s - s')^2: a place and its mirror image change together, both eyes and both halves of the glasses.

    s = sigmoid((e_A - e_B) / (e_AB / 8 + .01)) says how far a place has changed, with e_AB the distance of both ends
    there; s' is that of its mirror image. A place counts as much as it or its mirror image changes, whichever is less.

    Args:
        frame: D(F) on the way, [P, 3, H, W].
        before: what it comes from, [P, 3, H, W].
        after: what it goes to, [P, 3, H, W].
        mirror: where each place's mirror image lies, as `torch.nn.functional.affine_grid` takes it, [P, 2, 3].
        counts: which pairs count, 0 or 1, [P].
    """
    to_before, to_after, apart = (
        _windowed(first, second) for first, second in ((frame, before), (frame, after), (before, after))
    )
    changed = ((to_before - to_after) / (0.125 * apart + 0.01)).sigmoid()
    weight = apart.clamp(max=_FULL_WEIGHT)
    grid = F.affine_grid(mirror, list(changed.shape), align_corners=False)
    mirrored = F.grid_sample(torch.cat([changed, weight], dim=1), grid, align_corners=False)
    weight = torch.minimum(weight, mirrored[:, 1:]) * counts.view(-1, 1, 1, 1)
    return weighted_mean((changed - mirrored[:, :1]).square(), weight)


def mirror_of(placement: Tensor) -> Tensor:
    """Where the mirror image of each pixel of a moved picture lies, about the axis of the picture before it was moved.

    p -> P^-1 (flip (P p)) with P the placement: from a drawn place to the original's, mirrored there, and back.

    Args:
        placement: P, [B, 2, 3], as `torch.nn.functional.affine_grid` takes it.

    Returns:
        The same kind of map, [B, 2, 3].
    """
    bottom = torch.tensor([0.0, 0.0, 1.0], device=placement.device).expand(len(placement), 1, 3)
    whole = torch.cat([placement, bottom], dim=1)
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0], device=placement.device))
    mirrored: Tensor = torch.linalg.inv(whole) @ flip @ whole
    return mirrored[:, :2]
