"""Requests as messages of Triton's protocol, and frames out of them: shared by the blocking and the asyncio client."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from tritonclient.utils import np_to_triton_dtype

from homomorph_client.errors import RequestError
from homomorph_client.frames import Frames
from homomorph_client.labels import Labels, chosen_edit
from homomorph_client.methods import places_between
from homomorph_client.names import BLENDS
from homomorph_client.pictures import Picture, fit_picture
from homomorph_client.served_model import ServedModel
from homomorph_client.strengths import Strengths, chosen_strengths
from homomorph_client.translation import ServedTranslation, chosen_steps

_URGENT = 1
"""Triton's priority of a request that overtakes those waiting; the others are of the served models' default."""


def morph_request(
    model: ServedModel,
    source: Picture,
    target: Picture,
    *,
    steps: int | None,
    strengths: Strengths | None,
    urgent: bool = False,
) -> ModelInferRequest:
    """Return the request for a morph; arguments and errors are those of `MorphClient.morph`."""
    chosen = chosen_strengths(model, steps=steps, strengths=strengths)
    if model.name in BLENDS:
        return blend_request(model, (source, target), places_between(chosen), urgent=urgent)
    return encode(model, {"SOURCE": source, "TARGET": target}, {"STRENGTHS": chosen}, urgent=urgent)


def blend_request(
    model: ServedModel, pictures: Sequence[Picture], places: npt.NDArray[np.float32], *, urgent: bool = False
) -> ModelInferRequest:
    """Return the request for frames at these places [S, 2] between two pictures, or four in the corners of a square."""
    fitted = np.stack([fit_picture(picture, model.picture_size) for picture in pictures])
    return encode(model, {}, {"PICTURES": fitted, "PLACES": places}, urgent=urgent)


def edit_request(
    model: ServedModel,
    source: Picture,
    labels: Labels,
    *,
    steps: int | None,
    strengths: Strengths | None,
    urgent: bool = False,
) -> ModelInferRequest:
    """Return the request for an edit; arguments and errors are those of `MorphClient.edit`."""
    wanted, chosen = chosen_edit(model, labels, steps=steps, strengths=strengths)
    return encode(model, {"SOURCE": source}, {"LABELS": wanted, "STRENGTHS": chosen}, urgent=urgent)


def translate_request(
    model: ServedTranslation, picture: Picture, steps: str | Sequence[str], *, urgent: bool = False
) -> ModelInferRequest:
    """Return the request for a translation; arguments and errors are those of `MorphClient.translate`."""
    return encode(model, {"IMAGE": picture}, {"STEPS": chosen_steps(model, steps)}, urgent=urgent)


def encode(
    model: ServedModel | ServedTranslation,
    pictures: Mapping[str, Picture],
    arrays: Mapping[str, npt.NDArray[np.generic]],
    *,
    urgent: bool = False,
) -> ModelInferRequest:
    """Return a request with a batch of one.

    Args:
        model: the served model.
        pictures: by the names of the inputs; each one's centre is cropped and resized to the model's size.
        arrays: further inputs by their names, without the batch axis; sent unchanged.
        urgent: whether the request overtakes others that wait.

    Raises:
        PictureError: a picture cannot be used.
    """
    request = ModelInferRequest(model_name=model.name)
    if urgent:
        request.parameters["priority"].uint64_param = _URGENT
        # `morph_stream` reads this parameter, because Triton does not pass a request's priority on to it.
        request.parameters["urgent"].bool_param = True
    for name, picture in pictures.items():
        _add(request, name, fit_picture(picture, model.picture_size))
    for name, array in arrays.items():
        _add(request, name, array)
    return request


def frames_shape(request: ModelInferRequest) -> tuple[int, ...]:
    """Return the shape of the frames of a request from `encode`, (1, S, H, W, 3)."""
    shapes = {tensor.name: tuple(tensor.shape) for tensor in request.inputs}
    picture = next(shapes[name] for name in ("SOURCE", "IMAGE", "PICTURES") if name in shapes)
    steps = next(shapes[name] for name in ("STRENGTHS", "STEPS", "PLACES") if name in shapes)
    return (1, steps[1], *picture[-3:])


def decode(response: ModelInferResponse, contents: Sequence[bytes | memoryview] | None = None) -> npt.NDArray[np.uint8]:
    """Return the frames of an answer: uint8 [S, H, W, 3], RGB, values in [0, 255]; a notebook draws them.

    Args:
        response: the answer.
        contents: the bytes of its outputs, where they are not in the message itself.

    Raises:
        RequestError: the answer holds no frames.
    """
    for output, content in zip(response.outputs, contents or response.raw_output_contents, strict=False):
        shape = tuple(output.shape)
        if (output.name, output.datatype, len(shape), shape[:1]) == ("FRAMES", "UINT8", 5, (1,)) and (
            len(content) == math.prod(shape)
        ):
            # A copy, because the message's own bytes are read-only, and shared memory is used again.
            frames: npt.NDArray[np.uint8] = np.frombuffer(content, np.uint8).reshape(shape)[0].copy().view(Frames)
            return frames
    raise RequestError("the server's answer holds no FRAMES of uint8 [1, S, H, W, 3]: is another model served there?")


def decode_part(message: ModelStreamInferResponse, server: str) -> npt.NDArray[np.uint8]:
    """Return the frames of one message of a stream: uint8 [n, H, W, 3].

    Args:
        message: of the stream.
        server: address for errors.

    Raises:
        RequestError: the message holds an error or no frames.
    """
    if message.error_message:
        raise RequestError(f"the server at {server} refused: {message.error_message}")
    return decode(message.infer_response)


def _add(request: ModelInferRequest, name: str, array: npt.NDArray[np.generic]) -> None:
    request.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=[1, *array.shape])
    request.raw_input_contents.append(array.tobytes())
