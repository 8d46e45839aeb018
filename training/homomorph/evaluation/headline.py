"""Summarises an evaluation's figures in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping

from homomorph.evaluation.results import MethodResult
from homomorph.evaluation.table import format_figure, mean_of

GOOD_SHARE = 0.95
"""From here on, `transfer` and `preservation` are called good."""
CRISP = 0.35
"""Up to here, `ghost` is called crisp."""


def headline(results: Mapping[str, MethodResult]) -> list[str]:
    """Say of each trained model whether its sliders work and its frames are crisp and believable."""
    pixel = results["pixel"].figures
    sentences = []
    for name, result in results.items():
        if name.partition(":")[0] == "homomorph":
            sentences += [
                _sliders(name, result),
                _frames(name, result),
                _believable(name, result, mean_of(pixel["frechet"])),
            ]
    return sentences


def _sliders(name: str, result: MethodResult) -> str:
    transfer, preservation = result.figures["transfer"], mean_of(result.figures["preservation"])
    assert isinstance(transfer, dict)
    worst = min(transfer, key=lambda group: transfer[group])
    mean = mean_of(transfer)
    assert mean is not None
    assert preservation is not None
    arrives = (
        "arrives" if transfer[worst] >= GOOD_SHARE else "arrives in most pictures" if mean >= 0.5 else "hardly moves"
    )
    alone = "leaves" if preservation >= GOOD_SHARE else "does not always leave"
    return (
        f"{name}: a slider {arrives} (transfer {format_figure(mean)}, least {worst} {format_figure(transfer[worst])}) "
        f"and {alone} everything else as it is (preservation {format_figure(preservation)})."
    )


def _frames(name: str, result: MethodResult) -> str:
    ghost, floor = mean_of(result.figures["ghost"]), mean_of(result.figures["ghost_floor"])
    assert ghost is not None
    shows = (
        "each place shows one picture or the other"
        if ghost <= CRISP
        else "places show less of a mixture than a blend of pixels"
        if ghost < 1
        else "places show as much of a mixture as a blend of pixels, or more"
    )
    return (
        f"{name}: on the way, {shows} (ghost {format_figure(ghost)}, a blend 1, an end encoded and decoded "
        f"{format_figure(floor)})."
    )


def _believable(name: str, result: MethodResult, pixel: float | None) -> str:
    frechet = mean_of(result.figures["frechet"])
    assert frechet is not None
    assert pixel is not None
    nearer = "nearer to" if frechet < pixel else "further from"
    return (
        f"{name}: its frames are {nearer} real pictures than a blend of pixels (frechet {format_figure(frechet)}, "
        f"a blend {format_figure(pixel)})."
    )
