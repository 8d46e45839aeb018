"""Fits a linear map from labels to features of a trained encoder, so that pictures can be edited by labels."""

from __future__ import annotations

import torch

from homomorph.data.labels import LabelledPictures
from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MorphModel
from homomorph.models.pixels import normalise
from homomorph.training.fully_labelled import fully_labelled

_PICTURES = 2000
"""Largest number of pictures that are used."""
_RIDGE = 1e-3


@torch.no_grad()
def fit_label_features(model: MorphModel, data: LabelledPictures) -> LabelFeatures:
    """Fit by ridge regression on the first pictures whose labels are all known.

    Args:
        model: trained; its encoder is used.
        data: labelled pictures.
    """
    config = model.config
    fitted = LabelFeatures(config)
    inputs = len(config.attributes) + 1
    gram, products = torch.zeros(inputs, inputs, dtype=torch.float64), torch.zeros(inputs, fitted.base.numel())
    count = 0
    for index, picture in fully_labelled(data, config.picture_size, _PICTURES):
        pixels = torch.from_numpy(picture).permute(2, 0, 1).unsqueeze(0)
        features = model.encoder(normalise(pixels, config.network))
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
