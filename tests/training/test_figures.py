"""Each figure on values whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from homomorph.data.labels import UNKNOWN
from homomorph.evaluation import figures
from homomorph.evaluation.plots import as_svg, group_responses_figure, responses_figure, steps_figure
from homomorph.evaluation.results import MethodResult


def test_errors_of_a_constant_difference() -> None:
    truth = np.full((2, 3, 4, 4), 100, dtype=np.uint8)
    shown = truth + np.array([10, 0], dtype=np.uint8)[:, None, None, None]
    assert figures.squared_error(shown, truth).tolist() == [100, 0]
    assert figures.absolute_error(truth, shown).tolist() == [10, 0]
    # Of a rare label, the pairs at hand may hold no two values.
    assert (
        figures.squared_error(shown[:0], truth[:0]).tolist()
        == figures.absolute_error(truth[:0], shown[:0]).tolist()
        == []
    )
    assert figures.psnr(shown, truth) == pytest.approx([20 * np.log10(25.5), 100])


def test_white_error_looks_at_white_alone() -> None:
    white = np.zeros((2, 2, 2), dtype=bool)
    white[0, 0] = True
    shown = np.full((2, 3, 2, 2), 200, dtype=np.uint8)
    shown[0, :, 0] = 253
    assert figures.white_error(shown, white)[0] == pytest.approx(2)
    assert np.isnan(figures.white_error(shown, white)[1])


def test_transfer_counts_differing_labels_of_the_group_and_preservation_the_others() -> None:
    labels_a = np.array([[1, 0, 0, 1]], dtype=np.uint8)
    labels_b = np.array([[0, 1, 0, 0]], dtype=np.uint8)
    probabilities = np.array([[0.2, 0.4, 0.1, 0.9]])  # the first has arrived, the second has not
    assert figures.transfer(probabilities, labels_a, labels_b, slice(0, 3)).tolist() == [True, False]
    assert figures.preservation(probabilities, labels_a, slice(0, 2)).tolist() == [True, True]
    assert figures.preservation(probabilities, labels_a, slice(2, 4)).tolist() == [False, True]


def test_unknown_labels_count_in_no_figure() -> None:
    labels_a = np.array([[1, UNKNOWN, 0, UNKNOWN]], dtype=np.uint8)
    labels_b = np.array([[0, 1, UNKNOWN, UNKNOWN]], dtype=np.uint8)
    probabilities = np.array([[0.2, 0.9, 0.9, 0.1]])
    assert figures.differing(labels_a, labels_b).tolist() == [[True, False, False, False]]
    assert figures.transfer(probabilities, labels_a, labels_b, slice(0, 3)).tolist() == [True]
    assert figures.preservation(probabilities, labels_a, slice(0, 2)).tolist() == [False]


def test_spearman_sees_order_and_not_size() -> None:
    strengths = np.linspace(0, 1, 5)
    responses = np.array([[0, 0.01, 0.5, 0.9, 1], [1, 0.9, 0.2, 0.1, 0], [0.3] * 5, [0, 0, 0, 0, 1]])
    found = figures.spearman(strengths, responses)
    assert found[:3] == pytest.approx([1, -1, 0])
    assert found[3] == pytest.approx(np.sqrt(0.5))


def test_even_steps_have_a_jump_of_one() -> None:
    steps = np.array([[1.0, 1, 1, 1], [0, 0, 4, 0], [0, 0, 0, 0]])
    assert figures.jump(steps).tolist() == [1, 4, 1]
    assert figures.ppl(steps).tolist() == [4, 4, 0]
    assert figures.pdv(steps).tolist() == [0, 3, 0]


def test_pps_rewards_even_steps_on_a_short_path() -> None:
    steps = np.array([[1.0, 1, 1, 1], [0, 0, 4, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    direct = np.array([4.0, 4, 2, 0])
    # Gini of (0, 0, 0, 4) is 3/4; the third path is twice as long as the direct way.
    expected = [1, 2 * 0.25 / 1.25, 2 * 0.5 / 1.5, 0]
    assert figures.pps(steps, direct) == pytest.approx(expected)
    # A path that ends further from its start than it is long is straight, not more than that.
    assert figures.pps(steps[:1], np.array([9.0])) == pytest.approx([1])


def test_frechet_of_gaussians_is_the_closed_form() -> None:
    generator = np.random.default_rng(0)
    ours, real = generator.normal(0, 1, (200_000, 2)), generator.normal([3, 0], [2, 1], (200_000, 2))
    assert figures.frechet(ours, real) == pytest.approx(9 + 1, rel=0.02)  # |mu|^2 + (sigma - sigma')^2
    assert figures.frechet(ours, ours) == pytest.approx(0, abs=1e-6)
    few = generator.normal(0, 30, (6, 16))  # rounding alone would leave -4e-4
    assert 0 <= figures.frechet(few, few) < 1e-2


def test_counterfactual_is_zero_for_nothing_and_one_for_the_truth() -> None:
    before, best = np.array([100.0, 60]), np.array([10.0, 10])
    assert figures.counterfactual(before, before, best) == 0
    assert figures.counterfactual(before, best, best) == 1
    assert figures.counterfactual(before, 2 * before, best) < 0
    assert np.isnan(figures.counterfactual(best, best, best))


def test_names_are_no_formulas() -> None:
    name, curve = "$x^$", np.linspace(0, 1, 4)
    result = MethodResult({}, curve, {name: curve}, {name: curve}, 1, [], curve, {}, {}, {})  # type: ignore[arg-type]
    for figure in (
        steps_figure({name: result}),
        responses_figure({name: result}),
        group_responses_figure(name, result),
    ):
        assert "<svg" in as_svg(figure)
