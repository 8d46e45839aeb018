"""Directions to change a picture in, one after the other, as the served model wants them, [S]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from homomorph_client.errors import DirectionError
from homomorph_client.served_model import read_parameters, working_size

TRANSLATE_MODEL = "translate"
"""Name of the served model that changes a picture in several directions."""
MAX_CHAIN = 32
"""Most steps that one request may ask for."""


@dataclass(frozen=True)
class ServedTranslation:
    """What a client must know to ask for a translation."""

    name: str
    directions: tuple[str, ...]
    """Names of what can be done to a picture, in the order of the numbers that are sent for them."""
    picture_size: int
    """Height and width in pixels of the pictures that are sent."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, picture_size: int | None = None) -> ServedTranslation:
        """Read a model's configuration as Triton reports it in JSON.

        Args:
            config: the configuration, with parameters `directions`, `picture_size` and `stride`.
            picture_size: height and width in pixels to work at; None is what the model was trained at.

        Raises:
            RequestError: the model is not one that homomorph exported.
            PictureError: `picture_size` is no multiple of the model's stride.
        """
        parameters = read_parameters(config, "directions")
        return cls(
            name=config["name"],
            directions=tuple(parameters["directions"].split(",")),
            picture_size=working_size(parameters, picture_size),
        )


def chosen_steps(directions: Sequence[str], steps: str | Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the numbers of the directions that a picture is changed in.

    Args:
        directions: names of those that are served.
        steps: one of them, or several in their order; the same one may come again.

    Returns:
        int64 [S].

    Raises:
        DirectionError: one is unknown, or there are none or too many.
    """
    names = [steps] if isinstance(steps, str) else list(steps)
    check_steps(names)
    for name in names:
        if name not in directions:
            raise DirectionError(f"there is no direction {name!r}: the model has {', '.join(directions)}")
    return np.array([directions.index(name) for name in names], np.int64)


def check_steps(names: Sequence[str]) -> None:
    """Check what can be checked of steps before the directions are known.

    Raises:
        DirectionError: there are none, too many, or one without a name.
    """
    if not 1 <= len(names) <= MAX_CHAIN:
        raise DirectionError(f"steps must be from 1 to {MAX_CHAIN} directions, not {len(names)}")
    if not all(names):
        raise DirectionError("a step has no name: give directions such as smiling, with commas between several")
