"""Finds where in a picture the labels of each group show, so that a small place can count as much as a large one."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from torch import Tensor

from homomorph.data.labels import LabelledPictures, group_columns
from homomorph.training.fully_labelled import fully_labelled

_PICTURES = 4000
"""Largest number of pictures that are used: the first that can be read and whose labels are all known."""
_RIDGE = 1e-3
_STANDARD_ERRORS = 2.0
"""A pixel that a label changes by fewer standard errors may have changed by chance, and does not count."""
_CHUNK = 64


def label_places(data: LabelledPictures, picture_size: int) -> Tensor:
    """Find where the labels of each group show, by a ridge regression of pixels on labels.

    Label l with share p_l of yes changes a pixel by beta_l, with standard error s_l, and counts
    sqrt(sum_l p_l (1 - p_l) max(0, beta_l^2 - (2 s_l)^2)) there, the sum being over the labels of the group.

    Args:
        data: labelled pictures, all with their faces in about the same place.
        picture_size: height and width in pixels.

    Returns:
        [G, H, W], with the mean 1 for each group; 1 everywhere for a group that shows nowhere, and where no picture
        has all labels.
    """
    inputs = len(data.attributes) + 1
    gram, values = np.zeros((inputs, inputs)), picture_size * picture_size * 3
    products, squares = np.zeros((inputs, values)), np.zeros(values)
    labelled = fully_labelled(data, picture_size, _PICTURES)
    while chunk := list(islice(labelled, _CHUNK)):
        labels = np.stack([np.concatenate([[1.0], data.labels[index]]) for index, _ in chunk])
        pixels = np.stack([picture.ravel() for _, picture in chunk]) / 127.5 - 1
        gram += labels.T @ labels
        products += labels.T @ pixels
        squares += np.square(pixels).sum(axis=0)
    count = gram[0, 0]
    if not count:
        return torch.ones(len(data.groups), picture_size, picture_size)
    ridge = _RIDGE * count * np.diag([0.0] + [1.0] * (inputs - 1))
    inverse = np.linalg.inv(gram + ridge)
    changes = inverse @ products
    variance = np.maximum(squares - (changes * (2 * products - gram @ changes)).sum(axis=0), 0) / count
    chance = _STANDARD_ERRORS**2 * inverse.diagonal()[:, None] * variance
    share = (gram[0] / count)[:, None]
    explained = (share * (1 - share) * np.maximum(np.square(changes) - chance, 0))[1:]
    places = []
    for columns in group_columns(data.groups).values():
        group = explained[columns].sum(axis=0).reshape(picture_size, picture_size, 3)
        place = np.sqrt(group.mean(axis=2))
        places.append(place / place.mean() if place.any() else np.ones_like(place))
    return torch.from_numpy(np.stack(places)).float()
