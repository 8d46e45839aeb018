"""Writes an evaluation's tables and pictures into a page of documentation, between the page's marks.

<!-- figures -->
this text is replaced
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from homomorph.errors import DataError
from homomorph.evaluation.evaluate import Evaluation, Example
from homomorph.evaluation.figures import Pictures
from homomorph.evaluation.plots import responses_figure
from homomorph.evaluation.results import MethodResult
from homomorph.evaluation.single_group import GROUP_FRAMES
from homomorph.evaluation.table import format_figure, table_rows
from homomorph_client.files import replacing, write_text
from homomorph_client.sheet import named_strips

SECTIONS = ("measured", "figures", "cost", "strips", "curves")
"""Sections between marks, by name."""
_COST = "cost "
DISPLAYED_FRAMES = (0, 2, 5, 8, 10)
"""Indices of the frames that a page shows of each strip. Half of the frames halve the file size."""


def check_page(page: Path, sections: Iterable[str] = SECTIONS) -> str:
    """Read a page.

    Raises:
        DataError: the page does not exist, or lacks the marks of one of the sections.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{page} is no page that figures can be written into: {error}") from error
    for section in sections:
        if len(_section(section).findall(text)) != 1:
            raise DataError(f"{page} must have <!-- {section} --> once, and <!-- end --> after it")
    return text


def replace_sections(page: Path, sections: Mapping[str, str]) -> str:
    """Return the text of a page with other sections between its marks.

    Raises:
        DataError: as `check_page`.
    """
    text = check_page(page, sections)
    for section, content in sections.items():
        (found,) = _section(section).finditer(text)
        text = f"{text[: found.start(2)]}\n{content}\n{text[found.end(2) :]}"
    return text


def write_page(page: Path, evaluation: Evaluation) -> None:
    """Write the tables into a page, and its pictures beside it, as `<page>-<name>.png`.

    Args:
        page: Markdown with marks for all `SECTIONS`.
        evaluation: what was measured.

    Raises:
        DataError: as `check_page`.
    """
    check_page(page)  # before a picture is written
    results = evaluation.results
    rows = [(name, values) for name, values, _, part in table_rows(results) if not part]
    sections = {
        "measured": _measured(evaluation.meta),
        "figures": _table(results, [row for row in rows if not row[0].startswith(_COST)]),
        "cost": _table(results, [(name.removeprefix(_COST), values) for name, values in rows if name.startswith(_COST)])
        + _trained_on(evaluation.meta),
        "strips": "\n\n".join(_strips(page, evaluation)),
        "curves": _curves(page, results),
    }
    write_text(page, replace_sections(page, sections))


def _section(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->)(.*?)(<!-- end -->)", re.DOTALL)


def _measured(meta: dict[str, Any]) -> str:
    environment = meta["environment"]
    pairs = [f"{meta['pairs']} pairs"]
    pairs += [f"{n} of them for `{name}`" for name, n in meta["pairs_of_methods"].items() if n < meta["pairs"]]
    floors = [f"{format_figure(floor)} for `{name}`" for name, floor in meta["frechet_floor_of_translations"].items()]
    weights = ", ".join(f"`{name}` ({sha[:8]})" for name, sha in meta["weights"].items())
    return (
        f"Measured on {', '.join(pairs)}, by a judge that reads "
        f"{meta['evaluator']['accuracy']:.1%} of the labels of real pictures right; d is {meta['d']}. "
        f"Real pictures would get a `frechet` of {', '.join([format_figure(meta['frechet_floor']), *floors])}. "
        f"Drawn pictures that could stand between a and b would get {format_figure(meta['frechet_drawn'])}. "
        f"Runs, with the first digits of their weights' SHA-256: {weights}. {environment['cpu']}, "
        f"{environment['threads']} threads, torch {environment['torch']}."
    )


def _trained_on(meta: dict[str, Any]) -> str:
    """Name the machine of each training, and give the time of one frame of homomorph's."""
    sentences = [f"`{name}` was trained on {machine}." for name, machine in meta["trained_on"].items()]
    if reference_ms := meta["timing"]["reference_ms"]:
        sentences.append(f"A frame of homomorph's took {format_figure(reference_ms)} ms.")
    return "\n\n" + " ".join(sentences) if sentences else ""


def _table(results: dict[str, MethodResult], rows: list[tuple[str, list[float | None]]]) -> str:
    lines = [["figure", *results], ["---", *("---:" for _ in results)]]
    lines += [[f"`{name}`", *(format_figure(value) for value in values)] for name, values in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _strips(page: Path, evaluation: Evaluation) -> list[str]:
    """Draw each example twice, unmoved and moved, with one row for each method."""
    paragraphs = []
    for example in evaluation.examples:
        name = f"{page.stem}-{example.name.replace('_', '-')}"
        group = example.group.replace("_", " ")
        still, moved = _frames(evaluation, example), _shifted_frames(evaluation, example)
        _save(Image.fromarray(named_strips(still)), page.with_name(f"{name}.png"))
        _save(Image.fromarray(named_strips(moved)), page.with_name(f"{name}-moved.png"))
        paragraphs.append(
            f"![{example.name} in one pair by {', '.join(still)}]({name}.png)\n\n"
            f"*Pair {example.pair}: the strength of {group} at {_strengths()}, between the two pictures.*\n\n"
            f"![The same, moved]({name}-moved.png)\n\n"
            "*The same pair, each picture moved, scaled and rotated a little.*"
        )
    return paragraphs


def _frames(evaluation: Evaluation, example: Example) -> dict[str, Pictures]:
    """The methods' strips of one group, between a and b: uint8 [DISPLAYED_FRAMES + 2, H, W, 3] by the method's name."""
    a, b = (side[example.pair][None] for side in (evaluation.held_out.source, evaluation.held_out.target))
    return {
        name: _hwc(
            np.concatenate(
                [
                    a,
                    result.group_strips[example.group][
                        result.displayed_pairs.index(example.pair), list(DISPLAYED_FRAMES)
                    ],
                    b,
                ]
            )
        )
        for name, result in evaluation.results.items()
        if example.pair in result.displayed_pairs
    }


def _shifted_frames(evaluation: Evaluation, example: Example) -> dict[str, Pictures]:
    """The strips of moved pictures, with the moved pictures at both ends."""
    tiles = [0, *(1 + place for place in DISPLAYED_FRAMES), GROUP_FRAMES + 1]
    return {
        name: _hwc(result.shifted_strips[example.group][result.displayed_pairs.index(example.pair), tiles])
        for name, result in evaluation.results.items()
        if example.pair in result.displayed_pairs
    }


def _strengths() -> str:
    """Return the strengths of a strip's frames as text."""
    *most, last = (f"{place / (GROUP_FRAMES - 1):g}" for place in DISPLAYED_FRAMES)
    return f"{', '.join(most)} and {last}"


def _hwc(frames: Pictures) -> Pictures:
    return frames.transpose(0, 2, 3, 1)


def _curves(page: Path, results: dict[str, MethodResult]) -> str:
    """Draw each result's probability of b's labels over the strength."""
    file = page.with_name(f"{page.stem}-curves.png")
    with replacing(file) as partial:
        responses_figure(results).savefig(partial, format="png", dpi=100)
    return (
        f"![Probability of b's labels along the strength]({file.name})\n\n"
        "*What the judge reads as a group's strength rises. First the mean over the groups, in the pairs that differ "
        "there; then one label, in the pairs where a CycleGAN can change it.*"
    )


def _save(picture: Image.Image, file: Path) -> None:
    with replacing(file) as partial:
        picture.save(partial, "PNG", optimize=True)
