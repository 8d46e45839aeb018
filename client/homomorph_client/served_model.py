"""What the served model says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from homomorph_client.errors import PictureError, RequestError


@dataclass(frozen=True)
class ServedModel:
    """What a client must know to ask for a morph."""

    groups: tuple[str, ...]
    """Names of the sliders in the order of the strengths' columns; the last, `residual`, is what no label names."""
    labels: dict[str, tuple[str, ...]]
    """Of each group that has labels, their names."""
    picture_size: int
    """Height and width in pixels of the pictures that are sent."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, picture_size: int | None = None) -> ServedModel:
        """Read a model's configuration as Triton reports it in JSON.

        Args:
            config: the configuration, with parameters `groups`, `labels`, `picture_size` and `stride`.
            picture_size: height and width in pixels to work at; None is what the model was trained at.

        Raises:
            RequestError: the model is not one that homomorph exported.
            PictureError: `picture_size` is no multiple of the model's stride.
        """
        try:
            parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
            groups = tuple(parameters["groups"].split(","))
            labels = {group: tuple(names) for group, names in json.loads(parameters["labels"]).items()}
            trained_size, stride = int(parameters["picture_size"]), int(parameters["stride"])
        except (KeyError, ValueError) as error:
            name = config.get("name", "?")
            raise RequestError(
                f"model {name!r} is not one that `homomorph export` wrote: no parameter {error}"
            ) from error
        size = trained_size if picture_size is None else picture_size
        if size < stride or size % stride:
            raise PictureError(f"picture_size must be a positive multiple of {stride}, not {size}")
        return cls(groups=groups, labels=labels, picture_size=size)
