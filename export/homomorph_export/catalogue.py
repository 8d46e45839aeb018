"""The served models, once. Configurations, files of each format, comparisons and the repository are made from this.

To add a served model, add it here and add its computation to `servable.py`. A model that gives frames needs a
`reference`: what the run itself computes from the same inputs. Any other model must be a step of one that gives frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from homomorph.models.blending import FEATURE_METHODS, Mix, blend
from homomorph.models.config import ModelConfig
from homomorph.models.cyclegan_config import SMALLEST_SIDE
from homomorph.models.morph import MAX_STRENGTH
from homomorph_client.names import EDIT, MORPH, MORPH_STREAM, PIXEL, TRANSLATE
from homomorph_export import onnx_graphs, reference, torchscript
from homomorph_export.contract import (
    MAX_CHAIN,
    MAX_PICTURE_SIZE,
    MAX_PIXELS,
    MAX_STEPS,
    Axis,
    Computation,
    Model,
    Step,
    Tensor,
)
from homomorph_export.servable import (
    DenseInterpolatorServable,
    DifferenceServable,
    EncoderCornersServable,
    EncoderPairServable,
    InterpolateServable,
    InterpolatorServable,
    LabelTargetServable,
    MixServable,
    MorpherServable,
    PixelServable,
    TranslateServable,
    interpolate_source,
)

if TYPE_CHECKING:
    import torch
    from onnx import ModelProto

_DECODER_INSTANCES = 2
"""Number of instances of `decoder`, which many models use. If a queue has a limit, a timeout or priorities, Triton
(24.10) sometimes does not notice that the only instance has become free, and a request then waits for half a second. A
second instance avoids this wait."""

_S = Axis("S", 1, MAX_STEPS, typical=9)
_P = Axis("P", 2, 4, typical=2, multiple_of=2)
"""Number of pictures to blend: two, or four at the corners of a square."""


def branch_model(branch: str) -> str:
    """Return the name of the model that serves one T_i."""
    return f"branch_{branch}"


def mix_model(method: str) -> str:
    """Return the name of the model that mixes features by a method of `FEATURE_METHODS`."""
    return f"mix_{method}"


def direction_model(direction: str) -> str:
    """Return the name of the model that changes a picture in one direction."""
    return f"{TRANSLATE}_{direction}"


def morph_models(config: ModelConfig, *, labels: bool) -> tuple[Model, ...]:
    """Return all models served for one run that morphs.

    Args:
        config: the run's configuration.
        labels: whether the run has features for its labels. Pictures can then be edited towards labels.
    """
    tensors = _Tensors(config)
    return (
        *_networks(tensors),
        _morph(tensors, MORPH, (_ENCODE_PAIR, _INTERPOLATE, _DECODE), python_steps=(_MORPHER,)),
        _morph(tensors, MORPH_STREAM, (_ENCODE_PAIR, _INTERPOLATE, _DECODE), streams=True),
        _morph(tensors, "morph_branches", (_ENCODE_PAIR, *_interpolate_by_branches(config.branches), _DECODE)),
        *(_editing_models(tensors) if labels else ()),
        *_blending_models(tensors),
    )


def _networks(tensors: _Tensors) -> tuple[Model, ...]:
    """Return E, each T_i, the operator and D, as models of their own and joined to larger ones."""
    branches = tensors.config.branches
    source, target, difference = map(tensors.features, ("SOURCE", "TARGET", "DIFFERENCE"))
    deltas = tuple(tensors.features(f"DELTA_{branch}") for branch in branches)
    return (
        Model(
            "encoder",
            (tensors.picture("IMAGE"),),
            (tensors.features("FEATURES"),),
            Computation(lambda parts: parts.encoder),
            cached=True,
            compared_as=_morph(tensors, "morph_encoder", (*_ENCODE_EACH, _INTERPOLATE, _DECODE)),
        ),
        Model(
            "encoder_pair",
            tensors.pair,
            (tensors.features("SOURCE_FEATURES"), tensors.features("TARGET_FEATURES")),
            _composed(EncoderPairServable, "encoder", onnx=onnx_graphs.encoder_pair),
            cached=True,
        ),
        Model("difference", (source, target), (difference,), Computation(lambda parts: DifferenceServable())),
        *(
            Model(branch_model(branch), (difference,), (tensors.features("DELTA"),), _branch(branch))
            for branch in branches
        ),
        Model(
            "interpolate",
            (source, *deltas, tensors.strengths),
            (tensors.frame_features,),
            Computation(
                lambda parts: InterpolateServable(),
                scripted=lambda: torchscript.define(interpolate_source([delta.name for delta in deltas])),
                onnx=onnx_graphs.interpolate,
            ),
            needs_operator=True,
        ),
        Model(
            "interpolator",
            (source, target, tensors.strengths),
            (tensors.frame_features,),
            Computation(
                lambda parts, *branches: DenseInterpolatorServable(branches),
                tuple(map(branch_model, branches)),
                scripted=lambda *branches: InterpolatorServable(branches),
                onnx=onnx_graphs.interpolator,
            ),
            needs_operator=True,
        ),
        Model(
            "decoder",
            (tensors.frame_features,),
            (tensors.frames,),
            Computation(lambda parts: parts.decoder),
            instances=_DECODER_INSTANCES,
        ),
        Model(
            "morpher",
            (*tensors.pair, tensors.strengths),
            (tensors.frames,),
            _composed(MorpherServable, "encoder", "interpolator", "decoder"),
            needs_operator=True,
            joint=True,
        ),
    )


def _morph(
    tensors: _Tensors,
    name: str,
    steps: tuple[Step, ...],
    *,
    python_steps: tuple[Step, ...] = (),
    streams: bool = False,
) -> Model:
    """Return a model that morphs between two pictures in steps."""
    return Model(
        name,
        (*tensors.pair, tensors.strengths),
        (tensors.frames,),
        steps=steps,
        python_steps=python_steps,
        reference=reference.morphed,
        client_parameters=_client_parameters(tensors.config),
        streams=streams,
    )


def _editing_models(tensors: _Tensors) -> tuple[Model, ...]:
    """Return the models that edit a picture towards labels instead of another picture."""
    labels = Tensor("LABELS", "FP32", (len(tensors.config.attributes),), range=(0.0, 1.0))
    return (
        Model(
            "label_target",
            (tensors.features("SOURCE"), labels),
            (tensors.features("TARGET"),),
            Computation(
                lambda parts: LabelTargetServable(parts.label_features),
                onnx=lambda model, parts: onnx_graphs.label_target(model, parts.label_features),
            ),
        ),
        Model(
            EDIT,
            (tensors.picture("SOURCE"), labels, tensors.strengths),
            (tensors.frames,),
            # These steps run in sequence, for the reason given at `_ENCODE_PAIR`.
            steps=(
                Step("encoder", {"IMAGE": "SOURCE"}, {"FEATURES": "source_features"}),
                Step("label_target", {"SOURCE": "source_features", "LABELS": "LABELS"}, {"TARGET": "target_features"}),
                _INTERPOLATE,
                _DECODE,
            ),
            reference=reference.edited,
            client_parameters=_client_parameters(tensors.config),
        ),
    )


def _blending_models(tensors: _Tensors) -> tuple[Model, ...]:
    """Return the models of the simpler methods, each under its method's name, and their steps."""
    # Position of each frame between the pictures, horizontally and vertically.
    places = Tensor("PLACES", "FP32", (_S, 2), range=(0.0, MAX_STRENGTH))

    def blend_model(method: str, computation: Computation | None = None, steps: tuple[Step, ...] = ()) -> Model:
        return Model(
            method,
            (tensors.pictures, places),
            (tensors.frames,),
            computation,
            steps=steps,
            reference=lambda run, frames, pictures, places: blend(run.model, method, pictures, places),
            # These methods have a single slider.
            client_parameters={**_client_parameters(tensors.config), "groups": "all", "labels": "{}"},
        )

    return (
        blend_model(PIXEL, Computation(lambda parts: PixelServable())),
        Model(
            "encoder_corners",
            (tensors.pictures,),
            (tensors.corners,),
            _composed(EncoderCornersServable, "encoder", onnx=onnx_graphs.encoder_corners),
            cached=True,
        ),
        *(
            Model(mix_model(method), (tensors.corners, places), (tensors.frame_features,), _mix(mix))
            for method, mix in FEATURE_METHODS.items()
        ),
        *(
            blend_model(
                method,
                steps=(
                    Step("encoder_corners", {"PICTURES": "PICTURES"}, {"CORNERS": "corners"}),
                    Step(mix_model(method), {"CORNERS": "corners", "PLACES": "PLACES"}, {"FEATURES": "frame_features"}),
                    _DECODE,
                ),
            )
            for method in FEATURE_METHODS
        ),
    )


def translation_models(strides: Mapping[str, int], picture_size: int) -> tuple[Model, ...]:
    """Return all models served for CycleGANs.

    Args:
        strides: stride of each direction, in the order of their numbers. Height and width must be multiples of it. Each
            stride divides the larger ones.
        picture_size: height and width in pixels that all generators were trained at.
    """
    chain = Axis("S", 1, MAX_CHAIN, typical=len(strides))
    shared = max(strides.values())

    def picture(name: str, stride: int) -> Tensor:
        return Tensor(name, "UINT8", (*_sides(max(stride, SMALLEST_SIDE), stride, picture_size), 3))

    frame = picture("FRAMES", shared)
    return (
        *(
            _direction(direction, picture("IMAGE", stride), picture("FRAME", stride))
            for direction, stride in strides.items()
        ),
        Model(
            TRANSLATE,
            (picture("IMAGE", shared), Tensor("STEPS", "INT64", (chain,), range=(0, len(strides) - 1))),
            (Tensor(frame.name, frame.type, (chain, *frame.dims)),),
            _composed(
                lambda *directions: TranslateServable(directions),
                *map(direction_model, strides),
                onnx=onnx_graphs.translate,
            ),
            reference=reference.chained,
            client_parameters={
                "directions": ",".join(strides),
                "picture_size": str(picture_size),
                "stride": str(shared),
                "max_picture_size": str(MAX_PICTURE_SIZE),
                "max_pixels": str(MAX_PIXELS),
                "max_steps": str(MAX_CHAIN),
            },
        ),
    )


class _Tensors:
    """The inputs and outputs of one run's models."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        stride, self._channels = config.network.stride, config.network.feature_channels
        self._pixels = _sides(stride, stride, config.picture_size)
        self._cells = tuple(
            Axis(letter, 1, MAX_PICTURE_SIZE // stride, typical=config.feature_size, stride=stride) for letter in "hw"
        )
        self.pair = (self.picture("SOURCE"), self.picture("TARGET"))
        """The pictures to morph between, [H, W, 3] each."""
        self.strengths = Tensor("STRENGTHS", "FP32", (_S, len(config.branches)), range=(0.0, MAX_STRENGTH))
        """[S, K], columns in the order of the branches."""
        self.frames = Tensor("FRAMES", "UINT8", (_S, *self._pixels, 3))
        """Pictures out, [S, H, W, 3] in 0-255."""
        self.frame_features = Tensor("FEATURES", "FP32", (_S, self._channels, *self._cells))
        """Features [S, C, h, w] of all frames of one request."""
        self.pictures = Tensor("PICTURES", "UINT8", (_P, *self._pixels, 3))
        """Pictures to blend, [P, H, W, 3] in 0-255."""
        self.corners = Tensor("CORNERS", "FP32", (_P, self._channels, *self._cells))
        """The features [P, C, h, w] of pictures to blend."""

    def picture(self, name: str) -> Tensor:
        """Return a picture [H, W, 3] in 0-255. Pixels are uint8 between models; the graphs normalise them."""
        return Tensor(name, "UINT8", (*self._pixels, 3))

    def features(self, name: str) -> Tensor:
        """Return features [C, h, w] of one picture."""
        return Tensor(name, "FP32", (self._channels, *self._cells))


def _sides(minimum: int, stride: int, typical: int) -> tuple[Axis, ...]:
    """Return the height and the width of a picture."""
    return tuple(Axis(letter, minimum, MAX_PICTURE_SIZE, typical, multiple_of=stride) for letter in "HW")


def _client_parameters(config: ModelConfig) -> dict[str, str]:
    """Return the parameters with which a client prepares pictures and strengths."""
    return {
        "groups": ",".join(config.branches),
        "labels": json.dumps(config.groups),
        "picture_size": str(config.picture_size),
        "stride": str(config.network.stride),
        "max_picture_size": str(MAX_PICTURE_SIZE),
        "max_pixels": str(MAX_PIXELS),
        "max_steps": str(MAX_STEPS),
        "max_strength": f"{MAX_STRENGTH:g}",
    }


def _composed(
    servable: Callable[..., torch.nn.Module], *members: str, onnx: Callable[..., ModelProto] | None = None
) -> Computation:
    """Return the computation of a servable that takes the modules of `members`, eager or scripted ones."""
    return Computation(lambda parts, *modules: servable(*modules), members, scripted=servable, onnx=onnx)


def _branch(branch: str) -> Computation:
    return Computation(lambda parts: parts.branches[branch])


def _mix(mix: Mix) -> Computation:
    return Computation(lambda parts: MixServable(mix))


def _direction(direction: str, image: Tensor, frame: Tensor) -> Model:
    return Model(
        direction_model(direction),
        (image,),
        (frame,),
        Computation(lambda parts: parts[direction]),
        reference=lambda run, frames, pictures: run.changed(direction, pictures),
    )


_ENCODE_PAIR = Step(
    "encoder_pair",
    {"SOURCE": "SOURCE", "TARGET": "TARGET"},
    {"SOURCE_FEATURES": "source_features", "TARGET_FEATURES": "target_features"},
)
"""An ensemble must begin with a single step. Suppose it begins with several, and one refuses its input before Triton
(24.10) has scheduled the others: two of Triton's threads then deadlock, and no later request is answered. A step that
fails while another one still runs is answered, but its request is never released. So one step encodes both pictures,
and steps that read the request's inputs never run at the same time."""
_ENCODE_EACH = (
    Step("encoder", {"IMAGE": "SOURCE"}, {"FEATURES": "source_features"}),
    Step("encoder", {"IMAGE": "TARGET"}, {"FEATURES": "target_features"}),
)
"""Encodes each picture with `encoder`. For comparisons only: a server could deadlock (see `_ENCODE_PAIR`)."""
_BOTH_FEATURES = {"SOURCE": "source_features", "TARGET": "target_features"}
_INTERPOLATE = Step("interpolator", {**_BOTH_FEATURES, "STRENGTHS": "STRENGTHS"}, {"FEATURES": "frame_features"})
"""A single model runs those branches that the strengths use."""
_DECODE = Step("decoder", {"FEATURES": "frame_features"}, {"FRAMES": "FRAMES"})
_MORPHER = Step("morpher", {name: name for name in ("SOURCE", "TARGET", "STRENGTHS")}, {"FRAMES": "FRAMES"})
"""The Python backend's way: one process that holds all networks."""


def _interpolate_by_branches(branches: tuple[str, ...]) -> tuple[Step, ...]:
    """Return the steps that run each T_i as a separate model, all in parallel."""
    deltas = {f"DELTA_{branch}": f"delta_{branch}" for branch in branches}
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
