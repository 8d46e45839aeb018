"""Trains E, T_i and D by the default recipe.

homomorph train data/avatars --out runs/avatars64

Each pair of pictures moves a set S of branches: those of one group, or all. From it come

    whole frames    in which every branch is at 0 or at 1, so that labels say what they show (`Wholes`)
    a frame between D(F_a + v sum_{i in S} T_i), which shall look like no mixture of two shapes

Groups are of two kinds. Some blend, such as colours: half way they show a mixture. The others switch: half way each
place shows what a shows or what b shows. So the frame between has two ends, both in the colours that are due at v:

    one group that switches   before = a, after = D(F_a + T_g)
    one group that blends     before = after = (1 - v) a + v D(F_a + T_g)
    all                       before = (1 - v) a + v D(F_a + sum of the T_i that blend)      a's shapes
                              after  = (1 - v) D(F_a + sum of the T_i that switch) + v b     b's shapes

as of pictures of the same shape, colours mix linearly, pixel by pixel. No end has to be drawn or labelled.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from homomorph.data.batches import ALL_GROUPS
from homomorph.data.labels import LabelledPictures
from homomorph.models.config import RESIDUAL, CompactConfig, ModelConfig
from homomorph.models.critics import LabelCritic
from homomorph.models.morph import MorphModel
from homomorph.training.default import losses
from homomorph.training.default.draws import Draws, draw
from homomorph.training.default.recipe import FRONTS, RECONSTRUCTION, DefaultRecipe
from homomorph.training.losses import attribute_loss
from homomorph.training.morph_method import MorphMethod, NormalisedBatch
from homomorph.training.parallel import Processes
from homomorph.training.settings import MorphPreset

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wholes:
    """The whole frames of a batch, W of them. The first P are those of the P pairs in their order.

    Of a pair of one group, that group is at 1. Of a pair of all groups, everything that labels name is at 1; and where
    fronts are trained, two more frames follow: those that switch at 1, and those that blend at 1.
    """

    pair: Tensor
    """Which pair each is of, [W]."""
    strengths: Tensor
    """0/1, [W, K]."""
    labels: Tensor
    """What each shall show: b's labels in the groups that are at 1, a's in the others, 0/1, [W, L]."""
    counts: Tensor
    """What each label counts: two thirds for those that are b's together, a third for a's; 0 where unknown, [W, L]."""


@dataclass(frozen=True)
class Morphs:
    """What E, the T_i and D make of a batch. P pairs."""

    features_a: Tensor
    """F_a, [P, C, h, w]."""
    features_b: Tensor
    """F_b, [P, C, h, w]."""
    deltas: Tensor
    """T_i(F_b - F_a), [P, K, C, h, w]."""
    reconstructed: Tensor
    """D(F_a), [P, 3, H, W]."""
    wholes: Wholes
    whole: Tensor
    """The whole frames, [W, 3, H, W]."""
    between: Tensor
    """The frames between, [P, 3, H, W]; none before fronts are trained."""


class Networks(nn.Module):
    """Everything that a step updates or reads; its state is the training state on disk."""

    critic: LabelCritic

    def __init__(self, config: ModelConfig, *, with_critic: bool) -> None:
        super().__init__()
        self.model = MorphModel(config)
        self.mean = MorphModel(config).eval().requires_grad_(False)
        self.mean.load_state_dict(self.model.state_dict())
        if with_critic:
            self.critic = LabelCritic(len(config.attributes))


class DefaultMethod(MorphMethod[Draws, Morphs]):
    """Ten losses, three of them around a critic that knows the labels."""

    largest_norm = 5.0

    def __init__(
        self,
        data: LabelledPictures,
        preset: MorphPreset,
        recipe: DefaultRecipe,
        *,
        steps: int,
        seed: int = 0,
        max_bad_pictures: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        """Make networks with random weights; see `MorphMethod` for the other arguments."""
        super().__init__(
            data,
            preset,
            steps=steps,
            seed=seed,
            twins=recipe.twins,
            max_bad_pictures=max_bad_pictures,
            processes=processes,
        )
        if unknown := [name for name in recipe.blended if name not in data.groups]:
            _log.warning("recipe.blended names %s, which the data does not have", ", ".join(unknown))
        self._recipe = recipe
        self.critics = ("critic",) if recipe.has_critic else ()
        nets = Networks(self.config, with_critic=recipe.has_critic).to(self.device)
        self.networks = self._nets = nets.to(memory_format=torch.channels_last)
        self.model, self.mean_model = self._nets.model, self._nets.mean
        self._rates = {
            "model.encoder": preset.learning_rate,
            "model.branches": preset.learning_rate * recipe.branch_rate,
            "model.decoder": preset.learning_rate,
        } | dict.fromkeys(self.critics, preset.critic_learning_rate)
        self.optimizers = {
            name: torch.optim.Adam(
                self._nets.get_submodule(name).parameters(),
                betas=(0.5 if name == "critic" else 0.9, 0.99),
                fused=True,
            )
            for name in self._rates
        }
        self.weights = recipe.weights
        self.critic_weights = {"judgement": 1.0, "classifier": 1.0, "penalty": recipe.penalty * recipe.penalty_every}
        self.settings |= {"recipe": dataclasses.asdict(recipe)}
        branches = self.config.branches
        blended = (*recipe.blended, RESIDUAL)
        self._blends = torch.tensor([float(name in blended) for name in branches], device=self.device)
        self._named = torch.tensor([float(name != RESIDUAL) for name in branches], device=self.device)
        columns = torch.tensor(self.label_columns, device=self.device)
        self._members = nn.functional.one_hot(columns, len(branches)).float()
        """Which label belongs to which branch, [L, K]."""

    def phase(self, step: int) -> str:
        """Name what this step trains."""
        return self._recipe.phase(step / self._steps)

    def learning_rate(self, name: str, step: int) -> float:
        """Let all rates fall alike."""
        return self._rates[name] * self.rate_share(step)

    def draw(self, batch: NormalisedBatch, step: int, generator: torch.Generator) -> Draws:
        """Draw the times of the frames between."""
        penalised = step % self._recipe.penalty_every == 0
        drawn = draw(len(batch.source), generator, phase=self.phase(step), penalised=penalised)
        return dataclasses.replace(drawn, times=drawn.times.to(self.device))

    def forward(self, batch: NormalisedBatch, draws: Draws) -> Morphs:
        """Encode, apply every T_i, and decode all frames of the step as one batch."""
        model = self._nets.model
        encoded = model.encoder(batch.pictures)
        features_a, features_b = encoded[batch.source], encoded[batch.target]
        none = batch.pictures[:0]
        if draws.phase == RECONSTRUCTION:
            wholes = Wholes(batch.source[:0], none, none, none)
            return Morphs(features_a, features_b, encoded[:0], model.decoder(features_a), wholes, none, none)
        with_fronts = draws.phase == FRONTS and self._recipe.has_fronts
        deltas = model.deltas(features_a, features_b)
        wholes = self._wholes(batch, with_fronts=with_fronts)
        whole = features_a[wholes.pair] + torch.einsum("nk,nkchw->nchw", wholes.strengths, deltas[wholes.pair])
        features = [features_a, whole]
        if with_fronts:
            # What lies between is D's task alone: E and the T_i learn from whole frames.
            moved = torch.einsum("pk,pkchw->pchw", self._moving(batch), deltas)
            features.append((features_a + draws.times.view(-1, 1, 1, 1) * moved).detach())
        reconstructed, whole, *rest = model.decoder(torch.cat(features)).split([len(part) for part in features])
        return Morphs(features_a, features_b, deltas, reconstructed, wholes, whole, rest[0] if rest else none)

    def critic_terms(self, batch: NormalisedBatch, draws: Draws, output: Morphs, update: int) -> dict[str, Tensor]:
        """Real pictures against frames, label by label; the classifier; and the gradient's penalty now and then."""
        if draws.phase == RECONSTRUCTION or not self._recipe.has_critic:
            return {}
        critic, wholes = self._nets.critic, output.wholes
        pictures = torch.cat([batch.pictures, output.whole.detach(), output.between.detach()])
        real, whole, between = critic(pictures).split(len(batch.pictures), len(output.whole), len(output.between))
        labels, known = batch.labels, batch.known
        terms = {
            "judgement": losses.real_loss(real.real)
            + losses.fake_loss(torch.cat([whole.real, between.real]))
            + losses.conditional_loss(real.with_labels(labels), known, real=True)
            + 0.5 * losses.conditional_loss(real.with_labels(1 - labels), known, real=False)
            + 0.5 * losses.conditional_loss(whole.with_labels(wholes.labels), wholes.counts, real=False),
            "classifier": attribute_loss(real.labels, labels, known),
        }
        if draws.penalised:
            pictures = batch.pictures.clone().requires_grad_(True)
            judged = critic(pictures)
            score = judged.real.sum() + (judged.with_labels(labels) * known).mean(dim=1).sum()
            terms["penalty"] = losses.gradient_penalty(score, pictures)
        return terms

    def terms(self, batch: NormalisedBatch, draws: Draws, output: Morphs) -> dict[str, Tensor]:
        """The terms of this step's phase that have a weight."""
        recipe = self._recipe
        pictures_a, pictures_b = batch.pictures[batch.source], batch.pictures[batch.target]
        terms = {"reconstruction": losses.reconstruction_loss(output.reconstructed, pictures_a)}
        if draws.phase != RECONSTRUCTION:
            one_group, alike = self._one_group(batch), self._moved_alike(batch)
            agree, _ = self._compared(batch, batch.source, batch.target)
            morphs = output.whole[: len(pictures_a)]
            terms |= {
                "total": losses.total_loss(output.features_a, output.deltas, output.features_b),
                "idle": self._idle(batch, output),
            }
            if recipe.arrive > 0:
                # b differs from a in no label but those that move.
                counts = alike * torch.maximum(agree, self._moving(batch)[:, :-1]).amin(dim=1)
                terms["arrive"] = losses.arrive_loss(morphs, pictures_a, pictures_b, counts, recipe.focus)
            if recipe.keep > 0:
                terms["keep"] = losses.keep_loss(morphs, pictures_a, one_group)
            if recipe.has_critic:
                terms |= self._judged(output)
            if len(output.between):
                before, after = self._ends(batch, draws, output, pictures_a, pictures_b)
                mirror = losses.mirror_of(batch.placement[batch.source])
                terms |= {
                    "front": losses.front_loss(output.between, before, after, alike),
                    "share": losses.share_loss(output.between, before, after, draws.times, alike),
                    "symmetry": losses.symmetry_loss(output.between, before, after, mirror, alike),
                }
        return {name: value for name, value in terms.items() if self.weights[name] > 0}

    def _idle(self, batch: NormalisedBatch, output: Morphs) -> Tensor:
        """Each T_i carries its own group's labels, and the residual branch little."""
        difference = output.features_b - output.features_a
        residual = losses.residual_share(output.deltas[:, -1], difference)
        # x and y are all two pictures of the step where T_i is linear, since T_i(F_x - F_y) = T_i(F_x) - T_i(F_y).
        # Otherwise they are the step's pairs.
        if isinstance(self.config.network, CompactConfig):
            parts = [self._nets.model.branches[group](output.features_a) for group in self.config.groups]
            x, y = torch.triu_indices(len(parts[0]), len(parts[0]), 1, device=self.device)
            sizes = torch.stack([(part[x] - part[y]).abs().mean(dim=(1, 2, 3)) for part in parts], dim=1)
            distances = (output.features_a[x] - output.features_a[y]).abs().mean(dim=(1, 2, 3))
            x, y = batch.source[x], batch.source[y]
        else:
            x, y = batch.source, batch.target
            sizes = output.deltas[:, :-1].abs().mean(dim=(2, 3, 4))
            distances = difference.abs().mean(dim=(1, 2, 3))
        agree, differ = self._compared(batch, x, y)
        return losses.idle_loss(sizes, distances, agree, differ) + self._recipe.residual * residual

    def _judged(self, output: Morphs) -> dict[str, Tensor]:
        """What the critic says of the frames, for E, the T_i and D."""
        wholes, frames = output.wholes, torch.cat([output.whole, output.between])
        whole, between = self._nets.critic(frames).split(len(output.whole), len(output.between))
        return {
            "real": losses.real_loss(torch.cat([whole.real, between.real])),
            "labels": losses.conditional_loss(whole.with_labels(wholes.labels), wholes.counts, real=True)
            + 0.5 * attribute_loss(whole.labels, wholes.labels, wholes.counts),
        }

    def _one_group(self, batch: NormalisedBatch) -> Tensor:
        """1 for pairs of one group, 0 for pairs of all, [P]."""
        return (batch.group != ALL_GROUPS).float()

    def _moved_alike(self, batch: NormalisedBatch) -> Tensor:
        """1 for pairs whose pictures the augmentation has moved alike, else 0, [P]."""
        difference = batch.placement[batch.source] - batch.placement[batch.target]
        return (difference.abs().amax(dim=(1, 2)) < 1e-4).float()

    def _moving(self, batch: NormalisedBatch) -> Tensor:
        """1 for the branches that move, [P, K]."""
        own = nn.functional.one_hot(batch.group.clamp(min=0), len(self.config.branches)).float()
        return torch.where((batch.group == ALL_GROUPS).unsqueeze(1), torch.ones_like(own), own)

    def _compared(self, batch: NormalisedBatch, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Compare pictures x and y (indices, [N]) group by group.

        Returns:
            1 where all labels of a group are known and the same, and 1 where one is known and not the same, [N, K - 1].
        """
        known = batch.known[x] * batch.known[y]
        same = (batch.labels[x] == batch.labels[y]).float()
        not_alike, different = ((value @ self._members)[:, :-1] > 0 for value in (1 - same * known, (1 - same) * known))
        return (~not_alike).float(), different.float()

    def _wholes(self, batch: NormalisedBatch, *, with_fronts: bool) -> Wholes:
        """Choose the whole frames of a batch."""
        moving, rows = self._moving(batch), torch.arange(len(batch.source), device=self.device)
        pair, strengths = [rows], [moving * self._named]
        if with_fronts:
            every = self.batches.rows_of_all_groups.to(self.device)
            for kind in (1 - self._blends, self._blends):
                pair.append(every)
                strengths.append(moving[every] * kind)
        pairs, moved = torch.cat(pair), torch.cat(strengths)
        taken = moved @ self._members.T
        labels_a, labels_b = (batch.labels[side][pairs] for side in (batch.source, batch.target))
        known_a, known_b = (batch.known[side][pairs] for side in (batch.source, batch.target))
        kept = 1 - taken
        shares = taken / taken.sum(dim=1, keepdim=True).clamp(min=1) + 0.5 * kept / kept.sum(dim=1, keepdim=True).clamp(
            min=1
        )
        return Wholes(
            pair=pairs,
            strengths=moved,
            labels=labels_a + taken * (labels_b - labels_a),
            counts=(known_a + taken * (known_b - known_a)) * shares,
        )

    def _ends(
        self, batch: NormalisedBatch, draws: Draws, output: Morphs, pictures_a: Tensor, pictures_b: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What each frame between comes from and goes to, in the colours that are due, held fixed; [P, 3, H, W]."""
        time, every = draws.times.view(-1, 1, 1, 1), self.batches.rows_of_all_groups.to(self.device)
        first, switched, blended = output.whole.detach().split([len(pictures_a), len(every), len(every)])
        # Of one group: from a to the whole frame; where the group blends, both ends are the mixture.
        mixed = (1 - time) * pictures_a + time * first
        blends = (self._moving(batch) @ self._blends).view(-1, 1, 1, 1) > 0
        before, after = torch.where(blends, mixed, pictures_a), torch.where(blends, mixed, first)
        # Of all groups.
        time, pictures_a, pictures_b = time[every], pictures_a[every], pictures_b[every]
        before = before.index_copy(0, every, (1 - time) * pictures_a + time * blended)
        after = after.index_copy(0, every, (1 - time) * switched + time * pictures_b)
        return before, after
