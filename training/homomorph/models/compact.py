"""The compact family: our own E, T_i and D.

It has no normalisation layer. A picture's result must not depend on what it was batched with, and statistics of real
pictures would not hold for the features of morphs. Residual blocks start as the identity instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from homomorph.models.config import CompactConfig


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
            # The first convolution sees 2x2 pixels as channels: half the resolution, all the detail.
            nn.PixelUnshuffle(2),
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
        """Return the input of the last convolution: [B, C, h, w] -> [B, width, h, w]."""
        hidden: Tensor = self.conv1(difference)
        if self.context is not None:
            hidden = hidden + self.context(difference.mean(dim=(2, 3), keepdim=True))
        return hidden

    def forward(self, difference: Tensor) -> Tensor:
        delta: Tensor = self.conv2(self.hidden(difference))
        return delta


_SHARPNESS = 4.0
"""Factor on the logits of a decoder's layers: learned weights of ordinary size can then choose one layer alone."""


class Layers(nn.Module):
    """M candidate pictures and M logits a pixel, [B, 4 M, H, W] -> their weighted sum [B, 3, H, W].

    picture = sum_m softmax(4 logits)_m candidate_m. On the way from a to b one candidate can hold what a shows and
    another what b shows; their logits draw the front between them, where a single picture can only mix colours.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        candidates = x[:, : 3 * self.count].unflatten(1, (self.count, 3))
        weights = (_SHARPNESS * x[:, 3 * self.count :]).softmax(dim=1).unsqueeze(2)
        picture: Tensor = (weights * candidates).sum(dim=1)
        return picture


class Decoder(nn.Module):
    """D: features [B, C, h, w] -> picture [B, 3, 8h, 8w], without a final activation.

    The unbounded last layer reaches pure white and is clamped where pixels are made; a saturating one only
    approaches white, which is how white backgrounds turn grey.
    """

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        half, quarter, eighth = config.widths
        blocks, layers = config.decoder_blocks, config.decoder_layers
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
            nn.Conv2d(half, 12 if layers == 1 else 16 * layers, 3, padding=1),
            nn.PixelShuffle(2),
            *([] if layers == 1 else [Layers(layers)]),
        )

    def forward(self, features: Tensor) -> Tensor:
        picture: Tensor = self.model(features)
        return picture


def start_as_projections(branches: list[Branch], channels: int) -> None:
    """Set branches, the residual one last, to complementary projections of C channels.

    Each has channels of its own, and the residual one twice as many, as far as its width allows. If no branch gets more
    channels than its width, together they already reach b. E has a place for each group's part from the first step on.
    """
    groups = len(branches) - 1
    named = channels - min(2 * channels // (groups + 2), branches[-1].conv1.out_channels)
    edges = [named * index // max(groups, 1) for index in range(groups + 1)]
    for branch, start, end in zip(branches, edges, [*edges[1:], channels], strict=True):
        branch.start_as_projection(range(start, end))
