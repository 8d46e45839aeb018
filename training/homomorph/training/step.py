"""One step of training: every network is updated by its own terms only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from homomorph.data.batches import Batch
from homomorph.models.critics import recoloured
from homomorph.models.perceptual import Perceptual, perceptual_distance
from homomorph.training import losses
from homomorph.training.draws import PATH_STEP
from homomorph.training.networks import Networks
from homomorph.training.parallel import Processes
from homomorph.training.phases import CRITICS, WARM_UP
from homomorph.training.recipe import Recipe
from homomorph.training.step_work import StepWork, label_columns
from homomorph.training.updates import frozen

TERMS = (
    "pixel",
    "phi3",
    "guidance",
    "scale",
    "projection",
    "residual",
    "part",
    "total",
    "detail",
    "counterfactual",
    "rest_reader",
    "rest",
    "wasserstein",
    "penalty",
    "head",
    "gan",
    "homomorphism",
    "path",
    "pace",
    "agreement",
    "picture_critic",
    "picture",
)
"""Names of all terms that a step can report."""

_TOGETHER = ("encoder", "branches", "decoder", "guidance", "prototypes", "part_reader")
"""What is updated at the end of a step, from the gradient of one sum; the critics are updated on their own before."""


class TrainingStep:
    """Takes the steps of a training, one call each."""

    def __init__(
        self,
        nets: Networks,
        optimizers: Mapping[str, torch.optim.Adam],
        recipe: Recipe,
        balance: Tensor,
        *,
        seed: int,
        processes: Processes,
    ) -> None:
        """Take the networks, and what updates them.

        Args:
            nets: updated in place.
            optimizers: of `make_optimizers`.
            recipe: weights of the terms; one of 0 is not computed where that saves work.
            balance: what each label counts for the attribute head where it is 0 and where it is 1, [2, L].
            seed: of strengths and noise.
            processes: this process among those that train.
        """
        self.nets, self.optimizers, self.recipe, self.balance = nets, optimizers, recipe, balance
        self.seed, self.processes = seed, processes

    def __call__(self, batch: Batch, pictures: Tensor, *, step: int, phase: str) -> dict[str, float]:
        """Update every network once, Dis and A' `critic_steps` times.

        Args:
            batch: labels and pairs, on the networks' device.
            pictures: the batch's, normalised, [B, 3, H, W].
            step: number of the step, from which strengths and noise are drawn.
            phase: see `phase_of`.

        Returns:
            Each term's unweighted value.
        """
        with self.processes.autocast():
            work = StepWork(self.nets, self.recipe, batch, pictures, phase, *self._generators(step))
            loss = _reconstruction(work) + self._decomposition(work)
            if phase != WARM_UP:
                loss = loss + _detail(work) + _counterfactual(work) + self._rest(work)
            if phase == CRITICS:
                loss = loss + self._feature_critic(work) + _path(work) + self._picture_critic(work)
        self._update(_TOGETHER, loss, largest_norm=1.0, branches_loss=work.branches_loss)
        # All at once: a GPU is waited for whenever a number is asked of it.
        values = torch.stack([value.detach() for value in work.terms.values()]).tolist()
        return self.processes.average(dict(zip(work.terms, values, strict=True)), TERMS)

    def _generators(self, step: int) -> tuple[torch.Generator, torch.Generator]:
        """Numbers that depend on the seed, the step and this process alone.

        Returns:
            For what is drawn on the CPU whatever the device is, and for noise, drawn where it is needed.
        """
        seed = self.seed * 1_000_003 + step + (self.processes.rank << 40)
        device = self.processes.device
        drawn = torch.Generator().manual_seed(seed)
        return drawn, drawn if device.type == "cpu" else torch.Generator(device).manual_seed(seed)

    def _update(
        self,
        names: Sequence[str],
        loss: Tensor,
        *,
        largest_norm: float | None = None,
        branches_loss: Tensor | None = None,
    ) -> None:
        """Update these networks by the gradient of `loss`, and the T_i by that of `branches_loss` too.

        Each network's gradient is cut to `largest_norm` first.
        """
        for name in names:
            self.optimizers[name].zero_grad(set_to_none=True)
        if branches_loss is not None:
            # Terms that E must not see: the T_i have been applied once for all terms, the way back differs.
            branches_loss.backward(inputs=list(self.nets.model.branches.parameters()), retain_graph=True)
        loss.backward()
        for name in names:
            parameters = self.optimizers[name].param_groups[0]["params"]
            self.processes.average_gradients(parameters)
            if largest_norm is not None:
                nn.utils.clip_grad_norm_(parameters, largest_norm)
            self.optimizers[name].step()

    def _decomposition(self, work: StepWork) -> Tensor:
        """What each T_i may carry of d (E and T_i), what it has to tell of it, and that all reach b together (T_i)."""
        nets, recipe, terms = work.nets, work.recipe, work.terms
        terms["total"] = losses.total_loss(work.features_a + work.deltas.sum(dim=1), work.features_b)
        work.branches_loss = work.branches_loss + recipe.l_total * terms["total"]
        loss = work.pictures.new_zeros(())
        if recipe.l_projection > 0:
            sizes = [len(names) for names in work.config.groups.values()]
            known = [part.all(dim=1) for part in (work.known_a & work.known_b).split(sizes, dim=1)]
            terms["projection"] = losses.projection_loss(
                work.deltas[:, :-1],
                nets.prototypes(work.labels_b - work.labels_a),
                work.features_b - work.features_a,
                torch.stack(known, dim=1),
            )
            loss = loss + recipe.l_projection * terms["projection"]
        if recipe.l_residual > 0:
            terms["residual"] = losses.residual_loss(work.deltas[:, -1])
            loss = loss + recipe.l_residual * terms["residual"]
        if recipe.l_part > 0:
            read = nets.part_reader([part + work.noise(part) for part in work.parts])
            terms["part"] = losses.attribute_loss(read, work.batch.labels, work.batch.known, self.balance)
            loss = loss + recipe.l_part * terms["part"]
        return loss

    def _rest(self, work: StepWork) -> Tensor | float:
        """Update what reads group i's labels from F - T_i(F); then E and the T_i, so that it cannot."""
        if self.recipe.l_rest == 0:
            return 0.0
        reader, batch = self.nets.rest_reader, work.batch
        groups = work.config.groups
        rests = torch.cat([work.encoded - part for part in work.parts])
        rests = rests + work.noise(rests)
        group_of = torch.tensor(label_columns(groups), device=rests.device)

        def read(features: Tensor) -> Tensor:
            logits: Tensor = reader(features).unflatten(0, (len(groups), -1))
            return logits[group_of, :, torch.arange(len(group_of))].T

        work.terms["rest_reader"] = losses.attribute_loss(read(rests.detach()), batch.labels, batch.known, self.balance)
        self._update(["rest_reader"], work.terms["rest_reader"])
        with frozen(reader):
            work.terms["rest"] = losses.concealment_loss(read(rests), batch.labels, batch.known)
        return self.recipe.l_rest * work.terms["rest"]

    def _feature_critic(self, work: StepWork) -> Tensor:
        """Update Dis and A' on features, several times; then what E and the T_i have to gain against them."""
        recipe, critic, terms = self.recipe, self.nets.critic, work.terms
        noise = work.noise(work.morphed)
        fake, real = (work.morphed + noise).detach(), (work.features_a + noise).detach()
        for _ in range(recipe.critic_steps):
            real_score, _unused = critic(real)
            fake_score, logits = critic(fake)
            mix = torch.rand(len(real), generator=work.generator).to(real.device)
            terms["wasserstein"] = losses.critic_loss(real_score, fake_score)
            terms["penalty"] = losses.gradient_penalty(lambda x: critic(x)[0], real, fake, mix)
            terms["head"] = losses.attribute_loss(logits, work.labels_a, work.known_a, self.balance)
            self._update(["critic"], terms["wasserstein"] + recipe.lambda_p * terms["penalty"] + terms["head"])
        # E and T_i against Dis, T_i against A'.
        with frozen(critic):
            fake_score, logits = critic(work.morphed + noise)
            # Without the anchor, the score of F_a counts for nothing.
            real_score = critic(work.features_a + noise)[0] if recipe.anchor > 0 else fake_score.detach()
            terms["gan"] = losses.generator_loss(fake_score, real_score, recipe.anchor)
            terms["homomorphism"] = losses.attribute_loss(logits, work.labels_v, work.known_v)
        work.branches_loss = work.branches_loss + recipe.l_hom * terms["homomorphism"]
        return recipe.l_gan * terms["gan"]

    def _picture_critic(self, work: StepWork) -> Tensor | float:
        """Update the critic on decoded pictures; then what E, the T_i and D have to gain against it."""
        if self.recipe.l_picture == 0:
            return 0.0
        critic, batch = self.nets.picture_critic, work.batch
        # Morphs with whole strengths have labels; what is between two pictures has none, and may have any colours.
        between = work.frames[:, 1:-1:2].flatten(0, 1)
        fakes = torch.cat([work.shown, recoloured(between, work.generator)])
        fakes = fakes.contiguous(memory_format=torch.channels_last)
        fake_labels = torch.cat([work.labels_v[work.told], between.new_zeros(len(between), work.labels_v.shape[1])])
        fake_judged = torch.cat([between.new_ones(len(work.shown)), between.new_zeros(len(between))])
        reals = torch.cat([work.pictures, recoloured(work.pictures, work.generator)])
        reals = reals.contiguous(memory_format=torch.channels_last)
        judged = work.complete.float()
        real_labels, real_judged = batch.labels.repeat(2, 1), torch.cat([judged, torch.zeros_like(judged)])
        others = torch.randperm(len(work.pictures), generator=work.generator).to(judged.device)
        wrong = batch.labels[others]
        mismatch = (wrong != batch.labels).any(dim=1) & work.complete & work.complete[others]
        work.terms["picture_critic"] = losses.hinge_critic_loss(
            critic(reals, real_labels, real_judged),
            critic(fakes.detach(), fake_labels, fake_judged),
            critic(work.pictures, wrong, judged)[mismatch],
        )
        self._update(["picture_critic"], work.terms["picture_critic"])
        with frozen(critic):
            work.terms["picture"] = -critic(fakes, fake_labels, fake_judged).mean()
        return self.recipe.l_picture * work.terms["picture"]


def _reconstruction(work: StepWork) -> Tensor:
    """Reconstruction and knowledge guidance: E, D and P; and the scale of E's features."""
    nets, recipe, terms = work.nets, work.recipe, work.terms
    with torch.no_grad():
        shallow = nets.phi.relu3_1(work.pictures)
        deep = nets.phi.relu5_1(shallow)
    terms["pixel"] = losses.pixel_error(work.reconstructed, work.pictures).mean()
    terms["phi3"] = losses.relative_error(nets.phi.relu3_1(work.reconstructed), shallow)
    terms["guidance"] = losses.relative_error(nets.guidance(work.encoded, deep.shape[2:]), deep)
    loss = recipe.l_recon * (terms["phi3"] + recipe.l_pixel * terms["pixel"]) + recipe.l_kg * terms["guidance"]
    if recipe.l_scale > 0:
        terms["scale"] = losses.scale_loss(work.features_b - work.features_a)
        loss = loss + recipe.l_scale * terms["scale"]
    return loss


def _detail(work: StepWork) -> Tensor | float:
    """Reconstruction where labels show: E and D."""
    if work.recipe.l_detail == 0 or not work.told.any():
        return 0.0
    morph, attended = work.looked_at
    error = losses.pixel_error(work.reconstructed, work.pictures)
    work.terms["detail"] = losses.detail_loss(error, work.base[work.told][morph], attended)
    return work.recipe.l_detail * work.terms["detail"]


def _counterfactual(work: StepWork) -> Tensor | float:
    """Morphs with whole strengths show what labels say of them, and nothing else changes: E, T_i and D."""
    if work.recipe.l_counterfactual == 0 or not work.told.any():
        return 0.0
    base = work.base[work.told]
    with torch.no_grad():
        changed = work.nets.label_prior(work.labels_v[work.told], work.batch.placement[base])
        target = losses.counterfactual_target(work.pictures[base], work.expected[base], *changed)
    work.terms["counterfactual"] = losses.counterfactual_loss(work.shown, *target, *work.looked_at, work.recipe.focus)
    return work.recipe.l_counterfactual * work.terms["counterfactual"]


def _path(work: StepWork) -> Tensor:
    """The way from a to b is even and short, to the eye as well, and what both agree in stays: E, T_i and D."""
    recipe, loss = work.recipe, work.pictures.new_zeros(())
    if recipe.l_path > 0:
        # In float32: a short step changes little.
        frames = work.frames.float()
        steps = (frames[:, 2:-1:2] - frames[:, 1:-1:2]).abs().mean(dim=(2, 3, 4))
        direct = (frames[:, -1] - frames[:, 0]).abs().mean(dim=(1, 2, 3))
        work.terms["path"] = losses.path_loss(steps, PATH_STEP, direct)
        loss = loss + recipe.l_path * work.terms["path"]
    if recipe.l_pace > 0:
        before, after = work.frames[:, 1:-1:2], work.frames[:, 2:-1:2]
        seen = [_seen_by(work.nets.phi, frames.flatten(0, 1)) for frames in (before, after)]
        work.terms["pace"] = losses.pace_loss(perceptual_distance(*seen).view(before.shape[:2]))
        loss = loss + recipe.l_pace * work.terms["pace"]
    if recipe.l_agreement > 0:
        # Of the other ways, the end is not b.
        whole, pairs = work.frames[::2, 1:-1:2], work.path_pairs
        a, b = (work.pictures[side[pairs][::2]] for side in (work.source, work.target))
        work.terms["agreement"] = losses.agreement_loss(whole, a, b)
        loss = loss + recipe.l_agreement * work.terms["agreement"]
    return loss


def _seen_by(phi: Perceptual, pictures: Tensor) -> list[Tensor]:
    """Phi's maps of normalised pictures [B, 3, H, W], in float32: a short step changes little."""
    with torch.autocast(pictures.device.type, enabled=False):
        shallow = phi.relu3_1(pictures.float().contiguous(memory_format=torch.channels_last))
        return [shallow, phi.relu5_1(shallow)]
