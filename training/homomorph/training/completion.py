"""The last step of a training: T_residual is completed, so that all v = 1 reach b.

That sum_i T_i(d) is d is asked of all T_i from the first step on, but Adam leaves an error that is seen where D answers
to small differences, as on an even way it has to. Once the other T_i are what they are, what is left for T_residual is
linear in its last convolution, and solved for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from homomorph.data.labels import LabelledPictures
from homomorph.models.compact import Branch
from homomorph.models.config import RESIDUAL
from homomorph.models.morph import MorphModel
from homomorph.training.encoded_pictures import encoded

_CHUNK = 50


@torch.no_grad()
def complete_residual(model: MorphModel, data: LabelledPictures, ridge: float, *, pictures: int = 2000) -> None:
    """Set T_residual's last convolution by ridge regression of d - sum_i T_i(d), on pairs of the first pictures.

    The published T_i, which are not linear, stay as they are.

    Args:
        model: trained; changed in place.
        data: pictures; labels are not looked at.
        ridge: positive; of the inputs' mean square, what holds the convolution to what training has made of it.
        pictures: how many to use at most.
    """
    residual = model.branches[RESIDUAL]
    if not isinstance(residual, Branch):
        return
    others = [branch for name, branch in model.branches.items() if name != RESIDUAL]
    kernel = residual.conv2.kernel_size[0]
    rows = residual.conv2.in_channels * kernel**2
    gram = torch.zeros(rows, rows, dtype=torch.float64)
    products = torch.zeros(rows, residual.conv2.out_channels, dtype=torch.float64)

    def add(features: Tensor) -> None:
        difference = features.roll(1, dims=0) - features
        left = difference - sum(branch(difference) for branch in others) - residual(difference)
        inputs = F.unfold(residual.hidden(difference), kernel, padding=kernel // 2)
        inputs, wanted = (x.transpose(1, 2).flatten(0, 1).double() for x in (inputs, left.flatten(2)))
        gram.add_(inputs.T @ inputs)
        products.add_(inputs.T @ wanted)

    chunk: list[Tensor] = []
    for _, features in encoded(model, data, range(len(data.paths)), pictures):
        chunk.append(features)
        if len(chunk) == _CHUNK:
            add(torch.cat(chunk))
            chunk.clear()
    if len(chunk) > 1:
        add(torch.cat(chunk))
    scale = gram.diagonal().mean()
    if scale > 0:
        change = torch.linalg.solve(gram + ridge * scale * torch.eye(rows, dtype=torch.float64), products)
        residual.conv2.weight += change.T.view(residual.conv2.weight.shape).float()
