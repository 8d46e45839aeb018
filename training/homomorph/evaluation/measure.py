"""Takes all figures of one system, and keeps the pictures that show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import structural_similarity_index_measure

from homomorph.data.augmented import Jitter, positional_augmentation
from homomorph.evaluation import figures, ghost
from homomorph.evaluation.distance import Distance
from homomorph.evaluation.evaluator import Evaluator, moved_picture
from homomorph.evaluation.held_out import GHOST_STRENGTHS, HeldOut
from homomorph.evaluation.systems import Pictures, Pixel, System
from homomorph.evaluation.tasks import Task
from homomorph.models.config import RESIDUAL
from homomorph.progress import Progress, Report, silent

PAIR_CHUNK = 16
"""Pairs whose frames are in memory at once."""
PATH_FRAMES = 17
"""Frames from a to b, both included."""
STRENGTHS = 11
"""Values of a single group's strength, 0 and 1 included."""
WORST = 4
"""Pairs per group that are shown because they came out worst."""

Figures = dict[str, "float | dict[str, float]"]


@dataclass
class Measured:
    """What one system does."""

    figures: Figures
    """The figures under their names; per group where a group is what moves."""
    path_steps: NDArray[np.float64]
    """Mean of d between neighbouring frames, [PATH_FRAMES - 1]."""
    responses: dict[str, NDArray[np.float64]]
    """Per group, the mean probability of b's labels at each strength, [STRENGTHS]."""
    direction_responses: dict[str, NDArray[np.float64]]
    """Per way that a CycleGAN goes, that of its one label in the pairs that differ its way, [STRENGTHS]."""
    pairs: int
    """Number of the pairs that counted."""
    shown: list[int]
    """P of them, whose frames are kept."""
    path_strips: Pictures
    """Their frames with all strengths equal, [P, PATH_FRAMES, 3, H, W]."""
    group_strips: dict[str, Pictures]
    """Their frames with one strength alone, [P, STRENGTHS, 3, H, W]."""
    moved_strips: dict[str, Pictures]
    """The same of pictures that were moved as for `shift`, between a and b: [P, STRENGTHS + 2, 3, H, W]."""
    worst: dict[str, list[tuple[int, Pictures]]]
    """Per group, the pairs that came out worst: the pair's number and its frame at v_g = 1, [3, H, W]."""


def measure(
    tasks: Sequence[Task],
    held_out: HeldOut,
    evaluator: Evaluator,
    distance: Distance,
    *,
    shown: Sequence[int],
    stage: str = "pairs",
    report: Report = silent,
) -> Measured:
    """Take all figures of one system.

    Args:
        tasks: what it is measured on; several for a CycleGAN, one for each direction.
        held_out: pairs, and the truth where it is known.
        evaluator: trained.
        distance: d.
        shown: pairs whose frames are kept, where they count.
        stage: what the reports call this system.
        report: called after each chunk of pairs.
    """
    groups = [group for group in held_out.groups if any(group in task.columns for task in tasks)]
    collected = _Collected(groups)
    generator = np.random.default_rng(0)
    augment = positional_augmentation(Jitter(shift=0.1, scale=0.1, rotation_deg=10, probability=1))
    done, total = 0, sum(len(task.rows) for task in tasks)
    for task in tasks:
        for start in range(0, len(task.rows), PAIR_CHUNK):
            rows = task.rows[start : start + PAIR_CHUNK]
            _chunk(collected, task, held_out, evaluator, distance, rows, shown, generator, augment)
            done += len(rows)
            report(Progress(stage, done, total))
    return collected.summary()


def _chunk(
    collected: _Collected,
    task: Task,
    held_out: HeldOut,
    evaluator: Evaluator,
    distance: Distance,
    rows: NDArray[np.intp],
    shown: Sequence[int],
    generator: np.random.Generator,
    augment: A.Compose,
) -> None:
    """Measure some of a task's pairs, and keep the frames of those shown."""
    system, branches = task.system, [*held_out.groups, RESIDUAL]
    a, b = held_out.source[rows], held_out.target[rows]
    kept = np.isin(rows, shown)
    collected.shown += rows[kept].tolist()
    collected.add("features.real", evaluator.judge(np.concatenate([a, b]))[1])
    shown_b = _reconstruction(collected, system, evaluator, a, b)
    path = _path(collected, system, evaluator, distance, a, b, shown_b, len(branches), generator)
    collected.path_strips += list(path[kept].copy())
    if not system.switches:
        _ghost(collected, system, held_out, rows, path)
        if system.has_groups:
            for group in [name for name in task.columns if name in held_out.swapped]:
                _group_ghost(collected, system, held_out, rows, branches, group)
    moved_a, moved_b = _moved(augment, rows, a, 0), _moved(augment, rows, b, 1)
    alone: tuple[Pictures, NDArray[np.float64], NDArray[np.float64]] | None = None
    for group in task.columns:
        # Without groups, every group's slider is the same one.
        if alone is None or system.has_groups:
            strengths = _alone(branches, group, len(a))
            frames = system.morph(a, b, strengths)
            judged = evaluator.judge(frames.reshape(-1, *a.shape[1:]))[0].reshape(len(a), STRENGTHS, -1)
            alone = frames, judged, evaluator.judge(system.morph(moved_a, moved_b, strengths[:, -1:])[:, 0])[0]
        _group(collected, held_out, task, group, rows, *alone)
        if kept.any():
            collected.group_strips[group] += list(alone[0][kept].copy())
            moved = system.morph(moved_a[kept], moved_b[kept], _alone(branches, group, int(kept.sum())))
            collected.moved_strips[group] += list(
                np.concatenate([moved_a[kept, None], moved, moved_b[kept, None]], axis=1)
            )


def _alone(branches: list[str], group: str, count: int) -> NDArray[np.float32]:
    """Strengths of one group from 0 to 1, the others 0: [count, STRENGTHS, K]."""
    strengths = np.zeros((count, STRENGTHS, len(branches)), dtype=np.float32)
    strengths[:, :, branches.index(group)] = np.linspace(0, 1, STRENGTHS)
    return strengths


def _moved(augment: A.Compose, rows: NDArray[np.intp], pictures: Pictures, side: int) -> Pictures:
    """Move one side's pictures of some pairs, the same way for every system."""
    moved = []
    for row, picture in zip(rows.tolist(), pictures, strict=True):
        augment.set_random_seed(2 * row + side)
        moved.append(moved_picture(augment, picture))
    return np.stack(moved)


def frechet_floor(held_out: HeldOut, evaluator: Evaluator, rows: NDArray[np.intp]) -> float:
    """`frechet` of real pictures that are in no pair, as many as a system shows: what perfect pictures would get.

    Args:
        held_out: pairs and other pictures.
        evaluator: trained.
        rows: the pairs that count.

    Returns:
        NaN where there are not as many: fewer pictures would lie further off by their number alone.
    """
    pairs = np.concatenate([held_out.source[rows], held_out.target[rows]])
    if len(held_out.pictures) < len(pairs):
        return float("nan")
    # The first ones, because those that did not train the evaluator are among them.
    others = held_out.pictures[: len(pairs)]
    return figures.frechet(evaluator.judge(others)[1], evaluator.judge(pairs)[1])


def frechet_drawn(held_out: HeldOut, evaluator: Evaluator) -> float:
    """`frechet` of drawn pictures that could stand between a and b: colours mixed, everything else a's or b's.

    No frame of a morph can be more believable than these; they jump from one look to the next.

    Returns:
        NaN where the truth about the pictures is not known.
    """
    if held_out.between is None:
        return float("nan")
    pairs = np.concatenate([held_out.source, held_out.target])
    return figures.frechet(evaluator.judge(held_out.between)[1], evaluator.judge(pairs)[1])


def frechet_ends(held_out: HeldOut, evaluator: Evaluator) -> float:
    """`frechet` of both ends drawn in the colours between, as `ghost` compares frames with: one strength a pair.

    Frames that show a or b whole, in mixed colours, would get this.

    Returns:
        NaN where the pictures cannot be drawn again.
    """
    if held_out.mixed_source is None or held_out.mixed_target is None:
        return float("nan")
    rows = np.arange(len(held_out.source))
    columns = rows % len(GHOST_STRENGTHS)
    ends = np.concatenate([held_out.mixed_source[rows, columns], held_out.mixed_target[rows, columns]])
    pairs = np.concatenate([held_out.source, held_out.target])
    return figures.frechet(evaluator.judge(ends)[1], evaluator.judge(pairs)[1])


class _Collected:
    """Values per pair, until they are averaged, and the pictures that are kept."""

    def __init__(self, groups: list[str]) -> None:
        self.groups = groups
        self.values: dict[str, list[NDArray[np.float64]]] = {}
        self.shown: list[int] = []
        self.path_strips: list[Pictures] = []
        self.group_strips: dict[str, list[Pictures]] = {group: [] for group in groups}
        self.moved_strips: dict[str, list[Pictures]] = {group: [] for group in groups}
        self.worst: dict[str, list[tuple[float, int, Pictures]]] = {group: [] for group in groups}

    def add(self, name: str, values: NDArray[np.float64] | NDArray[np.bool_]) -> None:
        """Add the values of a chunk of pairs, [B, ...]."""
        self.values.setdefault(name, []).append(values.astype(np.float64))

    def all(self, name: str) -> NDArray[np.float64]:
        """Everything that was added under a name; it may be nothing."""
        return np.concatenate(self.values.get(name, [np.zeros(0)]))

    def mean(self, name: str) -> float:
        """Mean of what is a number; NaN if nothing is."""
        values = self.all(name)
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")

    def rank(self, group: str, rows: NDArray[np.intp], badness: NDArray[np.float64], frames: Pictures) -> None:
        """Keep a group's worst frames; a badness of NaN counts as none."""
        ranked = self.worst[group]
        ranked += [
            (bad, int(pair), frame.copy())
            for bad, pair, frame in zip(badness, rows, frames, strict=True)
            if not np.isnan(bad)
        ]
        ranked.sort(key=lambda entry: -entry[0])
        del ranked[WORST:]

    def summary(self) -> Measured:
        """Average everything."""
        steps, real = self.all("steps"), self.all("features.real")
        directions = [name.partition(".")[2] for name in self.values if name.startswith("direction.")]
        per_group: dict[str, dict[str, float]] = {
            name: {group: self.mean(f"{name}.{group}") for group in self.groups}
            for name in ("transfer", "preservation", "monotonicity", "shifted")
        }
        shifted = per_group.pop("shifted")
        taken: Figures = {
            "reconstruction": {"psnr": self.mean("psnr"), "ssim": self.mean("ssim")},
            **per_group,
            **(
                {"transfer_direction": {name: self.mean(f"direction.{name}") for name in directions}}
                if directions
                else {}
            ),
            **self._counterfactual("counterfactual", "truth"),
            **self._counterfactual("counterfactual_half", "middle"),
            "jump": float(figures.jump(steps).mean()),
            "ppl": float(figures.ppl(steps).mean()),
            "pdv": float(figures.pdv(steps).mean()),
            "pps": float(figures.pps(steps, self.all("direct")).mean()),
            "frechet": figures.frechet(self.all("features"), real),
            "frechet_reconstruction": self._frechet_reconstruction(),
            **self._ghost(),
            "background": {name: self.mean(f"white.{name}") for name in ("reconstruction", "morph")},
            "endpoint": self.mean("endpoint"),
            "shift": float(np.mean([shifted[group] - per_group["transfer"][group] for group in self.groups])),
        }
        return Measured(
            figures=taken,
            pairs=len(steps),
            shown=self.shown,
            path_steps=steps.mean(axis=0),
            responses={group: self.all(f"response.{group}").mean(axis=0) for group in self.groups},
            direction_responses={name: self.all(f"along.{name}").mean(axis=0) for name in directions},
            path_strips=np.stack(self.path_strips),
            group_strips={group: np.stack(strips) for group, strips in self.group_strips.items()},
            moved_strips={group: np.stack(strips) for group, strips in self.moved_strips.items()},
            worst={group: [(pair, frame) for _, pair, frame in ranked] for group, ranked in self.worst.items()},
        )

    def _frechet_reconstruction(self) -> float:
        """NaN where nothing is reconstructed."""
        if "features.reconstruction" not in self.values:
            return float("nan")
        return figures.frechet(self.all("features.reconstruction"), self.all("features.reconstructed"))

    def _ghost(self) -> Figures:
        """`ghost` and its relatives; nothing for a system that has no frames in between."""
        if "ghost.frames" not in self.values:
            return {}
        blends = self.all("ghost.blends")
        alone = {
            name: {
                group: ghost.ghost(self.all(f"{name}.frames.{group}"), self.all(f"{name}.blends.{group}"))
                for group in self.groups
                if f"{name}.frames.{group}" in self.values
            }
            for name in ("ghost_others_0", "ghost_others_1")
        }
        return {
            "ghost": ghost.ghost(self.all("ghost.frames"), blends),
            "ghost_floor": ghost.ghost(self.all("ghost.floor"), blends),
            **{name: values for name, values in alone.items() if values},
            "symmetry": self.mean("symmetry"),
        }

    def _counterfactual(self, figure: str, truth: str) -> Figures:
        """The figure of the groups whose truth is known; nothing if none is."""
        values = {
            group: figures.counterfactual(
                self.all(f"{truth}.before.{group}"),
                self.all(f"{truth}.after.{group}"),
                self.all(f"{truth}.best.{group}"),
            )
            for group in self.groups
            if f"{truth}.before.{group}" in self.values
        }
        return {figure: values} if values else {}


def _reconstruction(
    collected: _Collected, system: System, evaluator: Evaluator, a: Pictures, b: Pictures
) -> Pictures | None:
    """Pictures after they have been through the networks; returns b's, None for a system that shows b as it is."""
    shown_a = system.reconstruct(a)
    if shown_a is None:
        return None
    shown_b = None if system.switches else system.reconstruct(b)
    collected.add("psnr", figures.psnr(shown_a, a))
    similarity = structural_similarity_index_measure(
        torch.from_numpy(shown_a) / 255.0, torch.from_numpy(a) / 255.0, data_range=1.0, reduction="none"
    )
    assert isinstance(similarity, torch.Tensor)
    collected.add("ssim", similarity.double().numpy())
    collected.add("white.reconstruction", figures.white_error(shown_a, (a == 255).all(axis=1)))
    for real, shown in ((a, shown_a), (b, shown_b)):
        if shown is not None:
            collected.add("features.reconstruction", evaluator.judge(shown)[1])
            collected.add("features.reconstructed", evaluator.judge(real)[1])
    return shown_b


def _path(
    collected: _Collected,
    system: System,
    evaluator: Evaluator,
    distance: Distance,
    a: Pictures,
    b: Pictures,
    shown_b: Pictures | None,
    branches: int,
    generator: np.random.Generator,
) -> Pictures:
    """All strengths equal, from a to b: [B, PATH_FRAMES, 3, H, W]."""
    strengths = np.linspace(0, 1, PATH_FRAMES, dtype=np.float32)[None, :, None]
    frames = system.morph(a, b, np.tile(strengths, (len(a), 1, branches)))
    around = distance.around(frames)
    collected.add("steps", around[:, :-1])
    collected.add("direct", around[:, -1])
    if shown_b is not None:
        collected.add("endpoint", np.abs(frames[:, -1].astype(np.float64) - shown_b).mean(axis=(1, 2, 3)))
    white = ((a == 255) & (b == 255)).all(axis=1)
    # Pictures that are shown as they are would hide what the changed ones lose.
    made = frames[:, -1:] if system.switches else frames
    errors = [figures.white_error(frame, white) for frame in made.swapaxes(0, 1)]
    collected.add("white.morph", np.mean(errors, axis=0))
    two = np.stack([generator.choice(PATH_FRAMES, size=2, replace=False) for _ in range(len(a))])
    sampled = np.take_along_axis(frames, two[:, :, None, None, None], axis=1)
    collected.add("features", evaluator.judge(sampled.reshape(-1, *a.shape[1:]))[1])
    return frames


def _ghost(collected: _Collected, system: System, held_out: HeldOut, rows: NDArray[np.intp], path: Pictures) -> None:
    """Compare frames of the path, [B, PATH_FRAMES, 3, H, W], with both ends in the colours between."""
    a, b = held_out.source[rows], held_out.target[rows]
    for column, strength in enumerate(GHOST_STRENGTHS):
        ends_a = a if held_out.mixed_source is None else held_out.mixed_source[rows, column]
        ends_b = b if held_out.mixed_target is None else held_out.mixed_target[rows, column]
        frames = path[:, round(strength * (PATH_FRAMES - 1))]
        blends = Pixel().morph(a, b, np.full((len(a), 1, 1), strength, dtype=np.float32))[:, 0]
        collected.add("ghost.frames", ghost.nearest_error(frames, ends_a, ends_b))
        collected.add("ghost.blends", ghost.nearest_error(blends, ends_a, ends_b))
        collected.add("symmetry", ghost.side_differences(frames, ends_a, ends_b))
        reconstructed = system.reconstruct(ends_a)
        if reconstructed is not None:
            collected.add("ghost.floor", ghost.nearest_error(reconstructed, ends_a, ends_b))


def _group_ghost(
    collected: _Collected,
    system: System,
    held_out: HeldOut,
    rows: NDArray[np.intp],
    branches: list[str],
    group: str,
) -> None:
    """Compare frames with one group on the way with both ends, the other groups at 0 and at 1.

    With the others at 0 the ends are a, and a drawn with b's options of the group; with the others at 1 they are b
    drawn with a's options of the group, and b. Pairs whose ends are the same picture do not count.
    """
    a, b = held_out.source[rows], held_out.target[rows]
    ends = {0: (a, held_out.truths[group][rows]), 1: (held_out.swapped[group][rows], b)}
    for others, (first, second) in ends.items():
        differs = (first != second).any(axis=(1, 2, 3))
        if not differs.any():
            continue
        strengths = np.full((int(differs.sum()), len(GHOST_STRENGTHS), len(branches)), others, dtype=np.float32)
        strengths[:, :, branches.index(group)] = GHOST_STRENGTHS
        frames = system.morph(a[differs], b[differs], strengths)
        blends = Pixel().morph(first[differs], second[differs], strengths[:, :, [branches.index(group)]])
        for column in range(len(GHOST_STRENGTHS)):
            for name, shown in (("frames", frames), ("blends", blends)):
                error = ghost.nearest_error(shown[:, column], first[differs], second[differs])
                collected.add(f"ghost_others_{others}.{name}.{group}", error)


def _group(
    collected: _Collected,
    held_out: HeldOut,
    task: Task,
    group: str,
    rows: NDArray[np.intp],
    frames: Pictures,
    judged: NDArray[np.float64],
    moved: NDArray[np.float64],
) -> None:
    """One group alone.

    Args:
        collected: takes the values.
        held_out: pairs and truths.
        task: what is measured.
        group: which group.
        rows: which pairs, B of them.
        frames: the group's strength from 0 to 1, [B, STRENGTHS, 3, H, W].
        judged: probabilities of these, [B, STRENGTHS, L].
        moved: probabilities of morphs of shifted pictures at v_g = 1, [B, L].
    """
    labels_a, labels_b, columns = held_out.labels_a[rows], held_out.labels_b[rows], task.columns[group]
    collected.add(f"transfer.{group}", figures.transfer(judged[:, -1], labels_a, labels_b, columns))
    collected.add(f"preservation.{group}", figures.preservation(judged[:, -1], labels_a, held_out.columns(group)))
    collected.add(f"shifted.{group}", figures.transfer(moved, labels_a, labels_b, columns))

    for direction in task.directions:
        if direction.group == group:
            reads = judged[direction.applies(held_out)[rows], :, direction.column]
            collected.add(f"direction.{direction.name}", (reads[:, -1] > 0.5) == direction.value)
            collected.add(f"along.{direction.name}", reads if direction.value else 1 - reads)

    # Probability of b's label along the strength, where it differs from a's.
    pair, label = np.nonzero(labels_a[:, columns] != labels_b[:, columns])
    wanted = labels_b[:, columns][pair, label][:, None]
    along = judged[:, :, columns][pair, :, label]
    response = np.where(wanted == 1, along, 1 - along)
    collected.add(f"response.{group}", response)
    if not task.system.switches:  # of a single step there is no order
        collected.add(f"monotonicity.{group}", figures.spearman(np.linspace(0, 1, STRENGTHS), response))

    changes = (labels_a[:, columns] != labels_b[:, columns]).any(axis=1)
    badness = np.full(len(changes), np.nan)
    np.fmax.at(badness, pair, 1 - response[:, -1])
    if group in held_out.truths:
        truth = held_out.truths[group][rows]
        errors = _errors(
            collected, task.system, f"truth.{{}}.{group}", held_out.source[rows], frames[:, -1], truth, changes
        )
        badness[changes] = errors
    if group in held_out.middles and not task.system.switches:
        middle, half = held_out.middles[group][rows], frames[:, STRENGTHS // 2]
        _errors(collected, task.system, f"middle.{{}}.{group}", held_out.source[rows], half, middle, changes)
    collected.rank(group, rows, badness, frames[:, -1])


def _errors(
    collected: _Collected,
    system: System,
    name: str,
    source: Pictures,
    morphed: Pictures,
    truth: Pictures,
    changes: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Errors against the truth, of the pairs whose group differs; returns those of the morphs."""
    if not changes.any():
        return np.zeros(0)
    source, morphed, truth = source[changes], morphed[changes], truth[changes]
    after = figures.squared_error(morphed, truth)
    collected.add(name.format("before"), figures.squared_error(source, truth))
    collected.add(name.format("after"), after)
    # A system that switches shows pictures as they are, too.
    best = None if system.switches else system.reconstruct(truth)
    collected.add(name.format("best"), figures.squared_error(truth if best is None else best, truth))
    return after
