"""`homomorph morph`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer

from homomorph_cli.options import Method, Out, Server, asks_server
from homomorph_client import MethodError, StrengthError
from homomorph_client.methods import HOMOMORPH, blending_model
from homomorph_client.output import check_output, write_output
from homomorph_client.pictures import load_picture
from homomorph_client.strengths import DEFAULT_STEPS, MAX_STEPS, MAX_STRENGTH, even_ramp, to_strengths


@asks_server
def morph(
    source: Annotated[Path, typer.Argument(metavar="A", help="Picture to start from.")],
    target: Annotated[Path, typer.Argument(metavar="B", help="Picture to reach.")],
    out: Out,
    server: Server,
    steps: Annotated[int, typer.Option(min=2, max=MAX_STEPS, help="Frames, A and B included.")] = DEFAULT_STEPS,
    sliders: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="GROUP=V",
            help=f"Take only this group from B: its strength goes from 0 to V (0 to {MAX_STRENGTH:g}; 1 is as in B). "
            "May be given several times; without it, every group goes from 0 to 1.",
        ),
    ] = None,
    method: Method = "homomorph",
) -> None:
    """Morph one picture into another on a running server.

    Pictures may have any size: their centre is cropped to a square and resized as the model wants it.
    """
    # Whatever can be refused is refused before the server is asked.
    for path in out:
        check_output(path)
    ends = parse_sliders(sliders or [])
    if ends and method != HOMOMORPH:
        raise MethodError(f"--set is for --method {HOMOMORPH}: {method} has one slider for everything")
    pictures = load_picture(source), load_picture(target)

    with server.client() as client:
        groups = client.served_model(blending_model(method)).groups
        strengths = slider_strengths(groups, ends, steps)
        start = time.perf_counter()
        frames = client.morph(*pictures, strengths=strengths, method=method)
        latency_ms = (time.perf_counter() - start) * 1000

    for path in out:
        write_output(path, frames)
        typer.echo(path)
    count, height, width, _ = frames.shape
    typer.echo(f"{count} frames of {width}x{height} pixels in {latency_ms:.0f} ms")


def parse_sliders(sliders: list[str]) -> dict[str, float]:
    """Read `group=v` words.

    Raises:
        StrengthError: one is not of that form, a group is named twice, or a value is out of range.
    """
    ends: dict[str, float] = {}
    for slider in sliders:
        group, equals, value = slider.partition("=")
        if not (group and equals):
            raise StrengthError(f"--set {slider!r} must be GROUP=V, such as glasses=1")
        if group in ends:
            raise StrengthError(f"--set names {group!r} twice")
        try:
            ends[group] = float(value)
        except ValueError:
            raise StrengthError(f"--set {slider!r}: {value!r} is not a number from 0 to {MAX_STRENGTH:g}") from None
        to_strengths([group], {group: ends[group]})  # is it in range?
    return ends


def slider_strengths(groups: tuple[str, ...], ends: dict[str, float], steps: int) -> npt.NDArray[np.float32]:
    """Return float32 [S, K]: the named groups go from 0 to their value, the others stay 0; without names all go to 1.

    Raises:
        StrengthError: a group is unknown.
    """
    ends = ends or dict.fromkeys(groups, 1.0)
    return to_strengths(groups, {group: end * even_ramp(steps) for group, end in ends.items()})
