"""Folds batch normalisation into the convolutions before it, which inference alone allows."""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that computes the same without BatchNorm layers behind convolutions."""
    network = copy.deepcopy(network).eval()
    for parent in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for (name, layer), (next_name, next_layer) in pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(next_layer, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, next_layer))
                setattr(parent, next_name, nn.Identity())
    return network
