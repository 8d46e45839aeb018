"""What a label looks like as features, so that a picture can be edited without a second one to take the look from.

F(z) = base + sum_l z_l beta_l is the least-squares prediction of a picture's features from its labels. T_i reads from
it the part of group i: F = F_a + v_i T_i(F(z) - F_a) gives the picture the labels z in group i, and leaves the others.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from homomorph.config import ModelConfig
from homomorph.data.labels import LabelledPictures
from homomorph.encoded_pictures import encoded
from homomorph.errors import CheckpointError
from homomorph.networks import MorphModel
from homomorph.run import save_tensors

LABEL_FEATURES_FILE = "label_features.safetensors"

_RIDGE = 1e-3


class LabelFeatures(nn.Module):
    """Labels [B, L] -> features [B, C, h, w]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape = (config.network.feature_channels, config.feature_size, config.feature_size)
        self.base = nn.Buffer(torch.zeros(shape))
        self.labels = nn.Buffer(torch.zeros(len(config.attributes), *shape))

    def forward(self, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Predict features from labels.

        Args:
            labels: [B, L] in [0, 1].
            size: height and width of the features; what was fitted at another size is resized.
        """
        features: Tensor = self.base + torch.tensordot(labels, self.labels, dims=1)
        return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def fit_label_features(model: MorphModel, data: LabelledPictures, *, pictures: int = 2000) -> LabelFeatures:
    """Fit by ridge regression on the first pictures whose labels are all known.

    Args:
        model: trained; its encoder is used.
        data: labelled pictures.
        pictures: how many to use at most.
    """
    config = model.config
    fitted = LabelFeatures(config)
    usable = [index for index, known in enumerate(data.known.all(axis=1)) if known]
    inputs = len(config.attributes) + 1
    gram, products = torch.zeros(inputs, inputs, dtype=torch.float64), torch.zeros(inputs, fitted.base.numel())
    count = 0
    for index, features in encoded(model, data, usable, pictures):
        known = torch.cat([torch.ones(1), torch.from_numpy(data.labels[index]).float()])
        gram += torch.outer(known, known)
        products += torch.outer(known, features.flatten())
        count += 1
    # Labels that exclude one another add up to one: without the ridge their share of the base is free.
    ridge = _RIDGE * max(count, 1) * torch.eye(inputs, dtype=torch.float64)
    ridge[0, 0] = 0
    solved = torch.linalg.lstsq(gram + ridge, products.double()).solution.float()
    fitted.base.copy_(solved[0].view_as(fitted.base))
    fitted.labels.copy_(solved[1:].view_as(fitted.labels))
    return fitted


def save_label_features(folder: Path, fitted: LabelFeatures) -> None:
    """Write `label_features.safetensors` into a run; it appears whole or not at all."""
    save_tensors(fitted.state_dict(), folder / LABEL_FEATURES_FILE)


def load_label_features(folder: Path, config: ModelConfig) -> LabelFeatures | None:
    """Read a run's label features; None if it has none, as imported runs do not.

    Raises:
        CheckpointError: the file is damaged or belongs to another configuration.
    """
    path = folder / LABEL_FEATURES_FILE
    if not path.is_file():
        return None
    fitted = LabelFeatures(config)
    try:
        fitted.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not belong to this run: {error}") from error
    return fitted
