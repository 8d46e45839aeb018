"""The figures, each a pure function of arrays. What is averaged over pairs is returned per pair."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.stats
from numpy.typing import NDArray

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]


def squared_error(pictures: Picture, truth: Picture) -> Array:
    """Mean squared pixel error in grey levels squared: uint8 [N, ...] twice -> [N]."""
    difference = pictures.astype(np.float64) - truth
    error: Array = np.square(difference).reshape(len(difference), -1).mean(axis=1)
    return error


def psnr(pictures: Picture, truth: Picture) -> Array:
    """Peak signal-to-noise ratio in dB: uint8 [N, ...] twice -> [N]; at most 100, for equal pictures."""
    ratio: Array = 10 * np.log10(255**2 / np.maximum(squared_error(pictures, truth), 255**2 / 1e10))
    return ratio


def white_error(pictures: Picture, white: NDArray[np.bool_]) -> Array:
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


def transfer(
    probabilities: Array, labels_a: NDArray[np.uint8], labels_b: NDArray[np.uint8], group: slice
) -> NDArray[np.bool_]:
    """Which of the group's labels that differ between a and b now read as b's.

    Args:
        probabilities: the evaluator's, of morphs with v_g = 1 and others 0, [N, L].
        labels_a: 0/1 [N, L].
        labels_b: 0/1 [N, L].
        group: the group's columns.

    Returns:
        One value per differing label, flat; their mean is the figure.
    """
    differs = labels_a[:, group] != labels_b[:, group]
    arrived: NDArray[np.bool_] = ((probabilities[:, group] > 0.5) == labels_b[:, group])[differs]
    return arrived


def preservation(probabilities: Array, labels_a: NDArray[np.uint8], group: slice) -> NDArray[np.bool_]:
    """Which labels outside the group still read as a's: [N, L] -> flat."""
    kept = np.delete((probabilities > 0.5) == labels_a, np.arange(labels_a.shape[1])[group], axis=1)
    return kept.reshape(-1)


def spearman(strengths: Array, probabilities: Array) -> Array:
    """Rank correlation of strengths with probabilities, ties at their mean rank.

    Args:
        strengths: increasing, [S].
        probabilities: [N, S].

    Returns:
        [N] in [-1, 1]; 0 where the probability does not move at all.
    """
    x = scipy.stats.rankdata(strengths)
    y = scipy.stats.rankdata(probabilities, axis=1)
    x, y = x - x.mean(), y - y.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.square(x).sum() * np.square(y).sum(axis=1))
    return np.divide(y @ x, norm, out=np.zeros(len(y)), where=norm > 0)


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
        [N] in [0, 1]; 0 for a path that stands still.
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


def frechet(ours: Array, real: Array) -> float:
    """Frechet distance of two sets of features [N, F] and [M, F], each taken as a Gaussian (Heusel et al., 2017)."""
    mean = np.square(ours.mean(axis=0) - real.mean(axis=0)).sum()
    cov_ours, cov_real = np.cov(ours, rowvar=False), np.cov(real, rowvar=False)
    # The trace of the root of a product of two covariances, through a symmetric matrix: no complex numbers.
    values, vectors = scipy.linalg.eigh(cov_ours)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    crossed = np.sqrt(np.maximum(scipy.linalg.eigvalsh(root @ cov_real @ root), 0)).sum()
    # Rounding can leave equal sets a little below 0.
    return max(0.0, float(mean + np.trace(cov_ours) + np.trace(cov_real) - 2 * crossed))


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
