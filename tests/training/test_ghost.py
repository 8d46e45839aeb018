"""Figures of ghosts on frames whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from homomorph.evaluation import ghost


@pytest.fixture
def ends() -> tuple[ghost.Pictures, ghost.Pictures]:
    """Two pictures of one grey each, 64 grey levels apart."""
    return np.full((1, 3, 20, 20), 40, dtype=np.uint8), np.full((1, 3, 20, 20), 104, dtype=np.uint8)


def halves(left: ghost.Pictures, right: ghost.Pictures) -> ghost.Pictures:
    """The left half of one picture beside the right half of another."""
    return np.concatenate([left[..., :10], right[..., 10:]], axis=-1)


def test_windows_are_means_of_five_by_five_pixels() -> None:
    pictures = np.zeros((1, 3, 7, 9), dtype=np.uint8)
    pictures[0, 0, 2, 2] = 75  # one channel of one pixel
    errors = ghost.window_errors(pictures, np.zeros_like(pictures))
    assert errors.shape == (1, 3, 5)
    assert errors[0, :, :3].numpy() == pytest.approx(75 / 3 / 25)
    assert errors[0, :, 3:].max() == 0


def test_a_front_is_crisp_and_a_blend_is_a_ghost(ends: tuple[ghost.Pictures, ghost.Pictures]) -> None:
    a, b = ends
    blend = (a // 2 + b // 2).astype(np.uint8)
    blended = ghost.nearest_error(blend, a, b)
    assert blended == pytest.approx(32)
    assert ghost.ghost(ghost.nearest_error(b, a, b), blended) == 0
    assert ghost.ghost(blended, blended) == 1
    # Only the windows across the edge are mixtures: 4 of 16 columns have an error of 1, 2, 2 and 1 fifths of 64.
    front = ghost.nearest_error(halves(a, b), a, b)
    assert ghost.ghost(front, blended) == pytest.approx(6 / 5 * 64 / 32 / 16)
    assert np.isnan(ghost.ghost(np.zeros(1), np.zeros(1)))


def test_symmetry_compares_left_with_right(ends: tuple[ghost.Pictures, ghost.Pictures]) -> None:
    a, b = ends
    assert ghost.side_differences(a, a, b).max() == 0
    assert ghost.side_differences((a // 2 + b // 2).astype(np.uint8), a, b).max() == 0
    one_side = ghost.side_differences(halves(a, b), a, b)
    assert one_side.max() == 1
    # 12 of 16 columns are whole; the 4 across the edge show 1, 2, 3 and 4 fifths of B.
    assert one_side.mean() == pytest.approx((12 + 2 * 0.6 + 2 * 0.2) / 16)
    upper = np.concatenate([a[:, :, :10], b[:, :, 10:]], axis=2)
    assert ghost.side_differences(upper, a, b).max() == 0


def test_symmetry_counts_places_that_are_symmetric_and_differ(ends: tuple[ghost.Pictures, ghost.Pictures]) -> None:
    a, b = ends
    assert len(ghost.side_differences(a, a, a)) == 0
    assert len(ghost.side_differences(a, a, halves(a, b))) == 0
    half = np.concatenate([a[:, :, :10], b[:, :, 10:]], axis=2)  # as a above
    places = ghost.side_differences(a, a, half)
    assert 6 * 16 <= len(places) <= 10 * 16
