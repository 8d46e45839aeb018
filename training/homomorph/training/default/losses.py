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
"""Distance between both ends, in normalised units, from which a place counts fully among those that change."""
_GROUPS_APART = 100.0
"""Multiple of a group's mean key that is added to the keys of its places, so that no two groups change at once."""
_SURROUNDINGS, _PART = 0.25, 0.125
"""Sides of the windows, as shares of a picture's height, that say whether a place gets lighter, and what changes with
it."""


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
    return _smooth((picture - target).abs().mean(dim=1, keepdim=True), _WINDOW)


def _smooth(values: Tensor, side: int) -> Tensor:
    """Mean over a window around each pixel, of that part of it that lies within the picture: [P, 1, H, W]."""
    return F.avg_pool2d(values, side, stride=1, padding=side // 2, count_include_pad=False)


def front_loss(frame: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """mean of min(e_A, e_B): each place of a frame shows one end of its way or the other, and no ghost of both.

    e_A, e_B are the frame's errors to `before` and `after` in the window around each place.

    Args:
        frame: D(F) on the way, [P, 3, H, W].
        before: what it comes from, [P, 3, H, W].
        after: what it goes to, [P, 3, H, W].
    """
    return torch.minimum(_windowed(frame, before), _windowed(frame, after)).mean()


def sweep_loss(frame: Tensor, before: Tensor, after: Tensor, times: Tensor, parts: Tensor) -> Tensor:
    """mean |x - M|: places change one after the other. M is B where the turn of a place is below v, else A.

    Args:
        frame: x, [P, 3, H, W].
        before: A, [P, 3, H, W].
        after: B, [P, 3, H, W].
        times: v, [P].
        parts: how much each of N groups changes each place, [P, N, H, W].
    """
    changed = turns(before, after, parts) < times.view(-1, 1, 1, 1)
    return (frame - torch.where(changed, after, before)).abs().mean()


def turns(before: Tensor, after: Tensor, parts: Tensor) -> Tensor:
    """The strength at which each place changes from A to B.

    The groups change one after the other, each in a slot of its own, because a picture with new glasses and old hair is
    believable and one with half of both is not. A slot is as wide as the root of the group's share of the change: hair,
    most of the change, then takes less of the way than its share. Within a slot, places that get darker change from top
    to bottom, and places that get lighter from bottom to top: hair grows down and recedes up. The turns from B to A are
    one minus those from A to B, because F is linear in v: both ways have the same features, and D cannot tell them
    apart.

    The key of a place is -l (y - y'), averaged over windows of the size of a mouth. l in [-1, 1] says how much lighter
    the surroundings get, y is the place's row, y' the mean row of the change. A place belongs to the group that changes
    it most. Groups are ordered by their mean key, and the places of a group by their own. The turn of a place is its
    rank in this order, in which it counts w / sqrt(the sum of w over its group), w = min(|A - B|, .3), with |A - B| the
    mean of the window around it.

    Args:
        before: A, [P, 3, H, W].
        after: B, [P, 3, H, W].
        parts: how much each of N groups changes each place, [P, N, H, W].

    Returns:
        In [0, 1], [P, 1, H, W].
    """
    weight = _windowed(before, after).clamp(max=_FULL_WEIGHT)
    key = _direction_keys(before, after, weight)
    largest = _smooth(parts, _WINDOW).argmax(dim=1, keepdim=True)
    belongs = torch.zeros_like(parts).scatter_(1, largest, 1.0)
    total = (belongs * weight).sum(dim=(2, 3), keepdim=True)
    mean_key = (belongs * weight * key).sum(dim=(2, 3), keepdim=True) / (total + 1e-6)
    key = key + _GROUPS_APART * (belongs * mean_key).sum(dim=1, keepdim=True)
    counted = weight * (belongs * (total + 1.0).rsqrt()).sum(dim=1, keepdim=True)
    return _ranks(key, counted)


def _direction_keys(before: Tensor, after: Tensor, weight: Tensor) -> Tensor:
    """-l (y - y') of each place, averaged over the size of a mouth, in about [-2, 2], [P, 1, H, W]; see `turns`."""
    height = before.shape[2]
    difference = (after - before).mean(dim=1, keepdim=True)
    surroundings, part = (2 * round(share * height / 2) + 1 for share in (_SURROUNDINGS, _PART))
    lighter = _smooth(difference, surroundings) / (_smooth(difference.abs(), surroundings) + 0.02)
    lighter = lighter / (lighter.abs() + 0.1)
    rows = torch.linspace(-1, 1, height, device=before.device).view(1, 1, -1, 1)
    middle = (rows * weight).sum(dim=(2, 3), keepdim=True) / (weight.sum(dim=(2, 3), keepdim=True) + 1e-6)
    key = lighter * (middle - rows.expand_as(weight))
    return _smooth(key * weight, part) / (_smooth(weight, part) + 1e-4)


def _ranks(key: Tensor, counted: Tensor) -> Tensor:
    """Rank of each place by its key, in [0, 1]: the share of what counts that comes before it; [P, 1, H, W] each."""
    flat = key.flatten(1)
    order = flat.argsort(dim=1)
    in_order = counted.flatten(1).gather(1, order)
    done = in_order.cumsum(dim=1)
    share = (done - in_order / 2) / (done[:, -1:] + 1e-6)
    return torch.empty_like(flat).scatter_(1, order, share).view_as(key)
