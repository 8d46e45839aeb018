"""Figures of a model in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from homomorph.data.avatars import GROUPS
from homomorph.errors import DataError
from homomorph.evaluation.checkpoint_figures import prepare_checkpoint_figures
from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.training.settings import MorphPreset


def test_a_model_in_training_gets_figures_and_stays_as_it_was(folder: Path, tiny: MorphPreset) -> None:
    stages = set()
    figures = prepare_checkpoint_figures(
        folder, 32, pairs=16, judge_steps=3, report=lambda progress: stages.add(progress.stage)
    )
    assert stages == {"pictures", "judge"}
    torch.manual_seed(0)
    model = MorphModel(ModelConfig(groups=GROUPS, picture_size=32, network=tiny.network)).train()
    random_state = torch.get_rng_state()
    found = figures(model)
    assert model.training
    assert (torch.get_rng_state() == random_state).all()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert figures(model) == found
    per_group = [found[f"transfer/{group}"] for group in GROUPS]
    assert found["transfer"] == pytest.approx(np.mean(per_group))
    assert set(found) == {
        *("transfer", "preservation", "ghost", "ghost_floor", "symmetry", "frechet"),
        *(f"{name}/{group}" for name in ("transfer", "preservation") for group in GROUPS),
    }
    other = MorphModel(ModelConfig(groups={"mood": ("happy",)}, picture_size=32, network=tiny.network))
    with pytest.raises(DataError, match="has other groups than the model"):
        figures(other)
