"""The networks that are served: encoder E, one branch T_i per attribute group, decoder D.

Pictures are float [B, 3, H, W], normalised with the configuration's mean and deviation; features are
[B, C, H/stride, W/stride]. Everything is convolutional, so any H and W that are multiples of the stride work.

`MorphModel` is the model of either family. The networks here are the compact family's; the published ones stand in
`published_networks.py`. The compact family has no normalisation layer: a picture's result must not depend on what it
was batched with, and statistics taken on real pictures would not hold for the features of morphs. Residual blocks
start as the identity instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homomorph.config import CompactConfig, ModelConfig, PublishedConfig
from homomorph.errors import ConfigError
from homomorph.published_networks import PublishedBranch, PublishedDecoder, PublishedEncoder


class ResidualBlock(nn.Module):
    """x + conv(act(conv(act(x)))), shape kept; the identity at the start of training.

    With `context`, the block also sees its channels' means over the whole picture: what holds everywhere, such as
    the colour of hair or skin, need not travel from cell to cell.
    """

    def __init__(self, channels: int, *, context: bool = False) -> None:
        super().__init__()
        self.context = nn.Conv2d(channels, channels, 1, bias=False) if context else None
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.leaky_relu(x, 0.2)
        z: Tensor = self.conv1(y)
        if self.context is not None:
            z = z + self.context(y.mean(dim=(2, 3), keepdim=True))
        z = self.conv2(F.leaky_relu(z, 0.2))
        return x + z


class Encoder(nn.Module):
    """E: picture [B, 3, H, W] -> features [B, C, H/8, W/8]."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        half, quarter, eighth = config.widths
        blocks = config.encoder_blocks
        self.model = nn.Sequential(
            nn.PixelUnshuffle(
                2
            ),  # the first convolution sees 2x2 pixels as channels: half the resolution, all the detail
            nn.Conv2d(12, half, 3, padding=1),
            *(ResidualBlock(half) for _ in range(blocks[0])),
            nn.LeakyReLU(0.2),
            nn.Conv2d(half, quarter, 3, stride=2, padding=1),
            *(ResidualBlock(quarter) for _ in range(blocks[1])),
            nn.LeakyReLU(0.2),
            nn.Conv2d(quarter, eighth, 3, stride=2, padding=1),
            *(ResidualBlock(eighth, context=True) for _ in range(blocks[2])),
            nn.LeakyReLU(0.2),
            nn.Conv2d(eighth, config.feature_channels, 1),
        )

    def forward(self, picture: Tensor) -> Tensor:
        features: Tensor = self.model(picture)
        return features


class Branch(nn.Module):
    """T_i: difference of features [B, C, h, w] -> the part of it that belongs to one group, same shape.

    Linear, and without biases T_i(0) = 0, so a picture morphed into itself stays as it is. With `branch_context`, it
    also sees the difference's means over the whole picture: what b shows elsewhere than a can reach all places of a.
    """

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        channels, width, kernel = config.feature_channels, config.branch_width, config.branch_kernel
        self.conv1 = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        self.context = nn.Conv2d(channels, width, 1, bias=False) if config.branch_context else None
        if self.context is not None:
            nn.init.zeros_(self.context.weight)
        self.conv2 = nn.Conv2d(width, channels, kernel, padding=kernel // 2, bias=False)

    @torch.no_grad()
    def start_as_projection(self, channels: range) -> None:
        """Set the weights so that T_i passes these channels, as many as its width allows, and no others."""
        centre = self.conv1.kernel_size[0] // 2
        nn.init.zeros_(self.conv2.weight)
        for hidden, channel in zip(range(self.conv1.out_channels), channels, strict=False):
            self.conv1.weight[hidden] = 0
            self.conv1.weight[hidden, channel, centre, centre] = 1
            self.conv2.weight[channel, hidden, centre, centre] = 1

    def hidden(self, difference: Tensor) -> Tensor:
        """What the last convolution takes: [B, C, h, w] -> [B, width, h, w]."""
        hidden: Tensor = self.conv1(difference)
        if self.context is not None:
            hidden = hidden + self.context(difference.mean(dim=(2, 3), keepdim=True))
        return hidden

    def forward(self, difference: Tensor) -> Tensor:
        delta: Tensor = self.conv2(self.hidden(difference))
        return delta


class Decoder(nn.Module):
    """D: features [B, C, h, w] -> picture [B, 3, 8h, 8w], without a final activation.

    The unbounded last layer reaches pure white and is clamped where pixels are made; a saturating one only
    approaches white, which is how white backgrounds turn grey.
    """

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        half, quarter, eighth = config.widths
        blocks = config.decoder_blocks
        self.model = nn.Sequential(
            nn.Conv2d(config.feature_channels, eighth, 3, padding=1),
            *(ResidualBlock(eighth, context=True) for _ in range(blocks[2])),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(eighth, quarter, 3, padding=1),
            *(ResidualBlock(quarter) for _ in range(blocks[1])),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(quarter, half, 3, padding=1),
            *(ResidualBlock(half) for _ in range(blocks[0])),
            nn.LeakyReLU(0.2),
            nn.Conv2d(half, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, features: Tensor) -> Tensor:
        picture: Tensor = self.model(features)
        return picture


def interpolate(source: Tensor, deltas: Tensor, strengths: Tensor) -> Tensor:
    """F = F_a + sum_i v_i * T_i(F_b - F_a), for S strength vectors at once.

    Args:
        source: features of the source picture, [B, C, h, w].
        deltas: outputs of the K branches, [B, K, C, h, w].
        strengths: v, [B, S, K]; 0 leaves a group as in the source, 1 takes it from the target.

    Returns:
        Features [B, S, C, h, w].
    """
    return source.unsqueeze(1) + torch.einsum("bsk,bkchw->bschw", strengths, deltas)


def _start_as_projections(branches: list[Branch], channels: int) -> None:
    """Set branches, the residual one last, to complementary projections of C channels.

    Each has channels of its own and the residual one twice as many: together they already reach b, and E has a place
    for each group's part from the first step on.
    """
    share = channels // (len(branches) + 1)
    for index, branch in enumerate(branches):
        start = index * share
        branch.start_as_projection(range(start, channels if branch is branches[-1] else start + share))


class MorphModel(nn.Module):
    """E, all T_i and D of one configuration; the state dict of a run's `model.safetensors`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: nn.Module
        self.branches: nn.ModuleDict
        self.decoder: nn.Module
        network = config.network
        if isinstance(network, PublishedConfig):
            self.encoder = PublishedEncoder(network)
            self.branches = nn.ModuleDict({name: PublishedBranch(network) for name in config.branches})
            self.decoder = PublishedDecoder(network)
        else:
            self.encoder = Encoder(network)
            branches = {name: Branch(network) for name in config.branches}
            _start_as_projections(list(branches.values()), network.feature_channels)
            self.branches = nn.ModuleDict(branches)
            self.decoder = Decoder(network)

    def deltas(self, source: Tensor, target: Tensor) -> Tensor:
        """Apply every branch: features [B, C, h, w] twice -> [B, K, C, h, w]."""
        difference = target - source
        return torch.stack([branch(difference) for branch in self.branches.values()], dim=1)

    def forward(self, source: Tensor, target: Tensor, strengths: Tensor) -> Tensor:
        """Morph normalised pictures.

        Args:
            source: [B, 3, H, W], normalised.
            target: [B, 3, H, W], normalised.
            strengths: [B, S, K], columns in the order of `config.branches`.

        Returns:
            Normalised pictures [B, S, 3, H, W].
        """
        source_features, target_features = self.encoder(source), self.encoder(target)
        features = interpolate(source_features, self.deltas(source_features, target_features), strengths)
        frames: Tensor = self.decoder(features.flatten(0, 1))
        return frames.view(*strengths.shape[:2], *frames.shape[1:])


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


def parameter_counts(model: MorphModel) -> Mapping[str, int]:
    """Count the parameters of E, of all T_i together, and of D."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
