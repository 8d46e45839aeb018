"""`report.html`: the figures, strips and curves in one self-contained file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.headline import headline
from homomorph.evaluation.held_out import HeldOut
from homomorph.evaluation.plots import as_svg, group_responses_figure, responses_figure, steps_figure
from homomorph.evaluation.results import MethodResult
from homomorph.evaluation.table import format_figure, table_rows


@dataclass(frozen=True)
class _TableRow:
    name: str
    cells: list[str]
    about: str
    part: bool


@dataclass(frozen=True)
class _StripRow:
    name: str
    src: str
    """The row's pictures side by side, as a data URI."""


@dataclass(frozen=True)
class _Strips:
    """Pictures in rows and columns that have names."""

    name: str
    columns: list[str]
    rows: list[_StripRow]
    tile_px: int
    """Width of one picture."""


def write_report(results: Mapping[str, MethodResult], held_out: HeldOut, meta: dict[str, Any]) -> str:
    """Build the page.

    Args:
        results: per method.
        held_out: the pairs, of which the first and the worst are displayed.
        meta: how it was measured, as in `metrics.json`.

    Returns:
        HTML, pictures and plots within.
    """
    template = resources.files("homomorph.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    models = {name: result for name, result in results.items() if name.startswith("homomorph")}
    by_group = models | {name: result for name, result in results.items() if name.startswith("cyclegan")}
    accuracy: dict[str, float | None] = meta["evaluator"]["accuracy_per_label"]
    known_accuracy = {name: value for name, value in accuracy.items() if value is not None}
    return (
        jinja2.Environment(autoescape=True)
        .from_string(template)
        .render(
            meta=meta,
            headline=headline(results),
            floor=format_figure(meta["frechet_floor"]),
            drawn=format_figure(meta["frechet_drawn"]),
            ends=format_figure(meta["frechet_ends"]),
            translations=[
                (name, results[name].pairs, format_figure(its_floor))
                for name, its_floor in meta["frechet_floor_of_translations"].items()
            ],
            meta_text=json.dumps(meta, indent=2),
            hardest=sorted(known_accuracy.items(), key=lambda item: item[1])[:3],
            methods=list(results),
            rows=[
                _TableRow(name, [format_figure(value) for value in row], about, part)
                for name, row, about, part in table_rows(results)
            ],
            paths=[
                _frame_strips(name, result.path_strips, result.displayed_pairs, held_out)
                for name, result in results.items()
            ],
            groups=[
                _frame_strips(
                    f"{group} ({name})" if len(models) > 1 else group, strips, result.displayed_pairs, held_out
                )
                for name, result in models.items()
                for group, strips in result.group_strips.items()
            ],
            plots=[
                as_svg(steps_figure(results)),
                as_svg(responses_figure(results)),
                *(as_svg(group_responses_figure(name, result)) for name, result in by_group.items()),
            ],
            worst=[
                _worst_strips(f"{group} ({name})" if len(by_group) > 1 else group, group, ranked, held_out)
                for name, result in by_group.items()
                for group, ranked in result.worst.items()
                if ranked
            ],
        )
    )


def _frame_strips(name: str, frames: Pictures, pairs: Sequence[int], held_out: HeldOut) -> _Strips:
    """Return one row for each pair: a, its frames (of [P, S, 3, H, W]), b."""
    columns = ["a", *(f"{strength:.2g}" for strength in np.linspace(0, 1, frames.shape[1])), "b"]
    rows = {
        f"pair {pair}": [held_out.source[pair], *strip, held_out.target[pair]]
        for pair, strip in zip(pairs, frames, strict=True)
    }
    return _strips(name, columns, rows)


def _worst_strips(name: str, group: str, ranked: Sequence[tuple[int, Pictures]], held_out: HeldOut) -> _Strips:
    """Return one row for each pair: a, b, the morph at v_g = 1, and the truth if it is known."""
    truths = None if held_out.redrawn is None else held_out.redrawn.counterfactuals.get(group)
    columns = ["a", "b", "morph"] + ["truth"] * (truths is not None)
    rows = {
        f"pair {pair}": [held_out.source[pair], held_out.target[pair], frame]
        + ([] if truths is None else [truths[pair]])
        for pair, frame in ranked
    }
    return _strips(name, columns, rows)


def _strips(name: str, columns: list[str], rows: Mapping[str, Sequence[Pictures]]) -> _Strips:
    named = [_StripRow(row, _png_uri(np.concatenate(list(pictures), axis=2))) for row, pictures in rows.items()]
    return _Strips(name, columns, named, next(iter(rows.values()))[0].shape[2])


def _png_uri(picture: Pictures) -> str:
    """Return a picture [3, H, W] as a data URI."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
