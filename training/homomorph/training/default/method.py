"""Trains E, T_i and D by the default recipe.

homomorph train data/avatars --out runs/avatars64

A composed frame takes each group from another picture: D(F_base + sum_i T_i(F_i - F_base)), where picture i stands in
for a picture that agrees with it in all labels of group i. Two kinds are trained:

    kept    base t, and for each group a picture that agrees with t in it: shows t, so a T_i carries its labels alone
    whole   base a, and for the groups that move a picture that agrees with b, for the others one that agrees with a.
            Where labels say all of a picture, all groups move and it shows b. Elsewhere a critic judges it: whether
            it looks real, and at whole strengths, whether it shows the labels. Then a pair of all groups is judged on
            the way from a to b, where all branches move

A frame on the way, D(F_a + sum_i u_i T_i + v sum_{i in S} T_i), has branches S that move and others that stand at
u_i = 0 or 1. It shall look like no mixture of two shapes. Groups are of two kinds. Some blend, such as colours: half
way they show a mixture. The others switch, place by place, each in its turn: half way a place shows what was there
before or what will be. D learns this alone, once E and the T_i are finished. Both ends are in the colours due at v:

    before = (1 - v) P(u)               + v P(u + those of S that blend)
    after  = (1 - v) P(u + those of S that switch) + v P(u + S)

as of pictures of the same shape, colours mix linearly, pixel by pixel. P is a picture of the set where there is one,
else what a teacher draws: D as it was when it began to learn alone. No end has to be drawn or labelled.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from homomorph.data.batches import ALL_GROUPS
from homomorph.data.labels import LabelledPictures
from homomorph.models.config import RESIDUAL, ModelConfig
from homomorph.models.critics import LabelCritic
from homomorph.models.label_readers import LabelReaders
from homomorph.models.morph import MorphModel
from homomorph.models.pixels import picture_statistics
from homomorph.training.default import losses
from homomorph.training.default.composition import Composition
from homomorph.training.default.draws import Draws, draw
from homomorph.training.default.recipe import DECODER, DefaultRecipe
from homomorph.training.label_places import label_places
from homomorph.training.losses import attribute_loss
from homomorph.training.morph_method import MorphMethod, NormalisedBatch
from homomorph.training.muon import Muon
from homomorph.training.parallel import Processes
from homomorph.training.settings import MorphPreset
from homomorph.training.updates import rate_share

_log = logging.getLogger(__name__)

_READERS_RATE = 1e-3
"""Adam's learning rate for the readers."""


@dataclass(frozen=True)
class Way:
    """A frame on the way of each pair, and both ends of that way, [P, 3, H, W] each."""

    frame: Tensor
    before: Tensor
    """The picture at the start of the way; no gradient reaches it."""
    after: Tensor
    """The picture at its end; no gradient reaches it."""
    parts: Tensor
    """How much each group that switches changes each place, [P, N, H, W]; 0 where a single group moves."""


@dataclass(frozen=True)
class Morphs:
    """Outputs of E, the T_i and D for a batch of P pairs."""

    features_a: Tensor
    """F_a, [P, C, h, w]."""
    features_b: Tensor
    """F_b, [P, C, h, w]."""
    deltas: Tensor
    """T_i(F_b - F_a), [P, K, C, h, w]."""
    kept: Tensor
    """The kept frame of each a, [P, 3, H, W]."""
    whole: Tensor | None
    """The whole frame of each pair, [P, 3, H, W]; None where no term compares or judges it."""
    way: Way | None
    """None unless D learns alone, and from frames on the way."""
    read: Tensor | None
    """The labels that the readers find in T_i(F_a), as logits, [P, L]; None without readers."""


class Networks(nn.Module):
    """Everything that a step updates or reads; its state is the training state on disk."""

    critic: LabelCritic
    readers: LabelReaders
    teacher: nn.Module
    """D as it was when it began to learn alone."""

    def __init__(self, config: ModelConfig, *, with_critic: bool, with_readers: bool, with_teacher: bool) -> None:
        super().__init__()
        self.model = MorphModel(config)
        self.mean = MorphModel(config).eval().requires_grad_(False)
        self.mean.load_state_dict(self.model.state_dict())
        if with_critic:
            self.critic = LabelCritic(len(config.attributes))
        if with_readers:
            self.readers = LabelReaders(config)
        if with_teacher:
            self.teacher = copy.deepcopy(self.mean.decoder)


class DefaultMethod(MorphMethod[Draws, Morphs]):
    """Composed frames that a picture of the set or a critic judges, and frames on the way with a front."""

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
        self._decoder_from = math.ceil(recipe.decoder_from * steps)
        """Step at which D begins to learn alone."""
        super().__init__(
            data,
            preset,
            steps=steps,
            seed=seed,
            max_bad_pictures=max_bad_pictures,
            processes=processes,
            still_from=self._decoder_from,
        )
        if unknown := [name for name in recipe.blended if name not in data.groups]:
            _log.warning("recipe.blended names %s, which the data does not have", ", ".join(unknown))
        self._recipe = recipe
        self.critics = ("critic",) if recipe.has_critic else ()
        nets = Networks(
            self.config,
            with_critic=recipe.has_critic,
            with_readers=recipe.read > 0,
            with_teacher=recipe.decoder_from < 1,
        ).to(self.device)
        self.networks = self._nets = nets.to(memory_format=torch.channels_last)
        self.model, self.mean_model = self._nets.model, self._nets.mean
        self._rates = {
            "model.encoder": preset.learning_rate,
            "model.branches": preset.learning_rate * recipe.branch_rate,
            "model.decoder": preset.learning_rate,
        } | dict.fromkeys(self.critics, preset.critic_learning_rate)
        self._judged_from = math.ceil(recipe.critic_from * steps) if recipe.has_critic else steps
        """Step at which the critic joins."""
        before = self._judged_from if recipe.has_critic else None
        self.optimizers = {
            "model.encoder": Muon(self.model.encoder.parameters(), updates=before),
            "model.branches": torch.optim.Adam(self.model.branches.parameters(), betas=(0.9, 0.99), fused=True),
            "model.decoder": Muon(self.model.decoder.parameters(), updates=before),
        } | {
            name: torch.optim.Adam(nets.get_submodule(name).parameters(), betas=(0.5, 0.99), fused=True)
            for name in self.critics
        }
        if recipe.read > 0:
            self._rates["readers"] = _READERS_RATE
            self.optimizers["readers"] = torch.optim.Adam(nets.readers.parameters(), betas=(0.9, 0.99), fused=True)
        self.weights = recipe.weights
        self.critic_weights = {"judgement": 1.0, "classifier": 1.0, "penalty": recipe.penalty * recipe.penalty_every}
        self.settings |= {"recipe": dataclasses.asdict(recipe)}
        branches = self.config.branches
        blended = (*recipe.blended, RESIDUAL)
        self._blends = torch.tensor([float(name in blended) for name in branches], device=self.device)
        mean, deviation = picture_statistics(preset.network, self.device)
        self._black, self._white = -mean / deviation, (1 - mean) / deviation
        columns = torch.tensor(self.label_columns, device=self.device)
        members = nn.functional.one_hot(columns, len(self.config.groups)).float()
        self._composition = Composition(members, judged=recipe.has_critic)
        self._places: Tensor | None = None
        """Where labels show, in the mean of all groups, [1, 1, H, W]; None where all places count alike."""
        if recipe.places > 0:
            places = label_places(data, preset.picture_size).mean(dim=0)[None, None]
            # An edge of a mouth counts on both sides.
            self._places = nn.functional.avg_pool2d(places, 3, stride=1, padding=1).to(self.device)

    def phase(self, step: int) -> str:
        """Name what this step trains."""
        return self._recipe.phase(step / self._steps)

    def begin_step(self, step: int) -> None:
        """Keep D as it is where it begins to learn alone."""
        if step == self._decoder_from:
            self._nets.teacher.load_state_dict(self.mean_model.decoder.state_dict())

    def learners(self, step: int) -> tuple[str, ...]:
        """Return D alone in its phase, and all networks except the critic before."""
        return ("model.decoder",) if self.phase(step) == DECODER else super().learners(step)

    def learning_rate(self, name: str, step: int) -> float:
        """Let all rates fall alike; where a critic joins or D begins to learn alone, they rise and fall again."""
        recipe, before = self._recipe, min(self._judged_from, self._decoder_from)
        if step < before:
            return self._rates[name] * rate_share(step, before)
        later_rate = recipe.judged_rate if recipe.has_critic else recipe.decoder_rate
        rate = later_rate if name.startswith("model.") else self._rates[name]
        return rate * rate_share(step - before, self._steps - before)

    def draw(self, batch: NormalisedBatch, step: int, generator: torch.Generator) -> Draws:
        """Draw which pictures stand in for others, and the way of each frame on the way."""
        recipe = self._recipe
        drawn = draw(
            len(batch.pictures),
            len(self.config.branches),
            generator,
            with_critic=step >= self._judged_from,
            decoder_alone=self.phase(step) == DECODER,
            penalised=step % recipe.penalty_every == 0,
            swap=recipe.swap,
        )
        return drawn.to(self.device)

    def forward(self, batch: NormalisedBatch, draws: Draws) -> Morphs:
        """Encode, apply the T_i, and decode all frames of the step as one batch."""
        model, source, target = self._nets.model, batch.source, batch.target
        with torch.set_grad_enabled(not draws.decoder_alone):
            encoded = model.encoder(batch.pictures)
            deltas = model.deltas(encoded[source], encoded[target])
            agree = self._composition.agree(batch)
            stand_ins = self._composition.stand_ins_for_kept(batch, agree, draws)
            features = {"kept": self._composed(encoded, source, stand_ins)}
            if self._recipe.arrive > 0 or draws.with_critic:
                features["whole"] = self._whole_features(batch, encoded, deltas, agree, draws)
        way = draws.decoder_alone and self._recipe.has_fronts
        if way:
            every = (batch.group == ALL_GROUPS).float().unsqueeze(1)
            start = every * draws.start
            moving = torch.lerp(self._composition.moving_branches(batch), draws.moving, every)
            before, after = self._ends(batch, encoded[source], deltas, start, moving, draws.times)
            parts = self._parts(encoded[source], deltas, start, moving)
            strengths = start + draws.times.unsqueeze(1) * moving
            features["between"] = encoded[source] + torch.einsum("pk,pkchw->pchw", strengths, deltas)
        decoded = self._decode(torch.cat(list(features.values()))).split([len(part) for part in features.values()])
        frames = dict(zip(features, decoded, strict=True))
        return Morphs(
            features_a=encoded[source],
            features_b=encoded[target],
            deltas=deltas,
            kept=frames["kept"],
            whole=frames.get("whole"),
            way=Way(frames["between"], before, after, parts) if way else None,
            read=self._read(encoded[source]) if self._recipe.read > 0 else None,
        )

    def _read(self, features: Tensor) -> Tensor:
        """Let the readers find the labels of each group in its T_i's part of features [P, C, h, w]; logits [P, L]."""
        branches = self._nets.model.branches
        logits: Tensor = self._nets.readers({group: branches[group](features) for group in self.config.groups})
        return logits

    def _decode(self, features: Tensor) -> Tensor:
        """Decode pictures, clamped to [black, white] as served ones are: a background is white, not nearly white.

        Gradients pass as if nothing were clamped, so that a value beyond white still learns to be grey.
        """
        pictures: Tensor = self._nets.model.decoder(features)
        return pictures + (self._clamp(pictures) - pictures).detach()

    def _clamp(self, pictures: Tensor) -> Tensor:
        return pictures.clamp(self._black, self._white)

    def critic_terms(self, batch: NormalisedBatch, draws: Draws, output: Morphs, update: int) -> dict[str, Tensor]:
        """Real pictures against frames, label by label; the classifier; and the gradient's penalty now and then."""
        if not draws.with_critic or output.whole is None:
            return {}
        critic, (frame_labels, counts) = self._nets.critic, self._composition.frame_labels(batch, draws)
        pictures = torch.cat([batch.pictures, output.whole.detach()])
        real, whole = critic(pictures).split(len(batch.pictures), len(output.whole))
        labels, known = batch.labels, batch.known
        terms = {
            "judgement": losses.real_loss(real.real)
            + losses.fake_loss(whole.real)
            + losses.conditional_loss(real.with_labels(labels), known, real=True)
            + 0.5 * losses.conditional_loss(real.with_labels(1 - labels), known, real=False)
            + 0.5 * losses.conditional_loss(whole.with_labels(frame_labels), counts, real=False),
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
        weights = self._place_weights(batch)
        terms = {
            "reconstruction": losses.reconstruction_loss(
                output.kept, batch.pictures[batch.source], weights[batch.source]
            ),
            "total": losses.total_loss(output.features_a, output.deltas, output.features_b),
        }
        if output.whole is not None:
            terms |= self._whole_terms(batch, draws, output.whole, weights[batch.target])
        if output.read is not None:
            terms["read"] = attribute_loss(output.read, batch.labels[batch.source], batch.known[batch.source])
        if output.way is not None:
            way = output.way.frame, output.way.before, output.way.after
            terms |= {"front": losses.front_loss(*way), "sweep": losses.sweep_loss(*way, draws.times, output.way.parts)}
        return {name: value for name, value in terms.items() if self.weights[name] > 0}

    def _whole_terms(self, batch: NormalisedBatch, draws: Draws, whole: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Compare the whole frames [P, 3, H, W] with b and a, and let the critic judge them."""
        pictures_a, pictures_b = batch.pictures[batch.source], batch.pictures[batch.target]
        terms = {}
        if self._recipe.arrive > 0:
            counts = self._composition.comparable_with_b(batch, draws)
            terms["arrive"] = losses.arrive_loss(whole, pictures_a, pictures_b, counts, weight, self._recipe.focus)
        if self._recipe.keep > 0:
            terms["keep"] = losses.keep_loss(whole, pictures_a, (batch.group != ALL_GROUPS).float())
        if draws.with_critic:
            judged, (labels, counts) = self._nets.critic(whole), self._composition.frame_labels(batch, draws)
            terms["real"] = losses.real_loss(judged.real)
            terms["labels"] = losses.conditional_loss(
                judged.with_labels(labels), counts, real=True
            ) + 0.5 * attribute_loss(judged.labels, labels, counts)
        return terms

    def _place_weights(self, batch: NormalisedBatch) -> Tensor:
        """Weight of each pixel, moved with the picture's augmentation, [B, 1, H, W]."""
        if self._places is None:
            return torch.ones_like(batch.pictures[:, :1])
        places = self._places.expand(len(batch.pictures), -1, -1, -1)
        grid = nn.functional.affine_grid(batch.placement, list(places.shape), align_corners=False)
        return 1 + self._recipe.places * nn.functional.grid_sample(places, grid, align_corners=False)

    def _whole_features(
        self, batch: NormalisedBatch, encoded: Tensor, deltas: Tensor, agree: Tensor, draws: Draws
    ) -> Tensor:
        """Return the features of each pair's whole frame, at the strengths that the critic shall see, [P, C, h, w]."""
        own = encoded[batch.source]
        moved = self._composed(encoded, batch.source, self._composition.stand_ins_for_whole(batch, agree, draws)) - own
        if not self._recipe.has_critic:
            return own + moved
        every = batch.group == ALL_GROUPS
        strengths = torch.where(every, draws.times, draws.strengths).view(-1, 1, 1, 1)
        return own + strengths * torch.where(every.view(-1, 1, 1, 1), deltas.sum(dim=1), moved)

    def _composed(self, features: Tensor, base: Tensor, pictures: Tensor) -> Tensor:
        """F_base + sum_i T_i(F_i - F_base) over the groups: base [N], pictures [N, G] -> features [N, C, h, w]."""
        composed = own = features[base]
        for group, column in zip(self.config.groups, pictures.unbind(dim=1), strict=True):
            composed = composed + self._nets.model.branches[group](features[column] - own)
        return composed

    @torch.no_grad()
    def _ends(
        self, batch: NormalisedBatch, features: Tensor, deltas: Tensor, start: Tensor, moving: Tensor, times: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The picture at the start of each way and that at its end, in the colours due, [P, 3, H, W] each.

        Where all branches are at 0, the end is a; where all are at 1, it is b. Elsewhere it is a + t - t_a, with t the
        teacher's picture at these strengths and t_a its picture of a. So what does not change is as sharp as in a.
        """
        every = self.batches.rows_of_all_groups.to(self.device)
        pairs, ways = len(features), len(every)
        # The way of a single group starts at a, and the group either blends or switches.
        start_all, moving_all, blends = start[every], moving[every], self._blends
        strengths = torch.cat(
            [start + moving, start_all, start_all + moving_all * blends, start_all + moving_all * (1 - blends)]
        )
        rows = torch.arange(pairs, device=self.device)
        rows = torch.cat([rows, every, every, every])
        moved = features[rows] + torch.einsum("nk,nkchw->nchw", strengths, deltas[rows])
        decoded, of_a = self._clamp(self._nets.teacher(torch.cat([moved, features]))).split([len(moved), pairs])
        pictures_a, pictures_b = batch.pictures[batch.source], batch.pictures[batch.target]
        drawn = self._clamp(pictures_a[rows] + decoded - of_a[rows])
        at_b = (strengths == 1).all(dim=1).view(-1, 1, 1, 1)
        last, *three = torch.where(at_b, pictures_b[rows], drawn).split([pairs, ways, ways, ways])
        blending = (moving @ blends > 0).view(-1, 1, 1, 1)
        one = pictures_a, torch.where(blending, last, pictures_a), torch.where(blending, pictures_a, last)
        first, coloured, shaped = (
            of_one.index_copy(0, every, of_all) for of_one, of_all in zip(one, three, strict=True)
        )
        time = times.view(-1, 1, 1, 1)
        return (1 - time) * first + time * coloured, (1 - time) * shaped + time * last

    @torch.no_grad()
    def _parts(self, features: Tensor, deltas: Tensor, start: Tensor, moving: Tensor) -> Tensor:
        """How much each group that switches changes each place of the start of a way, [P, N, H, W].

        It is what the teacher changes when that group alone goes to the end of the way. Where a pair's own group moves
        alone, all is one part and 0 says so.
        """
        every = self.batches.rows_of_all_groups.to(self.device)
        switching = self._blends == 0
        alone = torch.diag(1 - self._blends)[switching] if switching.any() else torch.zeros_like(self._blends[None])
        strengths = torch.cat([start[every, None], start[every, None] + moving[every, None] * alone], dim=1)
        moved = features[every, None] + torch.einsum("nsk,nkchw->nschw", strengths, deltas[every])
        decoded = self._clamp(self._nets.teacher(moved.flatten(0, 1))).unflatten(0, strengths.shape[:2])
        changes = (decoded[:, 1:] - decoded[:, :1]).abs().mean(dim=2)
        parts: Tensor = changes.new_zeros(len(features), *changes.shape[1:]).index_copy(0, every, changes)
        return parts
