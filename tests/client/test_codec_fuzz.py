"""For any answer of a server, a client returns frames or raises its own error; every request can be read back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse

from homomorph_client import HomomorphError, RequestError
from homomorph_client.codec import decode, decode_part, encode, frames_shape, morph_request
from homomorph_client.served_model import ServedModel
from homomorph_client.translation import ServedTranslation

GROUPS = ("hair", "glasses", "residual")
MAX_STRENGTH = 2.0


def served(picture_size: int) -> ServedModel:
    """Return a model that works at a size."""
    return ServedModel("morph", GROUPS, {}, picture_size, max_steps=256, max_strength=MAX_STRENGTH)


Answer = TypeVar("Answer")


def answer_or_error(ask: Callable[[], Answer]) -> Answer | HomomorphError:
    """Return what a call returns, or its error, which must be of one line."""
    try:
        return ask()
    except HomomorphError as error:
        caught = error
    assert "\n" not in str(caught)
    return caught


dims = st.lists(st.integers(-1, 5) | st.sampled_from([2**31, 2**62]), max_size=6) | st.just([1, 1, 2, 2, 3])
outputs = st.lists(
    st.tuples(st.sampled_from(["FRAMES", "OUT", ""]), st.sampled_from(["UINT8", "FP32", ""]), dims), max_size=3
)
contents = st.lists(st.binary(max_size=40) | st.just(bytes(12)), max_size=3)


@given(outputs, contents)
def test_any_answer_gives_frames_or_an_error(outputs: list[tuple[str, str, list[int]]], contents: list[bytes]) -> None:
    response = ModelInferResponse(raw_output_contents=contents)
    for name, datatype, shape in outputs:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
    frames = answer_or_error(lambda: decode(response))
    if isinstance(frames, HomomorphError):
        assert "no FRAMES" in str(frames)
        return
    shape, content = next(
        (shape, content)
        for (name, datatype, shape), content in zip(outputs, contents, strict=False)
        if (name, datatype, len(shape), math.prod(shape)) == ("FRAMES", "UINT8", 5, len(content)) and shape[0] == 1
    )
    assert frames.dtype == np.uint8
    assert frames.shape == tuple(shape[1:])
    assert frames.tobytes() == content


@given(outputs, contents, st.text(max_size=20))
def test_any_message_of_a_stream_gives_frames_or_an_error(
    outputs: list[tuple[str, str, list[int]]], contents: list[bytes], error: str
) -> None:
    message = ModelStreamInferResponse(error_message=error)
    message.infer_response.raw_output_contents.extend(contents)
    for name, datatype, shape in outputs:
        message.infer_response.outputs.add(name=name, datatype=datatype, shape=shape)
    if error:
        with pytest.raises(RequestError, match="refused"):
            decode_part(message, "here")
        return
    frames = answer_or_error(lambda: decode_part(message, "here"))
    assert isinstance(frames, RequestError) or frames.ndim == 4


# A training in the same process has the processor flush subnormal numbers, which Hypothesis would draw.
floats = partial(st.floats, allow_subnormal=False)
pictures = arrays.arrays(np.uint8, st.tuples(st.integers(8, 20), st.integers(8, 20), st.just(3)))


@given(
    source=pictures,
    target=pictures,
    strengths=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 9), st.just(3)), elements=floats(0, MAX_STRENGTH, width=32)
    ),
    size=st.integers(1, 4),
    urgent=st.booleans(),
)
def test_requests_hold_what_was_asked_for(
    source: np.ndarray, target: np.ndarray, strengths: np.ndarray, size: int, urgent: bool
) -> None:
    model = served(8 * size)
    written = morph_request(model, source, target, steps=None, strengths=strengths, urgent=urgent)
    request = ModelInferRequest.FromString(written.SerializeToString())
    read = {
        tensor.name: np.frombuffer(
            content, {"UINT8": np.uint8, "FP32": np.float32, "INT64": np.int64}[tensor.datatype]
        ).reshape(tensor.shape)
        for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
    }
    assert set(read) == {"SOURCE", "TARGET", "STRENGTHS"}
    assert np.array_equal(read["STRENGTHS"][0], strengths)
    for name, picture in (("SOURCE", source), ("TARGET", target)):
        assert read[name].shape == (1, 8 * size, 8 * size, 3)
        if picture.shape == (8 * size, 8 * size, 3):
            assert np.array_equal(read[name][0], picture), "a picture of the right size is sent as it is"
    assert frames_shape(request) == (1, len(strengths), 8 * size, 8 * size, 3)
    assert ("priority" in request.parameters) == urgent


anything = (
    st.none()
    | st.booleans()
    | st.text(st.characters(exclude_categories=["C"]), max_size=5)
    | st.one_of(
        arrays.arrays(kind, arrays.array_shapes(max_side=9), elements=arrays.from_dtype(kind, allow_subnormal=False))
        for kind in map(np.dtype, ("float32", "float64", "int64", "uint8", "bool"))
    )
    | st.dictionaries(st.sampled_from([*GROUPS, "beard"]), floats() | st.lists(floats(-1, 3), max_size=4))
)


@given(source=anything, strengths=anything, steps=st.none() | st.integers(-2, 300))
def test_any_argument_makes_a_request_or_an_error(source: object, strengths: object, steps: int | None) -> None:
    model = served(8)
    target = np.zeros((8, 8, 3), np.uint8)
    ask = partial(morph_request, model, source, target, steps=steps, strengths=strengths)
    if isinstance(request := answer_or_error(ask), HomomorphError):
        return
    _, frames, *picture = frames_shape(request)
    assert 1 <= frames <= 256
    assert picture == [8, 8, 3]
    values = np.frombuffer(request.raw_input_contents[2], np.float32)
    assert ((values >= 0) & (values <= MAX_STRENGTH)).all()


values = st.text(max_size=6) | st.sampled_from(
    ["64", "8", "0", "-8", "2.5", "nan", "inf", "a,b", "{}", '{"a": ["b"]}', "[]", "[1]", "9" * 30]
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["groups", "labels", "directions", "picture_size", "stride", "max_steps", "max_strength", "other"]
        ),
        values,
    ),
    st.none() | st.integers(-8, 80),
)
def test_any_configuration_is_a_model_or_an_error(parameters: dict[str, str], size: int | None) -> None:
    config = {"name": "morph", "parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    for kind in (ServedModel, ServedTranslation):
        model = answer_or_error(partial(kind.from_config, config, picture_size=size))
        if isinstance(model, HomomorphError):
            continue
        assert model.picture_size > 0
        assert model.picture_size % int(parameters["stride"]) == 0
        assert model.max_steps > 0
        if isinstance(model, ServedModel):
            assert 0 < model.max_strength < math.inf
            assert {name: list(names) for name, names in model.labels.items()} == json.loads(parameters["labels"])


def test_a_model_of_any_size_is_asked_for_frames_of_that_size() -> None:
    model = served(24)
    picture = np.zeros((8, 8, 3), np.uint8)
    request = encode(model, {"SOURCE": picture}, {"STRENGTHS": np.zeros((5, 3), np.float32)})
    assert frames_shape(request) == (1, 5, 24, 24, 3)
