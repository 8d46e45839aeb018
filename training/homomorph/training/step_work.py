"""What the terms of one step of training share: features, morphs, pictures and the places to look at."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from homomorph.data.batches import Batch
from homomorph.models.config import ModelConfig
from homomorph.models.morph import interpolate
from homomorph.training import losses
from homomorph.training.draws import draw_strengths, draw_times
from homomorph.training.networks import Networks
from homomorph.training.phases import MORPHS
from homomorph.training.recipe import Recipe

_LOOKED_AT = 4
"""Labels whose places are looked at, for each pair of a step: the label prior draws each change of one anew."""


class StepWork:
    """What the terms of one step share; each part is computed when the first of them asks."""

    def __init__(
        self,
        nets: Networks,
        recipe: Recipe,
        batch: Batch,
        pictures: Tensor,
        phase: str,
        generator: torch.Generator,
        noise_generator: torch.Generator,
    ) -> None:
        self.nets, self.recipe, self.batch, self.pictures = nets, recipe, batch, pictures
        self.generator, self.noise_generator = generator, noise_generator
        self.config: ModelConfig = nets.model.config
        self.terms: dict[str, Tensor] = {}
        groups = self.config.groups
        self.source, self.target = batch.source, batch.target
        self.labels_a, self.labels_b = batch.labels[self.source], batch.labels[self.target]
        self.known_a, self.known_b = batch.known[self.source], batch.known[self.target]
        self.complete = batch.known.all(dim=1)
        whole_share = 1.0 if phase == MORPHS else recipe.whole_strengths
        drawn = draw_strengths(len(self.source), len(groups) + 1, generator, whole_share)
        self.strengths = drawn.to(pictures.device)
        self.labels_v, self.known_v = losses.mixed_labels(
            self.labels_a, self.labels_b, self.known_a, self.known_b, self.strengths[:, label_columns(groups)]
        )
        self.branches_loss = torch.zeros((), device=pictures.device)
        """Of the terms that update the T_i alone."""
        # Each picture is encoded once, and each T_i is applied once.
        self.encoded: Tensor = nets.model.encoder(pictures)
        self.features_a, self.features_b = self.encoded[self.source], self.encoded[self.target]
        self.deltas = nets.model.deltas(self.features_a, self.features_b)

    def noise(self, features: Tensor) -> Tensor:
        """Draw what features carry on their way to D and the critics; zeros where the recipe has none."""
        if self.recipe.feature_noise == 0:
            return torch.zeros_like(features)
        drawn = torch.randn(features.shape, generator=self.noise_generator, device=features.device)
        return self.recipe.feature_noise * drawn

    @functools.cached_property
    def parts(self) -> list[Tensor]:
        """T_i(F) of the batch's pictures for each labelled group, [B, C, h, w]."""
        return [self.nets.model.branches[group](self.encoded) for group in self.config.groups]

    @functools.cached_property
    def reconstructed(self) -> Tensor:
        """D(E(x)) of the batch's pictures, [B, 3, H, W]."""
        reconstructed: Tensor = self.nets.model.decoder(self.encoded + self.noise(self.encoded))
        return reconstructed

    @functools.cached_property
    def morphed(self) -> Tensor:
        """F of each pair, [B, C, h, w]."""
        return interpolate(self.features_a, self.deltas, self.strengths.unsqueeze(1)).squeeze(1)

    @functools.cached_property
    def base(self) -> Tensor:
        """What each morph starts from: a, or b where the residual branch has led there; indices, [B]."""
        return torch.where(self.strengths[:, -1] == 1, self.target, self.source)

    @functools.cached_property
    def told(self) -> Tensor:
        """Of which morphs labels say what they show: strengths of 0 and 1 and nothing unknown, bool [B]."""
        whole = ((self.strengths == 0) | (self.strengths == 1)).all(dim=1)
        return whole & self.known_v.all(dim=1) & self.complete[self.base]

    @functools.cached_property
    def shown(self) -> Tensor:
        """D(F) of the morphs of which labels say what they show."""
        if not self.told.any():
            return self.pictures[:0]
        shown: Tensor = self.nets.model.decoder(self.morphed[self.told])
        return shown

    @functools.cached_property
    @torch.no_grad()
    def expected(self) -> Tensor:
        """What the label prior expects each picture to be, [B, 3, H, W]."""
        mean: Tensor = self.nets.label_prior(self.batch.labels, self.batch.placement)[0]
        return mean

    @functools.cached_property
    def looked_at(self) -> tuple[Tensor, Tensor]:
        """Where labels show in which a told morph's two pictures differ: in its base, as the label prior knows.

        Some of these labels are drawn, `_LOOKED_AT` at most.

        Returns:
            For each of N labels: which of the told morphs, [N], and `losses.attention`'s map, [N, 1, H, W].
        """
        base = self.base[self.told]
        labels = self.batch.labels[base]
        other = torch.where(base == self.source[self.told], self.target[self.told], self.source[self.told])
        differs = (labels != self.batch.labels[other]) & self.batch.known[other]
        morph, label = differs.nonzero(as_tuple=True)
        drawn = torch.randperm(len(morph), generator=self.generator)[: _LOOKED_AT * len(self.source)].to(labels.device)
        morph, label = morph[drawn], label[drawn]
        changed = labels[morph]
        changed[torch.arange(len(morph)), label] = 1 - changed[torch.arange(len(morph)), label]
        with torch.no_grad():
            alone = self.nets.label_prior(changed, self.batch.placement[base][morph])[0]
            return morph, losses.attention(self.expected[base][morph], alone)

    @property
    def path_pairs(self) -> slice:
        """The P pairs whose ways are looked at: the last ones, which are paired at random."""
        return slice(-self.recipe.path_pairs(len(self.source)), None)

    @functools.cached_property
    def frames(self) -> Tensor:
        """Frames on the way from a to b, every second time with some of the groups only, [P, 2 + 2 K, 3, H, W].

        The first, those before and after each of K short steps, and the last.
        """
        pairs = self.path_pairs
        some = self.strengths[pairs].round()
        everything = torch.arange(len(some), device=some.device) % 2 == 0
        along = torch.where(everything.unsqueeze(1), 1.0, some)
        times = draw_times(len(some), self.recipe.path_steps, self.generator).to(some.device)
        strengths = times.unsqueeze(2) * along.unsqueeze(1)
        features = interpolate(self.features_a[pairs], self.deltas[pairs], strengths).flatten(0, 1)
        frames: Tensor = self.nets.model.decoder(features.contiguous(memory_format=torch.channels_last))
        return frames.view(*times.shape, *frames.shape[1:])


def label_columns(groups: Mapping[str, Sequence[str]]) -> list[int]:
    """For each label, the column of its group's strength."""
    return [column for column, names in enumerate(groups.values()) for _ in names]
