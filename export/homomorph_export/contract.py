"""Description of a served model: its tensors, limits and steps, the functions that write its files, and its reference.

`catalogue.py` lists the served models. This module needs neither torch nor ONNX, so that a server can read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
"""Largest B * S * H * W of one request: 256 frames of 256x256, or 4 frames of 2048x2048."""
MAX_QUEUE = 128
"""Requests that may wait for one model; those beyond are refused at once."""
QUEUE_TIMEOUT_S = 60
"""Longest wait in a model's queue; a request that has waited for longer is refused."""
MAX_CHAIN = 32
"""Largest number S of directions that one request may change a picture in."""


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
            lengths: of axes that the request chooses, by their letters; the others have their typical length.
        """
        chosen = lengths or {}
        return tuple(chosen.get(dim.letter, dim.typical) if isinstance(dim, Axis) else dim for dim in self.dims)


@dataclass(frozen=True)
class Step:
    """One model's turn in an ensemble: which of the ensemble's tensors it reads and writes."""

    model: str
    inputs: Mapping[str, str]
    """By the model's names, all of them in the model's order, the ensemble's."""
    outputs: Mapping[str, str]
    """The same of its outputs."""


@dataclass(frozen=True)
class Computation:
    """How the files of a served model are made, in each format, from the parts of a run and from other models' files.

    The parts are what `parts.py` makes of the run's networks. Other models, `members`, stand earlier in the catalogue;
    a function gets what the same format has of them, in their order.
    """

    module: Callable[..., torch.nn.Module]
    """Takes the parts and the members' modules; returns the eager module. AOTInductor compiles it, and where the fields
    below are None, it is also traced and exported to ONNX."""
    members: tuple[str, ...] = ()
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
    """Of an ensemble, its steps where the Python backend runs them, if it has a faster way than `steps`."""
    reference: Callable[..., torch.Tensor] | None = None
    """Of a model that gives frames, what the run's own networks make of the same inputs: from the run, the frames found
    and the inputs. Every other model must be a step of such a model, so that an export compares it."""
    compared_as: Model | None = None
    """An ensemble that is not served and has this model as a step, where no served ensemble has it."""
    client_parameters: Mapping[str, str] = field(default_factory=dict)
    """Parameters of its configuration that clients read."""
    needs_operator: bool = False
    """Whether its TorchScript calls `homomorph::interpolate`."""
    streams: bool = False
    """Whether its last step runs once for each frame, which leaves at once."""
    cached: bool = False
    """Whether a server with a cache keeps its answers, for pictures that come again."""
    joint: bool = False
    """Whether it is several networks in one, whose own methods the Python backend calls: with all cores, a cache of its
    own between them, and a queue and an order of its own instead of Triton's batches. It has TorchScript only."""
    instances: int = 1
    """How often a server has it."""

    @property
    def is_ensemble(self) -> bool:
        """Whether Triton itself runs the steps; otherwise a Python model asks for them."""
        return bool(self.steps) and not self.streams

    def checks(self) -> dict[str, Any]:
        """Return what `backend/model.py` refuses a request for, as values that JSON can hold."""
        axes = {dim.letter: dim for tensor in self.inputs for dim in tensor.dims if isinstance(dim, Axis)}
        frames = next((letters for letters in (["S", "h", "w"], ["S", "H", "W"]) if {*letters} <= axes.keys()), None)
        return {
            "dims": {
                tensor.name: [dim.letter if isinstance(dim, Axis) else dim for dim in tensor.dims]
                for tensor in self.inputs
            },
            "axes": {letter: [axis.minimum, axis.maximum, axis.multiple_of] for letter, axis in axes.items()},
            "ranges": {tensor.name: list(tensor.range) for tensor in self.inputs if tensor.range is not None},
            # Bounds the memory that one request can claim, which S and the sides within their own limits do not.
            "pixels": {"axes": frames, "stride": axes[frames[1]].stride, "maximum": MAX_PIXELS} if frames else None,
        }
