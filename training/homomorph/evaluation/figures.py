"""The figures, each a pure function of arrays. What is averaged over pairs is returned per pair.

Labels are 0, 1 or `UNKNOWN`; an unknown label counts in no figure.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.functional import spearman_corrcoef
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from homomorph.data.labels import UNKNOWN

Array = NDArray[np.float64]
Labels = NDArray[np.uint8]
Pictures = NDArray[np.uint8]

MAX_PSNR = 100.0
"""PSNR of equal pictures in dB, so that a mean exists."""


def squared_error(pictures: Pictures, truth: Pictures) -> Array:
    """Mean squared pixel error in grey levels squared: uint8 [N, ...] twice -> [N]."""
    difference = pictures.astype(np.float64) - truth
    error: Array = np.square(difference).mean(axis=tuple(range(1, difference.ndim)))
    return error


def absolute_error(pictures: Pictures, others: Pictures) -> Array:
    """Mean absolute pixel difference in grey levels: uint8 [N, ...] twice -> [N]."""
    difference = np.abs(pictures.astype(np.float64) - others)
    error: Array = difference.mean(axis=tuple(range(1, difference.ndim)))
    return error


def psnr(pictures: Pictures, truth: Pictures) -> Array:
    """Peak signal-to-noise ratio in dB: uint8 [N, 3, H, W] twice -> [N]; at most `MAX_PSNR`."""
    ratio = peak_signal_noise_ratio(
        torch.from_numpy(pictures).double(),
        torch.from_numpy(truth).double(),
        data_range=255.0,
        reduction="none",
        dim=(1, 2, 3),
    )
    result: Array = ratio.clamp(max=MAX_PSNR).numpy()
    return result


def ssim(pictures: Pictures, truth: Pictures) -> Array:
    """Structural similarity (Wang et al., 2004): uint8 [N, 3, H, W] twice -> [N], at most 1."""
    similarity = structural_similarity_index_measure(
        torch.from_numpy(pictures) / 255.0, torch.from_numpy(truth) / 255.0, data_range=1.0, reduction="none"
    )
    assert isinstance(similarity, Tensor)
    result: Array = similarity.double().numpy()
    return result


def white_error(pictures: Pictures, white: NDArray[np.bool_]) -> Array:
    """Mean absolute error where the truth is pure white, in grey levels.

    Args:
        pictures: uint8 [N, 3, H, W].
        white: where all three channels of the truth are 255, [N, H, W].

    Returns:
        [N], NaN for a picture without white.
    """
    error = (255.0 - pictures).mean(axis=1)
    count = white.sum(axis=(1, 2))
    total = (error * white).sum(axis=(1, 2))
    return np.divide(total, count, out=np.full(len(pictures), np.nan), where=count > 0)


def differing(labels_a: Labels, labels_b: Labels) -> NDArray[np.bool_]:
    """Where both labels are known and differ: [N, L] twice -> [N, L]."""
    differs: NDArray[np.bool_] = (labels_a != labels_b) & (labels_a != UNKNOWN) & (labels_b != UNKNOWN)
    return differs


def transfer(probabilities: Array, labels_a: Labels, labels_b: Labels, group: slice) -> NDArray[np.bool_]:
    """Which of the group's labels that differ between a and b now read as b's.

    Args:
        probabilities: the judge's, of morphs with v_g = 1 and others 0, [N, L].
        labels_a: [N, L].
        labels_b: [N, L].
        group: the group's columns.

    Returns:
        One value per differing label, flat; their mean is the figure.
    """
    differs = differing(labels_a, labels_b)[:, group]
    arrived: NDArray[np.bool_] = ((probabilities[:, group] > 0.5) == labels_b[:, group])[differs]
    return arrived


def preservation(probabilities: Array, labels_a: Labels, group: slice) -> NDArray[np.bool_]:
    """Which known labels outside the group still read as a's: [N, L] twice -> flat."""
    outside = labels_a != UNKNOWN
    outside[:, group] = False
    kept: NDArray[np.bool_] = ((probabilities > 0.5) == labels_a)[outside]
    return kept


def spearman(strengths: Array, probabilities: Array) -> Array:
    """Rank correlation of strengths with probabilities, ties at their mean rank.

    Args:
        strengths: increasing, [S].
        probabilities: [N, S].

    Returns:
        [N] in [-1, 1]; 0 where the probability does not move at all.
    """
    if not len(probabilities):
        return np.zeros(0)
    moves = np.ptp(probabilities, axis=1) > 0
    correlation = np.zeros(len(probabilities))
    if moves.any():
        moving = torch.from_numpy(np.ascontiguousarray(probabilities[moves].T))
        ranked = spearman_corrcoef(moving, torch.from_numpy(strengths)[:, None].expand_as(moving).contiguous())
        correlation[moves] = ranked.numpy()
    return correlation


def jump(steps: Array) -> Array:
    """Largest step / mean step: distances between neighbouring frames [N, S-1] -> [N]; 1 is even, S-1 a single jump."""
    mean = steps.mean(axis=1)
    return np.divide(steps.max(axis=1), mean, out=np.ones(len(steps)), where=mean > 0)


def ppl(steps: Array) -> Array:
    """Perceptual path length, the sum of the steps: [N, S-1] -> [N]. (DiffMorpher, Zhang et al., CVPR 2024.)"""
    length: Array = steps.sum(axis=1)
    return length


def pdv(steps: Array) -> Array:
    """Perceptual distance variance, that of the steps: [N, S-1] -> [N]. (DiffMorpher, Zhang et al., CVPR 2024.)"""
    variance: Array = steps.var(axis=1)
    return variance


def pps(steps: Array, direct: Array) -> Array:
    """Perceptual path smoothness: harmonic mean of 1 - Gini(steps) and min(1, d(A, B) / sum of steps).

    (Liu et al., "Smoothing the Disentangled Latent Style Space", CVPR 2021.)

    Args:
        steps: distances between neighbouring frames, [N, S-1].
        direct: distance between the first frame and the last, [N].

    Returns:
        [N] in [0, 1]; 0 for a path that does not move.
    """
    total = steps.sum(axis=1)
    count = steps.shape[1]
    ranks = np.arange(1, count + 1)
    weighted = (np.sort(steps, axis=1) * (2 * ranks - count - 1)).sum(axis=1)
    gini = np.divide(weighted, count * total, out=np.ones(len(steps)), where=total > 0)
    straight = np.minimum(1, np.divide(direct, total, out=np.zeros(len(steps)), where=total > 0))
    even = 1 - gini
    both = even + straight
    return np.divide(2 * even * straight, both, out=np.zeros(len(steps)), where=both > 0)


class _GivenFeatures(nn.Module):
    """Replaces Inception for features that are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet(ours: Array, real: Array) -> float:
    """Frechet distance of two sets of features [N, F] and [M, F], each taken as a Gaussian (Heusel et al., 2017)."""
    metric = FrechetInceptionDistance(feature=_GivenFeatures(ours.shape[1]))
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(ours), real=False)
    # Rounding can leave equal sets a little below 0.
    return max(0.0, float(metric.compute()))


def counterfactual(before: Array, after: Array, best: Array) -> float:
    """(sum e(a) - sum e(morph)) / (sum e(a) - sum e(D(E(truth)))), pooled over pairs.

    e(x) is the squared error of x against the true counterfactual: a drawn again with b's options of one group.

    Args:
        before: e(a), [N].
        after: e(morph), [N].
        best: e(D(E(truth))), [N].

    Returns:
        0 = no better than doing nothing, 1 = as good as the truth, encoded and decoded; NaN if nothing can be gained.
    """
    gain = before.sum() - best.sum()
    return float((before.sum() - after.sum()) / gain) if gain > 0 else float("nan")
