"""Morphs as Triton's tensors and back, without any call: shared by the blocking and the asyncio client."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferInput, InferResult

from homomorph_client.errors import RequestError
from homomorph_client.pictures import Picture, fit_picture


def encode(
    pictures: Mapping[str, Picture], numbers: Mapping[str, npt.NDArray[np.float32]], *, size: int
) -> list[InferInput]:
    """Return the inputs of one request, with a batch of one.

    Args:
        pictures: by the names of the inputs; each one's centre is cropped and resized.
        numbers: float32 arrays by the names of the inputs, without the batch axis.
        size: height and width in pixels that the pictures are sent at.

    Raises:
        PictureError: a picture cannot be used.
    """
    return [
        *(_tensor(name, "UINT8", fit_picture(picture, size)) for name, picture in pictures.items()),
        *(_tensor(name, "FP32", array) for name, array in numbers.items()),
    ]


def decode(result: InferResult) -> npt.NDArray[np.uint8]:
    """Return the frames of an answer: uint8 [S, H, W, 3], RGB, values in [0, 255].

    Raises:
        RequestError: the answer holds no frames.
    """
    frames = result.as_numpy("FRAMES")
    if frames is None or frames.dtype != np.uint8 or frames.ndim != 5 or len(frames) != 1:
        raise RequestError(
            "the server's answer holds no FRAMES of uint8 [1, S, H, W, 3]: is another model served there?"
        )
    return np.array(frames[0])  # a copy, because the answer's own buffer is read-only


def _tensor(name: str, datatype: str, array: npt.NDArray[np.generic]) -> InferInput:
    tensor = InferInput(name, [1, *array.shape], datatype)
    tensor.set_data_from_numpy(array[None])
    return tensor
