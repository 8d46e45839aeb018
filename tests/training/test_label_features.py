"""What labels look like as features."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from homomorph.data.labels import LabelledPictures
from homomorph.errors import CheckpointError
from homomorph.models.config import ModelConfig
from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MorphModel
from homomorph.models.pixels import normalise
from homomorph.runs.label_features import LABEL_FEATURES_FILE, load_label_features, save_label_features
from homomorph.training.fit_label_features import fit_label_features
from homomorph.training.settings import MorphPreset
from homomorph_client.pictures import fit_picture


@pytest.fixture
def model(data: LabelledPictures, tiny: MorphPreset) -> MorphModel:
    torch.manual_seed(0)
    return MorphModel(ModelConfig(groups=data.groups, picture_size=32, network=tiny.network)).eval()


def _features(model: MorphModel, data: LabelledPictures) -> torch.Tensor:
    pictures = np.stack([fit_picture(path, 32) for path in data.paths])
    with torch.no_grad():
        return model.encoder(normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2), model.config.network))


def test_it_predicts_features_better_than_their_mean(model: MorphModel, data: LabelledPictures) -> None:
    features = _features(model, data)
    with torch.no_grad():
        predicted = fit_label_features(model, data)(torch.from_numpy(data.labels).float(), (4, 4))
    unexplained = (features - predicted).square().mean() / (features - features.mean(dim=0)).square().mean()
    assert unexplained < 0.6
    # Least squares: what is left is orthogonal to each label.
    left = torch.tensordot(torch.from_numpy(data.labels).float().T, features - predicted, dims=1)
    assert left.abs().max() < 0.02 * len(data.paths) * features.std()


def test_features_are_resized_for_other_pictures(model: MorphModel) -> None:
    fitted = LabelFeatures(model.config)
    torch.nn.init.normal_(fitted.base)
    assert fitted(torch.zeros(2, 32), (8, 6)).shape == (2, 16, 8, 6)
    torch.testing.assert_close(fitted(torch.zeros(2, 32), (4, 4))[1], fitted.base)


def test_it_is_kept_in_the_run(model: MorphModel, tmp_path: Path) -> None:
    assert load_label_features(tmp_path, model.config) is None
    fitted = LabelFeatures(model.config)
    torch.nn.init.normal_(fitted.labels)
    save_label_features(tmp_path, fitted)
    again = load_label_features(tmp_path, model.config)
    assert again is not None
    assert torch.equal(again.labels, fitted.labels)
    other = dataclasses.replace(model.config, groups={"a": ("x",)})
    with pytest.raises(CheckpointError, match="does not belong to this run"):
        load_label_features(tmp_path, other)
    (tmp_path / LABEL_FEATURES_FILE).write_bytes(b"no")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_label_features(tmp_path, model.config)
