"""Grows a trained model into a larger one that computes the same, so that training can go on from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from homomorph.errors import ConfigError
from homomorph.models.compact import Decoder, Encoder, ResidualBlock
from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel


def grow(model: MorphModel, config: ModelConfig) -> MorphModel:
    """Return a model of `config` that computes what `model` does, with more residual blocks, and T_i that see further.

    New blocks start as the identity, kernels with zeros around what they were, and the context of T_i with zeros; all
    learn from there. (Chen et al., "Net2Net", ICLR 2016.)

    Raises:
        ConfigError: the two differ in more than that.
    """
    may_grow = {"encoder_blocks", "decoder_blocks", "branch_kernel", "branch_context"}
    before, after = dataclasses.asdict(model.config.network), dataclasses.asdict(config.network)
    if changed := sorted(key for key in (before.keys() | after.keys()) - may_grow if before.get(key) != after.get(key)):
        raise ConfigError(f"its networks have other {', '.join(changed)}")
    grown = MorphModel(config)
    state: dict[str, Tensor] = {}
    for name, part in model.named_children():
        later = grown.get_submodule(name)
        if isinstance(part, Encoder | Decoder) and isinstance(later, Encoder | Decoder):
            places = [(f"model.{old}.", f"model.{new}.") for old, new in _kept_places(part.model, later.model)]
        else:
            places = [("", "")]
        for old, new in places:
            state |= {
                f"{name}.{new}{key.removeprefix(old)}": value
                for key, value in part.state_dict().items()
                if key.startswith(old)
            }
    initial = grown.state_dict()
    if not state.keys() <= initial.keys():
        raise ConfigError("its networks have more residual blocks, or T_i with context")
    around = (after.get("branch_kernel", 0) - before.get("branch_kernel", 0)) // 2
    if around < 0:
        raise ConfigError("its T_i have larger kernels")
    for key in state:
        if key.startswith("branches.") and not key.endswith(".context.weight"):
            state[key] = F.pad(state[key], [around] * 4)
    grown.load_state_dict(initial | state)
    return grown


def _kept_places(earlier: nn.Sequential, later: nn.Sequential) -> Iterator[tuple[int, int]]:
    """Yield where each layer with weights stood and where it stands; residual blocks are added behind others."""
    kinds = [type(layer) for layer in later]
    place = 0
    for index, layer in enumerate(earlier):
        while place < len(kinds) and kinds[place] is ResidualBlock and type(layer) is not ResidualBlock:
            place += 1
        yield index, place
        place += 1
