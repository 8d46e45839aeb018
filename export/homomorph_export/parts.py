"""The networks of a run as they are exported: inference-folded, in one number format, with the served signatures.

Every file format is made from these modules, so that all formats hold the same arithmetic.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from homomorph.models.label_features import LabelFeatures
from homomorph.models.morph import MorphModel
from homomorph.models.translator import Translator
from homomorph_export.servable import BranchServable, DecoderServable, EncoderServable, GeneratorServable


@dataclass(frozen=True)
class Parts:
    """The exported networks of a run that morphs. All of its served models are made of these."""

    encoder: nn.Module
    branches: dict[str, nn.Module]
    """T_i by group, in the order of the strengths' columns."""
    decoder: nn.Module
    label_features: LabelFeatures | None
    """None if the run has none. Always float32, because they are a single product, not a network."""


def exported_parts(model: MorphModel, label_features: LabelFeatures | None, dtype: torch.dtype) -> Parts:
    """Wrap copies of a run's networks.

    Args:
        model: the run's networks; they stay as they are.
        label_features: the run's, if it has them.
        dtype: number format of the weights and of the arithmetic. The served tensors keep theirs.
    """
    network = model.config.network

    def converted(part: nn.Module) -> nn.Module:
        return folded(part).to(dtype)

    return Parts(
        encoder=EncoderServable(converted(model.encoder), network, dtype),
        branches={name: BranchServable(converted(branch), dtype) for name, branch in model.branches.items()},
        decoder=DecoderServable(converted(model.decoder), network, dtype),
        label_features=label_features,
    )


def exported_generators(translator: Translator, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Wrap copies of CycleGANs' generators, by their directions; arguments as for `exported_parts`."""
    return {
        direction: GeneratorServable(copy.deepcopy(generator).to(dtype), dtype)
        for direction, generator in translator.generators.items()
    }


def folded(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that computes the same with fewer layers.

    BatchNorm becomes part of the convolution before it, and upsampling part of the convolution after it.
    """
    network = copy.deepcopy(network).eval()
    for parent in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for (name, layer), (next_name, next_layer) in pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(next_layer, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, next_layer))
                setattr(parent, next_name, nn.Identity())
        for (name, layer), (next_name, next_layer) in pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Upsample) and isinstance(next_layer, nn.Conv2d):
                setattr(parent, name, nn.Identity())
                setattr(parent, next_name, transposed(next_layer))
    return network


def transposed(convolution: nn.Conv2d) -> nn.ConvTranspose2d:
    """Return one layer that computes nearest-neighbour upsampling by 2 and then this 3x3 convolution.

    An upsampled picture holds every value four times. The convolution multiplies each of them by its own weight; with
    the weights of equal values added first, 16 multiplications take the place of 36.
    """
    layer = nn.ConvTranspose2d(convolution.in_channels, convolution.out_channels, 4, stride=2, padding=1)
    with torch.no_grad():
        # Every 2x2 window of the padded kernel holds the weights of one value.
        sums = 4 * nn.functional.avg_pool2d(convolution.weight, 2, stride=1, padding=1)
        layer.weight.copy_(sums.flip(2, 3).transpose(0, 1))
        assert layer.bias is not None
        assert convolution.bias is not None
        layer.bias.copy_(convolution.bias)
    return layer
