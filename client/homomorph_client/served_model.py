"""What the served models say about themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from homomorph_client.errors import PictureError, RequestError


@dataclass(frozen=True)
class ServedModel:
    """What a client must know to ask for a morph."""

    name: str
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
        parameters = read_parameters(config, "groups", "labels")
        return cls(
            name=config["name"],
            groups=tuple(parameters["groups"].split(",")),
            labels=_labels(parameters),
            picture_size=working_size(parameters, picture_size),
        )


def to_json(config: ModelConfig) -> dict[str, Any]:
    """Return what is read of a configuration, as Triton reports it in JSON."""
    parameters = {key: {"string_value": value.string_value} for key, value in config.parameters.items()}
    return {"name": config.name, "parameters": parameters}


def read_parameters(config: Mapping[str, Any], *names: str) -> dict[str, str]:
    """Return the parameters of a model's configuration, among them `picture_size`, `stride` and those named.

    Raises:
        RequestError: one of them is missing, so the model is not one that homomorph exported.
    """
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    for name in ("picture_size", "stride", *names):
        if name not in parameters:
            raise RequestError(
                f"model {config['name']!r} is not one that `homomorph export` wrote: no parameter {name!r}"
            )
    return parameters


def working_size(parameters: Mapping[str, str], picture_size: int | None) -> int:
    """Return the height and width in pixels to work at: `picture_size`, or what the model was trained at.

    Raises:
        RequestError: the parameters are no sizes, so the model is not one that homomorph exported.
        PictureError: `picture_size` is no multiple of the model's stride.
    """
    stride, usual = (_pixels(parameters, name) for name in ("stride", "picture_size"))
    size = usual if picture_size is None else picture_size
    if size < stride or size % stride:
        raise PictureError(f"picture_size must be a positive multiple of {stride}, not {size}")
    return size


def _pixels(parameters: Mapping[str, str], name: str) -> int:
    with suppress(ValueError):
        if (pixels := int(parameters[name])) > 0:
            return pixels
    raise _foreign(parameters, name)


def _labels(parameters: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    with suppress(ValueError):  # also of JSON
        labels = json.loads(parameters["labels"])
        if isinstance(labels, dict) and all(isinstance(names, list) for names in labels.values()):
            return {group: tuple(map(str, names)) for group, names in labels.items()}
    raise _foreign(parameters, "labels")


def _foreign(parameters: Mapping[str, str], name: str) -> RequestError:
    return RequestError(
        f"the served model is not one that `homomorph export` wrote: its parameter {name!r} is {parameters[name]!r}"
    )
