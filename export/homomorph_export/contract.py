"""Description of a served model: its tensors, limits and steps, the functions that write its files, and its reference.

`catalogue.py` lists the served models. This module needs neither torch nor ONNX, so that a server can read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto

MANIFEST_FILE = "manifest.json"
"""The record of its exports at the root of a repository."""
MAX_BATCH_SIZE = 8
"""Requests that one forward pass may serve together."""
MAX_PICTURE_SIZE = 2048
"""Largest height and width of a picture, in pixels."""
MAX_STEPS = 256
"""Largest number S of frames of one request."""
MAX_PIXELS = 1 << 24
"""Largest B * S * H * W of one request: 256 frames of 256x256, or 4 frames of 2048x2048. It also bounds B * H * W of
models without S, and B * P * H * W of those that take P pictures at once."""
MAX_QUEUE = 128
"""Requests that may wait for one model; those beyond are refused at once."""
QUEUE_TIMEOUT_S = 60
"""Longest wait in a model's queue; a request that has waited for longer is refused."""
MAX_CHAIN = 32
"""Largest number S of directions in one request."""


@dataclass(frozen=True)
class Axis:
    """An axis whose length each request chooses. The same axis is equally long in all inputs of a request."""

    letter: str
    minimum: int
    maximum: int
    typical: int
    """Length in warm-ups and in examples to trace with."""
    multiple_of: int = 1
    stride: int = 1
    """How many pixels one cell of features spans along this axis."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a served model."""

    name: str
    """In TorchScript also the name of forward()'s argument, because Triton's libtorch backend matches by name."""
    type: str
    """UINT8, FP32 or INT64."""
    dims: tuple[int | Axis, ...]
    """Without the batch axis, which comes first in every tensor on the wire."""
    range: tuple[float, float] | None = None
    """Smallest and largest value allowed; NaN and infinity are then refused too."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        return np.dtype({"UINT8": np.uint8, "FP32": np.float32, "INT64": np.int64}[self.type])

    @property
    def wire_shape(self) -> tuple[int, ...]:
        """Dims as Triton writes them: -1 where each request chooses."""
        return tuple(-1 if isinstance(dim, Axis) else dim for dim in self.dims)

    def shape(self, lengths: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """Return a shape that a request may have, without the batch axis.

        Args:
            lengths: lengths of axes by their letters; the others have their typical length.
        """
        chosen = lengths or {}
        return tuple(chosen.get(dim.letter, dim.typical) if isinstance(dim, Axis) else dim for dim in self.dims)


@dataclass(frozen=True)
class Step:
    """One model's turn in an ensemble: which of the ensemble's tensors it reads and writes."""

    model: str
    inputs: Mapping[str, str]
    """Name of each of the model's inputs, in the model's order -> name of the ensemble's tensor that it reads."""
    outputs: Mapping[str, str]
    """Name of each of the model's outputs -> name of the ensemble's tensor that it writes."""


@dataclass(frozen=True)
class Computation:
    """Functions that make a served model's files, one for each format.

    They take the parts that `parts.py` makes of the run's networks. A model that contains other models, its `members`,
    also takes these in the same format, in the order of `members`.
    """

    module: Callable[..., torch.nn.Module]
    """Takes the parts and the members' modules; returns the eager module, which AOTInductor compiles. It is also traced
    if `scripted` is None, and exported to ONNX if `onnx` is None."""
    members: tuple[str, ...] = ()
    """Names of the models that it contains. They come earlier in the catalogue."""
    scripted: Callable[..., torch.nn.Module] | None = None
    """Takes the members' TorchScript; returns a module that is scripted, not traced, because its operations depend
    on the values of its inputs or it holds modules that are traced already."""
    onnx: Callable[..., ModelProto] | None = None
    """Takes the `Model`, the parts and the members' ONNX; returns the graph, if it is composed instead of exported."""


@dataclass(frozen=True)
class Model:
    """A served model: it computes something itself, or it is made of others, its steps."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    computation: Computation | None = None
    """None if it has steps."""
    steps: tuple[Step, ...] = ()
    python_steps: tuple[Step, ...] = ()
    """An ensemble's steps in the Python backend, if those are faster there than `steps`."""
    reference: Callable[..., torch.Tensor] | None = None
    """Function that computes the frames with the run's own networks, for comparison; None for a model whose outputs are
    not frames. Takes the run, the exported files' frames and the inputs. Every model without a reference must be a step
    of one with a reference, so that an export compares it too."""
    compared_as: Model | None = None
    """An ensemble that has this model as a step, for comparison only; needed if no served ensemble has it."""
    client_parameters: Mapping[str, str] = field(default_factory=dict)
    """Parameters of its configuration that clients read."""
    needs_operator: bool = False
    """Whether its TorchScript calls `homomorph::interpolate`."""
    streams: bool = False
    """Whether its last step runs once for each frame, and each frame is sent as soon as it is computed."""
    cached: bool = False
    """Whether a server with a cache keeps its answers, for pictures that are sent again."""
    joint: bool = False
    """Whether it holds several networks, which the Python backend runs by the module's methods. Its program
    (`morpher.py`) has its own queue and cache and uses all cores. It has TorchScript only."""
    instances: int = 1
    """Number of instances in a server."""

    @property
    def is_ensemble(self) -> bool:
        """Whether Triton itself runs the steps; otherwise a Python model asks for them."""
        return bool(self.steps) and not self.streams

    def checks(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the limits of requests, as values that JSON can hold.

        `serving/request_guard.c` and `serving/backend/limits.py` check requests against them.

        Args:
            names: names of the inputs in a configuration, in their order; None: their own names.
        """
        inputs = dict(zip(names or [tensor.name for tensor in self.inputs], self.inputs, strict=True))
        axes = {dim.letter: dim for tensor in self.inputs for dim in tensor.dims if isinstance(dim, Axis)}
        sides = next((letters for letters in ("hw", "HW") if {*letters} <= axes.keys()), "")
        count = next((letter for letter in "SP" if letter in axes), "")
        return {
            "dims": {
                name: [dim.letter if isinstance(dim, Axis) else dim for dim in tensor.dims]
                for name, tensor in inputs.items()
            },
            "axes": {letter: [axis.minimum, axis.maximum, axis.multiple_of] for letter, axis in axes.items()},
            "ranges": {name: list(tensor.range) for name, tensor in inputs.items() if tensor.range is not None},
            # Limits the memory of one request. The limits of the axes alone would allow too much.
            "pixels": {"axes": [*count, *sides], "stride": axes[sides[0]].stride, "maximum": MAX_PIXELS}
            if sides
            else None,
        }
