"""Networks that exist only during training."""

from __future__ import annotations

import pytest
import torch

from homomorph.models.critics import FeatureCritic, Guidance, LabelCritic


def test_scores_and_logits_have_one_row_per_picture() -> None:
    score, logits = FeatureCritic(8, 5)(torch.randn(3, 8, 8, 8))
    assert score.shape == (3,)
    assert logits.shape == (3, 5)
    assert Guidance(8, 12)(torch.randn(3, 8, 8, 8), torch.Size([4, 4])).shape == (3, 12, 4, 4)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_label_critic_judges_each_value_of_each_label(size: int) -> None:
    judged = LabelCritic(5)(torch.randn(3, 3, size, size))
    assert judged.real.shape == (3,)
    assert judged.values.shape == (3, 5, 2)
    assert judged.labels.shape == (3, 5)
    labels = torch.tensor([[0.0, 1, 0, 1, 1]]).repeat(3, 1)
    chosen = judged.with_labels(labels)
    torch.testing.assert_close(chosen[:, 0], judged.values[:, 0, 0])
    torch.testing.assert_close(chosen[:, 1], judged.values[:, 1, 1])
    first, rest = judged.split(1, 2)
    assert torch.equal(first.real, judged.real[:1])
    assert torch.equal(rest.values, judged.values[1:])
