"""The served models: their names, and their tensors' names, types and dims. They stand here and nowhere else.

`pbtxt.py` turns a `Model` into its `config.pbtxt`, `backend/model.py` gets its checks from `Model.checks`, and the
tests hold every written configuration against this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from homomorph.models.blending import FEATURE_METHODS
from homomorph.models.cyclegan_config import SMALLEST_SIDE
from homomorph.models.morph import MAX_STRENGTH
from homomorph_client.names import EDIT, MORPH, MORPH_STREAM, PIXEL, TRANSLATE

MAX_BATCH_SIZE = 8
"""Requests that one forward pass may serve together."""
MAX_PICTURE_SIZE = 2048
"""Largest height and width of a picture, in pixels."""
MAX_STEPS = 256
"""Largest number S of frames of one request."""
MAX_PIXELS = 1 << 24
"""Largest S * H * W of one request: 256 frames of 256x256, or 4 frames of 2048x2048."""
MAX_QUEUE = 128
"""Requests that may wait for one model; those beyond are refused at once."""
QUEUE_TIMEOUT_S = 60
"""Longest wait in a model's queue; who has waited for longer is refused."""
BUSY_INSTANCES = 2
"""How often a server has `decoder`, which many models ask. Where a queue has a limit, a timeout or priorities, Triton
(24.10) does not always notice that the only instance has become free, and a request then waits for half a second beside
it. A second instance is free already, or notices."""
MAX_CHAIN = 32
"""Largest number S of directions that one request may change a picture in."""


@dataclass(frozen=True)
class Axis:
    """An axis whose length each request chooses. The same axis is equally long in all inputs of a request."""

    letter: str
    minimum: int
    maximum: int
    multiple_of: int = 1
    stride: int = 1
    """How many pixels one cell of features spans along this axis."""


S = Axis("S", 1, MAX_STEPS)
P = Axis("P", 2, 4, multiple_of=2)
"""Pictures that are blended: two, or four in the corners of a square."""


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
    def shape(self) -> tuple[int, ...]:
        """Dims as Triton writes them: -1 where each request chooses."""
        return tuple(-1 if isinstance(dim, Axis) else dim for dim in self.dims)


@dataclass(frozen=True)
class Step:
    """One model's turn in an ensemble: which of the ensemble's tensors it reads and writes."""

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Model:
    """A served model: a TorchScript file of its own or, if it has steps, made of others."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...] = ()
    python_steps: tuple[Step, ...] = ()
    """Of an ensemble, its steps where the Python backend runs them, if it has a faster way than `steps`."""
    needs_operator: bool = False
    """Whether its TorchScript calls `homomorph::interpolate`."""
    streams: bool = False
    """Whether its last step runs once for each frame, which leaves at once."""
    cached: bool = False
    """Whether a server that has a cache keeps its answers: those that come again, as one picture under many sliders."""
    joint: bool = False
    """Whether it is several networks in one, whose own methods the Python backend calls: with all cores, a cache of its
    own between them, and a queue and an order of its own instead of Triton's batches. There is no ONNX of it."""
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


@dataclass(frozen=True)
class _Tensors:
    """The tensors that one run's models take and give."""

    branches: tuple[str, ...]
    channels: int
    stride: int

    def picture(self, name: str) -> Tensor:
        """Return a picture [H, W, 3] in 0-255; pixels stay uint8 between models, the graphs normalise them."""
        return Tensor(name, "UINT8", (self._pixels("H"), self._pixels("W"), 3))

    def frames(self) -> Tensor:
        """Return pictures out, [S, H, W, 3] in 0-255."""
        return Tensor("FRAMES", "UINT8", (S, self._pixels("H"), self._pixels("W"), 3))

    def features(self, name: str) -> Tensor:
        """Return features [C, h, w] of one picture."""
        return Tensor(name, "FP32", (self.channels, self._cells("h"), self._cells("w")))

    def frame_features(self, name: str) -> Tensor:
        """Return features [S, C, h, w] of all frames of one request."""
        return Tensor(name, "FP32", (S, self.channels, self._cells("h"), self._cells("w")))

    def strengths(self) -> Tensor:
        """Return strengths [S, K], columns in the order of the branches."""
        return Tensor("STRENGTHS", "FP32", (S, len(self.branches)), range=(0.0, MAX_STRENGTH))

    def pictures(self) -> Tensor:
        """Return pictures to blend, [P, H, W, 3] in 0-255."""
        return Tensor("PICTURES", "UINT8", (P, self._pixels("H"), self._pixels("W"), 3))

    def corners(self) -> Tensor:
        """Return the features [P, C, h, w] of pictures to blend."""
        return Tensor("CORNERS", "FP32", (P, self.channels, self._cells("h"), self._cells("w")))

    def _pixels(self, letter: str) -> Axis:
        return Axis(letter, self.stride, MAX_PICTURE_SIZE, multiple_of=self.stride)

    def _cells(self, letter: str) -> Axis:
        return Axis(letter, 1, MAX_PICTURE_SIZE // self.stride, stride=self.stride)


def branch_model(branch: str) -> str:
    """Return the name of the model that serves one T_i."""
    return f"branch_{branch}"


def delta_input(branch: str) -> str:
    """Return the name of `interpolate`'s input for one T_i's output."""
    return f"DELTA_{branch}"


def served_models(branches: tuple[str, ...], channels: int, stride: int, labels: int) -> tuple[Model, ...]:
    """Return all models served for one run.

    Args:
        branches: names of the T_i in the order of the strengths' columns, the residual one last.
        channels: channels C of the features.
        stride: how much smaller features are than pictures.
        labels: number of labels that a picture can be edited towards; 0 if the run does not know what they look like.
    """
    tensors = _Tensors(branches, channels, stride)
    features, sliders = tensors.features, tensors.strengths()
    source, target, difference = features("SOURCE"), features("TARGET"), features("DIFFERENCE")
    pictures = tensors.picture("SOURCE"), tensors.picture("TARGET")
    feature_frames, frames = tensors.frame_features("FEATURES"), tensors.frames()
    deltas = tuple(features(delta_input(branch)) for branch in branches)
    return (
        Model("encoder", (tensors.picture("IMAGE"),), (features("FEATURES"),), cached=True),
        Model("encoder_pair", pictures, (features("SOURCE_FEATURES"), features("TARGET_FEATURES")), cached=True),
        Model("difference", (source, target), (difference,)),
        *(Model(branch_model(branch), (difference,), (features("DELTA"),)) for branch in branches),
        Model("interpolate", (source, *deltas, sliders), (feature_frames,), needs_operator=True),
        Model("interpolator", (source, target, sliders), (feature_frames,), needs_operator=True),
        Model("decoder", (feature_frames,), (frames,), instances=BUSY_INSTANCES),
        Model("morpher", (*pictures, sliders), (frames,), needs_operator=True, joint=True),
        Model(
            MORPH,
            (*pictures, sliders),
            (frames,),
            _ensemble_steps(_INTERPOLATOR_STEPS),
            python_steps=(
                Step("morpher", {name: name for name in ("SOURCE", "TARGET", "STRENGTHS")}, {"FRAMES": "FRAMES"}),
            ),
        ),
        Model(MORPH_STREAM, (*pictures, sliders), (frames,), _ensemble_steps(_INTERPOLATOR_STEPS), streams=True),
        Model("morph_branches", (*pictures, sliders), (frames,), _ensemble_steps(_branches_steps(branches))),
        *(_editing_models(tensors, labels) if labels else ()),
        *_blending_models(tensors),
    )


def _editing_models(tensors: _Tensors, labels: int) -> tuple[Model, Model]:
    """Return what edits a picture towards labels instead of another picture."""
    wanted = Tensor("LABELS", "FP32", (labels,), range=(0.0, 1.0))
    return (
        Model("label_target", (tensors.features("SOURCE"), wanted), (tensors.features("TARGET"),)),
        Model(
            EDIT,
            (tensors.picture("SOURCE"), wanted, tensors.strengths()),
            (tensors.frames(),),
            # One after the other, as `_ensemble_steps` says why.
            (
                Step("encoder", {"IMAGE": "SOURCE"}, {"FEATURES": "source_features"}),
                Step("label_target", {"SOURCE": "source_features", "LABELS": "LABELS"}, {"TARGET": "target_features"}),
                *_INTERPOLATOR_STEPS,
                Step("decoder", {"FEATURES": "frame_features"}, {"FRAMES": "FRAMES"}),
            ),
        ),
    )


def mix_model(method: str) -> str:
    """Return the name of the model that mixes features by a method of `FEATURE_METHODS`."""
    return f"mix_{method}"


def _blending_models(tensors: _Tensors) -> tuple[Model, ...]:
    """Return the simpler ways between pictures, each under its method's name, and what they are made of."""
    # Where each frame stands between the pictures, across and down.
    places = Tensor("PLACES", "FP32", (S, 2), range=(0.0, MAX_STRENGTH))
    pictures, corners, frames = tensors.pictures(), tensors.corners(), tensors.frames()
    features = tensors.frame_features("FEATURES")
    return (
        Model(PIXEL, (pictures, places), (frames,)),
        Model("encoder_corners", (pictures,), (corners,), cached=True),
        *(Model(mix_model(method), (corners, places), (features,)) for method in FEATURE_METHODS),
        *(
            Model(
                method,
                (pictures, places),
                (frames,),
                (
                    Step("encoder_corners", {"PICTURES": "PICTURES"}, {"CORNERS": "corners"}),
                    Step(mix_model(method), {"CORNERS": "corners", "PLACES": "PLACES"}, {"FEATURES": "mixed"}),
                    Step("decoder", {"FEATURES": "mixed"}, {"FRAMES": "FRAMES"}),
                ),
            )
            for method in FEATURE_METHODS
        ),
    )


def _ensemble_steps(interpolation: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return an ensemble's steps from pictures to frames, given how `frame_features` come from both pictures' features.

    The first is a single one. If an ensemble begins with several, and one of them refuses its input before Triton
    (24.10) has scheduled the others, two of Triton's threads wait for each other for ever, and no later request is
    answered. A failure beside a step still on its way is answered but never released. So both pictures are encoded in
    one step, and no steps run at once whose inputs come from the request: what a client sends fails one step alone.
    """
    return (
        Step(
            "encoder_pair",
            {"SOURCE": "SOURCE", "TARGET": "TARGET"},
            {"SOURCE_FEATURES": "source_features", "TARGET_FEATURES": "target_features"},
        ),
        *interpolation,
        Step("decoder", {"FEATURES": "frame_features"}, {"FRAMES": "FRAMES"}),
    )


_BOTH_FEATURES = {"SOURCE": "source_features", "TARGET": "target_features"}
_INTERPOLATOR_STEPS = (
    Step("interpolator", {**_BOTH_FEATURES, "STRENGTHS": "STRENGTHS"}, {"FEATURES": "frame_features"}),
)
"""One model runs the branches that the strengths use."""


ASKED = {MORPH_STREAM: tuple(step.model for step in _ensemble_steps(_INTERPOLATOR_STEPS))}
"""By served model, the models that its Python models ask, which Triton does not bring along with it."""


def _branches_steps(branches: tuple[str, ...]) -> tuple[Step, ...]:
    """Return the wiring that runs every T_i as a model of its own, all at once."""
    deltas = {delta_input(branch): f"delta_{branch}" for branch in branches}
    return (
        Step("difference", _BOTH_FEATURES, {"DIFFERENCE": "difference"}),
        *(
            Step(branch_model(branch), {"DIFFERENCE": "difference"}, {"DELTA": f"delta_{branch}"})
            for branch in branches
        ),
        Step(
            "interpolate",
            {"SOURCE": "source_features", **deltas, "STRENGTHS": "STRENGTHS"},
            {"FEATURES": "frame_features"},
        ),
    )


def direction_model(direction: str) -> str:
    """Return the name of the model that changes a picture in one direction."""
    return f"{TRANSLATE}_{direction}"


def translation_models(strides: Mapping[str, int]) -> tuple[Model, ...]:
    """Return all models served for CycleGANs.

    Args:
        strides: of each direction, in the order of the numbers that stand for them, what height and width must be
            multiples of. Each divides those that are larger.
    """
    chain = Axis("S", 1, MAX_CHAIN)
    shared = max(strides.values())
    return (
        *(
            Model(
                direction_model(direction),
                (Tensor("IMAGE", "UINT8", _picture_dims(stride)),),
                (Tensor("FRAME", "UINT8", _picture_dims(stride)),),
            )
            for direction, stride in strides.items()
        ),
        Model(
            TRANSLATE,
            (
                Tensor("IMAGE", "UINT8", _picture_dims(shared)),
                Tensor("STEPS", "INT64", (chain,), range=(0, len(strides) - 1)),
            ),
            (Tensor("FRAMES", "UINT8", (chain, *_picture_dims(shared))),),
        ),
    )


def _picture_dims(stride: int) -> tuple[int | Axis, ...]:
    """Return the dims of a picture that a generator takes or gives."""
    sides = (Axis(letter, max(stride, SMALLEST_SIDE), MAX_PICTURE_SIZE, multiple_of=stride) for letter in "HW")
    return (*sides, 3)
