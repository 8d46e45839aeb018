"""`report.html`: the figures, the strips and the curves in one file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from homomorph.evaluation.held_out import HeldOut
from homomorph.evaluation.measure import Measured

Pictures = NDArray[np.uint8]

ABOUT = {
    "reconstruction": "D(E(a)) against a: dB, and structural similarity; higher is better",
    "transfer": "labels of the group that differ and now read as b's, at v_g = 1; higher is better",
    "transfer_direction": "labels that a CycleGAN changes, in the pairs that differ its way; higher is better",
    "preservation": "labels outside the group that still read as a's, at v_g = 1; higher is better",
    "monotonicity": "rank correlation of v_g with the probability of b's labels; 1 is even",
    "counterfactual": "against a drawn again with b's options of the group: 0 = doing nothing, 1 = the truth, encoded",
    "counterfactual_half": "the same at v_g = 0.5, in the colour half way",
    "jump": "largest step / mean step along the path; 1 is even",
    "ppl": "length of the path in d; shorter is smoother",
    "pdv": "variance of the steps; smaller is more even",
    "pps": "even steps and a short path, 0 to 1; higher is better",
    "frechet": "distance of frames to real pictures, in the classifier's features; lower is more believable",
    "frechet_reconstruction": "the same of reconstructions alone: the part that is not the path's; 0 is best",
    "ghost": "half way, distance of each place to the nearer end in mixed colours: 0 = crisp, 1 = as pixel blending",
    "ghost_floor": "the same of an end in mixed colours, encoded and decoded: the part that is not the path's",
    "ghost_others_0": "the same with one group on its way and the others at 0",
    "ghost_others_1": "the same with one group on its way and the others at 1",
    "symmetry": "difference of b's share between left and right where both pictures are symmetric; 0 is best",
    "background": "error on pure white, in grey levels",
    "endpoint": "v = 1 against b encoded and decoded, in grey levels",
    "shift": "transfer of moved pictures minus transfer; 0 is best",
    "cost": "of training and of a frame; frame_time is a multiple of homomorph's",
}
"""What each figure says, and which way is better."""

_UNLIKE_PARTS = ("reconstruction", "background", "cost")
"""Figures whose parts are not groups, and have no mean."""


@dataclass(frozen=True)
class _Row:
    name: str
    cells: list[str]
    about: str
    part: bool


@dataclass(frozen=True)
class _Strip:
    name: str
    src: str


def table_rows(measured: dict[str, Measured]) -> list[tuple[str, list[float | None], str, bool]]:
    """Lay the figures out as rows.

    Returns:
        (name, value per system or None, what it says, whether it is one group's or part's); the mean over the groups
        comes first where a figure has groups.
    """
    rows: list[tuple[str, list[float | None], str, bool]] = []
    taken = [system.figures for system in measured.values()]
    for name in (name for name in ABOUT if any(name in figures for figures in taken)):
        found = [figures.get(name) for figures in taken]
        parts = next((list(value) for value in found if isinstance(value, dict)), [])
        if parts and name not in _UNLIKE_PARTS:
            means = [float(np.mean(list(value.values()))) if isinstance(value, dict) else None for value in found]
            rows.append((name, means, ABOUT[name], False))
        elif not parts:
            rows.append((name, [value if isinstance(value, float) else None for value in found], ABOUT[name], False))
        for part in parts:
            values = [value.get(part) if isinstance(value, dict) else None for value in found]
            whole = name in _UNLIKE_PARTS
            rows.append((f"{name} {part}" if whole else part, values, ABOUT[name] if whole else "", not whole))
    return rows


def shown(value: float | None) -> str:
    """Print a figure for people."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}" if abs(value) >= 2 else f"{value:.3f}"


def write_report(measured: dict[str, Measured], held_out: HeldOut, meta: dict[str, Any]) -> str:
    """Build the page.

    Args:
        measured: per system.
        held_out: the pairs, of which the first and the worst are shown.
        meta: how it was measured, as in `metrics.json`.

    Returns:
        HTML, pictures and plots within.
    """
    template = resources.files("homomorph.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    ours = {name: system for name, system in measured.items() if name.startswith("homomorph")}
    by_group = ours | {name: system for name, system in measured.items() if name.startswith("cyclegan")}
    accuracy: dict[str, float] = meta["evaluator"]["accuracy_per_label"]
    return (
        jinja2.Environment(autoescape=True)
        .from_string(template)
        .render(
            meta=meta,
            floor=shown(meta["frechet_floor"]),
            drawn=shown(meta["frechet_drawn"]),
            ends=shown(meta["frechet_ends"]),
            translations=[
                (name, measured[name].pairs, shown(its_floor))
                for name, its_floor in meta["frechet_floor_of_translations"].items()
            ],
            meta_text=json.dumps(meta, indent=2),
            hardest=sorted(accuracy.items(), key=lambda item: item[1])[:3],
            systems=list(measured),
            rows=[_Row(name, [shown(v) for v in row], about, part) for name, row, about, part in table_rows(measured)],
            paths=[
                _Strip(name, _strips(system.path_strips, system.shown, held_out)) for name, system in measured.items()
            ],
            groups=[
                _Strip(f"{group} ({name})" if len(ours) > 1 else group, _strips(strips, system.shown, held_out))
                for name, system in ours.items()
                for group, strips in system.group_strips.items()
            ],
            plots=[
                _steps_plot(measured),
                _svg(responses_figure(measured)),
                *(_response_plot(name, system) for name, system in by_group.items()),
            ],
            worst=[
                _Strip(f"{group} ({name})" if len(by_group) > 1 else group, _worst(group, ranked, held_out))
                for name, system in by_group.items()
                for group, ranked in system.worst.items()
                if ranked
            ],
            truths=", and the truth: the picture drawn again with the other's options of the group"
            * bool(held_out.truths),
        )
    )


def _strips(frames: Pictures, pairs: list[int], held_out: HeldOut) -> str:
    """Rows of a, the frames, b: [P, S, 3, H, W] of these pairs -> data URI."""
    a, b = held_out.source[pairs, None], held_out.target[pairs, None]
    return _data_uri(np.concatenate([a, frames, b], axis=1))


def _worst(group: str, ranked: Sequence[tuple[int, Pictures]], held_out: HeldOut) -> str:
    """One row of blocks: a, b, the morph, and the truth where it is known."""
    blocks: list[Pictures] = []
    for pair, frame in ranked:
        blocks += [held_out.source[pair], held_out.target[pair], frame]
        if group in held_out.truths:
            blocks.append(held_out.truths[group][pair])
        blocks.append(np.full_like(frame[:, :, : frame.shape[2] // 4], 255))
    height = blocks[0].shape[1]
    return _png_uri(np.concatenate([block.reshape(3, height, -1) for block in blocks[:-1]], axis=2))


def _data_uri(tiles: Pictures) -> str:
    """Tiles [rows, columns, 3, H, W] side by side."""
    rows, columns, _, height, width = tiles.shape
    return _png_uri(tiles.transpose(2, 0, 3, 1, 4).reshape(3, rows * height, columns * width))


def _png_uri(picture: Pictures) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _steps_plot(measured: dict[str, Measured]) -> str:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, system in measured.items():
        steps = system.path_steps
        axes.plot((np.arange(len(steps)) + 0.5) / len(steps), steps, label=name)
    axes.set(xlabel="v, all groups together", ylabel="d to the next frame", xlim=(0, 1), title="Steps along the path")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _svg(figure)


def responses_figure(measured: dict[str, Measured]) -> Figure:
    """Plot probabilities along the strength of a group alone, all systems in a panel.

    The first panel is the mean over groups, of the systems that move groups. Then, for each way that a CycleGAN goes,
    its one label in the pairs that differ its way.
    """
    groups = {name: system for name, system in measured.items() if not name.startswith("cyclegan")}
    panels = {
        "b's labels, mean of the groups": {
            name: np.mean(list(system.responses.values()), axis=0) for name, system in groups.items()
        }
    }
    for name, system in measured.items():
        for direction, curve in system.direction_responses.items():
            panels.setdefault(direction, {})[name] = curve
    figure = Figure(figsize=(3.6 * len(panels) + 0.4, 3.4), layout="constrained")
    colours = {name: f"C{index}" for index, name in enumerate(measured)}
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, curve in curves.items():
            # What switches has nothing between two strengths.
            style = "steps-post" if name.startswith("cyclegan") else "default"
            axes.plot(np.linspace(0, 1, len(curve)), curve, label=name, color=colours[name], drawstyle=style)
        axes.set(xlabel="strength of the group", xlim=(0, 1), ylim=(0, 1.02), title=title)
        axes.legend(frameon=False)
    figure.axes[0].set_ylabel("probability")
    return figure


def _response_plot(name: str, system: Measured) -> str:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for group, response in system.responses.items():
        axes.plot(np.linspace(0, 1, len(response)), response, label=group)
    axes.set(xlabel="strength of the group", ylabel="probability of b's labels", xlim=(0, 1), ylim=(0, 1), title=name)
    axes.legend(frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg")
    text = stream.getvalue()
    return text[text.index("<svg") :]
