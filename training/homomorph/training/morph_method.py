"""Base of the recipes of the method `homomorph`: configuration, batches, strips and label features."""

from __future__ import annotations

import copy
import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from homomorph.data.batches import ALL_GROUPS, Batch, PairedBatches
from homomorph.data.labels import LabelledPictures, occurrence
from homomorph.errors import CheckpointError
from homomorph.models.config import ModelConfig
from homomorph.models.morph import MorphModel
from homomorph.models.pixels import normalise
from homomorph.runs.label_features import save_label_features
from homomorph.runs.run import load_model
from homomorph.training.fit_label_features import fit_label_features
from homomorph.training.method import Method
from homomorph.training.parallel import Processes
from homomorph.training.settings import MorphPreset
from homomorph.training.strips import group_strips
from homomorph.training.updates import mean_decay

_log = logging.getLogger(__name__)

_STRIP_BATCH = 2**32
"""Number of the batch whose pictures the strips show; no step uses it."""
_STRIP_PAIRS = 3

Draws = TypeVar("Draws")
Output = TypeVar("Output")


@dataclass(frozen=True)
class NormalisedBatch:
    """A `Batch` on the training's device, with its pictures normalised."""

    pictures: Tensor
    """float [B, 3, H, W]."""
    labels: Tensor
    """float 0/1 [B, L]; 0 where unknown."""
    known: Tensor
    """1.0 where a label is known, else 0.0, [B, L]."""
    placement: Tensor
    """See `Batch`."""
    source: Tensor
    """a of each pair, [P]."""
    target: Tensor
    """b of each pair, [P]."""
    group: Tensor
    """The group that each pair is drawn for, or `ALL_GROUPS`, [P]."""


class MorphMethod(Method[NormalisedBatch, Draws, Output]):
    """E, one T_i a group and D, trained on pairs of labelled pictures."""

    mean_model: MorphModel
    batches: PairedBatches

    def __init__(
        self,
        data: LabelledPictures,
        preset: MorphPreset,
        *,
        steps: int,
        seed: int = 0,
        max_bad_pictures: int | None = None,
        processes: Processes | None = None,
        still_from: int | None = None,
    ) -> None:
        """Prepare batches and rates; the recipe makes the networks.

        Args:
            data: labelled pictures.
            preset: networks, batch and rates.
            steps: steps of the training, over which rates fall.
            seed: of weights and batches.
            max_bad_pictures: how many may be unreadable; see `AugmentedPictures`.
            processes: this process among those that train together; alone on the CPU in float32 by default.
            still_from: step from which most batches are not moved; see `PairedBatches`.

        Raises:
            ConfigError: a batch cannot be divided into pairs for that many processes.
        """
        torch.manual_seed(seed)
        processes = processes or Processes()
        self.device, self._data, self._preset, self._steps = processes.device, data, preset, steps
        self.config = ModelConfig(data.groups, preset.picture_size, preset.network)
        self.batch_size = preset.batch_size
        self.batches = PairedBatches(
            data,
            batch_size=preset.batch_size,
            picture_size=preset.picture_size,
            jitter=preset.jitter,
            seed=seed,
            max_bad_pictures=max_bad_pictures,
            still_from=still_from,
            shard=processes.rank,
            shards=processes.count,
        )
        self.label_columns = [index for index, names in enumerate(data.groups.values()) for _ in names]
        """For each label, the column of its group's strength."""
        self.settings = {
            "model": self.config.to_dict(),
            "preset": {key: value for key, value in dataclasses.asdict(preset).items() if key != "recipe"},
            "seed": seed,
            "precision": processes.precision,
            "processes": processes.count,
        }
        share = occurrence(data)
        if constant := [n for n, value in zip(self.config.attributes, share, strict=True) if not 0 < value < 1]:
            _log.warning("nothing can be learned of labels that all pictures share: %s", ", ".join(constant))

    def mean_decay(self, step: int) -> float:
        """Return the decay of the weights' running mean."""
        return mean_decay(self._preset.ema, step)

    def prepare(self, batch: Batch) -> NormalisedBatch:
        """Move a batch to the device and normalise its pictures."""
        batch = batch.to(self.device)
        pictures = normalise(batch.pictures, self._preset.network).contiguous(memory_format=torch.channels_last)
        return NormalisedBatch(
            pictures, batch.labels, batch.known.float(), batch.placement, batch.source, batch.target, batch.group
        )

    def start_from(self, run: Path) -> None:
        """Copy E, D and the T_i of the groups that both runs have from an earlier run.

        The other T_i and the critics keep their weights.

        Raises:
            CheckpointError: there is no such run, or its networks have other sizes.
        """
        earlier = load_model(run)
        if earlier.config.network != self.config.network:
            raise CheckpointError(
                f"this training cannot start from {run}: its networks are {earlier.config.network}, "
                f"these are {self.config.network}"
            )
        same = {group for group, names in self.config.groups.items() if earlier.config.groups.get(group) == names}
        if missing := [group for group in self.config.groups if group not in same]:
            _log.warning("%s has no such groups, whose T_i start at random: %s", run, ", ".join(missing))
        weights = {
            name: value
            for name, value in earlier.state_dict().items()
            if not name.startswith("branches.") or name.split(".")[1] in same | {"residual"}
        }
        for model in (self.model, self.mean_model):
            model.load_state_dict(weights, strict=False)
        self.settings = {**self.settings, "init": str(run)}

    def strips(self) -> NDArray[np.uint8]:
        """Draw morphs of a few pairs, by all groups together and by each group alone, with names."""
        batch = self.batches[_STRIP_BATCH]
        rows = (batch.group == ALL_GROUPS).int().argsort(descending=True, stable=True)[:_STRIP_PAIRS]
        pictures_a, pictures_b = (batch.pictures[side[rows]] for side in (batch.source, batch.target))
        return group_strips(self._mean_on_cpu(), pictures_a, pictures_b)

    def finish(self, out: Path) -> None:
        """Fit what labels look like as features, so that a picture can be edited by labels."""
        save_label_features(out, fit_label_features(self._mean_on_cpu(), self._data))

    def _mean_on_cpu(self) -> MorphModel:
        return self.mean_model if self.device.type == "cpu" else copy.deepcopy(self.mean_model).cpu()
