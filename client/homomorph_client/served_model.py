"""The configuration of a served model, as the client needs it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from tritonclient.grpc.model_config_pb2 import ModelConfig

from homomorph_client.errors import HomomorphError, PictureError, RequestError

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class ServedModel:
    """Properties of a served model that a client needs for its requests."""

    name: str
    groups: tuple[str, ...]
    """Names of the sliders in the order of the strengths' columns; the last, `residual`, is for unlabelled changes."""
    labels: dict[str, tuple[str, ...]]
    """Names of the labels, by group; groups without labels are left out."""
    picture_size: int
    """Height and width in pixels of the pictures that are sent."""
    max_steps: int
    """Largest number of frames of one request."""
    max_strength: float
    """Largest strength: 0 is as in the source, 1 as in the target, 2 twice as far."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, picture_size: int | None = None) -> ServedModel:
        """Read a model's configuration as Triton reports it in JSON.

        Args:
            config: the configuration, with parameters `groups`, `labels`, `picture_size`, `stride`, `max_steps` and
                `max_strength`.
            picture_size: height and width in pixels to work at; None is what the model was trained at.

        Raises:
            RequestError: the model is not one that homomorph exported.
            PictureError: `picture_size` is no multiple of the model's stride.
        """
        parameters = read_parameters(config, "groups", "labels", "max_strength")
        stride, usual = (positive(parameters, name, int) for name in ("stride", "picture_size"))
        return cls(
            name=config["name"],
            groups=tuple(parameters["groups"].split(",")),
            labels=_labels(parameters),
            picture_size=working_size(stride, usual, picture_size),
            max_steps=positive(parameters, "max_steps", int),
            max_strength=positive(parameters, "max_strength", float),
        )


def to_json(config: ModelConfig) -> dict[str, Any]:
    """Return the parts of a configuration that clients read, as Triton reports it in JSON."""
    parameters = {key: {"string_value": value.string_value} for key, value in config.parameters.items()}
    return {"name": config.name, "parameters": parameters}


def read_parameters(config: Mapping[str, Any], *names: str) -> dict[str, str]:
    """Return the parameters of a model's configuration, among them the ones that all have and those named.

    Raises:
        RequestError: one of them is missing, so the model is not one that homomorph exported.
    """
    parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    for name in ("picture_size", "stride", "max_steps", *names):
        if name not in parameters:
            raise RequestError(
                f"model {config['name']!r} is not one that `homomorph export` wrote: no parameter {name!r}"
            )
    return parameters


def working_size(stride: int, usual: int, picture_size: int | None) -> int:
    """Return the height and width in pixels to work at: `picture_size`, or the usual size if it is None.

    Raises:
        PictureError: the size is no multiple of the model's stride.
    """
    size = usual if picture_size is None else picture_size
    if size < stride or size % stride:
        raise PictureError(f"picture_size must be a positive multiple of {stride}, not {size}")
    return size


def positive(parameters: Mapping[str, str], name: str, kind: type[Number]) -> Number:
    """Return a parameter that is a finite number above 0.

    Raises:
        RequestError: it is none, so the model is not one that homomorph exported.
    """
    with suppress(ValueError):
        if 0 < (value := kind(parameters[name])) < math.inf:
            return value
    raise _foreign(parameters, name)


def check_names(names: Sequence[str], known: Sequence[str], kind: str, error: type[HomomorphError]) -> None:
    """Check names of a kind, such as `group`; if one is unknown, raise the error, with a list of the known ones."""
    for name in names:
        if name not in known:
            raise error(f"there is no {kind} {name!r}: the model has {', '.join(known)}")


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
