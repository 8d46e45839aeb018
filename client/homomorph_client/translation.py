"""The directions of a translation, as the served model takes them: int64 [S]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from homomorph_client.errors import DirectionError
from homomorph_client.served_model import check_names, positive, read_parameters, working_size


@dataclass(frozen=True)
class ServedTranslation:
    """Properties of the served model `translate` that a client needs for its requests."""

    name: str
    directions: tuple[str, ...]
    """Names of the directions; requests contain their indices."""
    picture_size: int
    """Height and width in pixels of the pictures that are sent."""
    max_steps: int
    """Largest number of directions of one request."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, picture_size: int | None = None) -> ServedTranslation:
        """Read a model's configuration as Triton reports it in JSON.

        Args:
            config: the configuration, with parameters `directions`, `picture_size`, `stride` and `max_steps`.
            picture_size: height and width in pixels to work at; None is what the model was trained at.

        Raises:
            RequestError: the model is not one that homomorph exported.
            PictureError: `picture_size` is no multiple of the model's stride.
        """
        parameters = read_parameters(config, "directions")
        stride, usual = (positive(parameters, name, int) for name in ("stride", "picture_size"))
        return cls(
            name=config["name"],
            directions=tuple(parameters["directions"].split(",")),
            picture_size=working_size(stride, usual, picture_size),
            max_steps=positive(parameters, "max_steps", int),
        )


def chosen_steps(model: ServedTranslation, steps: str | Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the indices of the directions of a request.

    Args:
        model: the served model.
        steps: one of its directions, or several in their order; the same one may come again.

    Returns:
        int64 [S].

    Raises:
        DirectionError: one is unknown, or there are none or too many.
    """
    names = [steps] if isinstance(steps, str) else list(steps)
    if not 1 <= len(names) <= model.max_steps:
        raise DirectionError(f"steps must be from 1 to {model.max_steps} directions, not {len(names)}")
    check_names(names, model.directions, "direction", DirectionError)
    return np.array([model.directions.index(name) for name in names], np.int64)
