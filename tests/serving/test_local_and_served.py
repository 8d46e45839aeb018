"""One protocol: a server and a model in this process take the same arguments, and give the same frames and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import homomorph
from homomorph_client import LabelError, MethodError, MorphClient, PictureError, StrengthError
from homomorph_client.morpher import Morpher
from homomorph_export.serving.server import TritonServer

pytestmark = pytest.mark.server

STRENGTHS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [2, 0.5, 0.1]], np.float32)


@pytest.fixture(scope="module")
def by_server(served: Any) -> Iterator[Morpher]:
    """A server of the session's repository that has the simpler methods, too."""
    with (
        TritonServer(served.repository, models=("morph", "edit", "pixel", "slerp", "latent")) as server,
        MorphClient(server.grpc_url) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def here(served: Any) -> Morpher:
    """The same run in this process."""
    return homomorph.load(served.repository.parent / "run")


@pytest.fixture(params=["here", "by_server"])
def morpher(request: pytest.FixtureRequest) -> Morpher:
    """Each of the two."""
    morpher: Morpher = request.getfixturevalue(request.param)
    return morpher


def test_both_say_the_same_of_the_model(here: Morpher, by_server: Morpher) -> None:
    assert here.groups == by_server.groups == ("hair", "glasses", "residual")
    assert here.labels == by_server.labels
    assert here.picture_size == by_server.picture_size
    for name in ("edit", "pixel"):
        ours, theirs = here.served_model(name), by_server.served_model(name)
        assert (ours.groups, ours.labels, ours.max_strength) == (theirs.groups, theirs.labels, theirs.max_strength)


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, a, b: model.morph(a, b),
        lambda model, a, b: model.morph(a, b, steps=33),
        lambda model, a, b: model.morph(a, b, strengths=STRENGTHS),
        lambda model, a, b: model.morph(a, b, strengths={"glasses": [0, 0.5, 1], "residual": 0.25}),
        lambda model, a, b: model.morph(a, b, strengths=np.zeros((2, 3))),
        lambda model, a, b: model.morph(a, b, steps=3, method="pixel"),
        lambda model, a, b: model.morph(a, b, steps=3, method="slerp"),
        lambda model, a, b: model.edit(a, {"hair": "blond"}, strengths={"hair": [0, 0.5, 1.5]}),
        lambda model, a, b: model.edit(a, {"hair": [], "glasses": ["glasses"]}, steps=3),
        lambda model, a, b: model.grid(a, b, rows="hair", columns="glasses", size=3),
        lambda model, a, b: model.square([a, b, b, a], size=3),
    ],
)
def test_both_draw_the_same_frames(
    here: Morpher, by_server: Morpher, pictures: npt.NDArray[np.uint8], ask: Any
) -> None:
    wide = np.pad(pictures[0], ((0, 0), (9, 9), (0, 0)))  # which both crop
    ours, theirs = ask(here, wide, pictures[1]), ask(by_server, wide, pictures[1])
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert int(np.abs(ours.astype(int) - theirs.astype(int)).max()) <= 1
    assert ours.flags["C_CONTIGUOUS"]
    assert ours.flags["WRITEABLE"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, a, b: model.morph_full_size(a, b, strengths=STRENGTHS, size=96),
        lambda model, a, b: model.edit_full_size(a, {"hair": "blond"}, steps=3),
    ],
)
def test_both_put_the_same_details_back(
    here: Morpher, by_server: Morpher, pictures: npt.NDArray[np.uint8], ask: Any
) -> None:
    large = np.kron(pictures[0], np.ones((2, 2, 1), np.uint8))
    ours, theirs = ask(here, large, pictures[1]), ask(by_server, large, pictures[1])
    assert ours.shape == theirs.shape
    # A frame and a picture as the model draws it may both differ by one level, and so may their rounded sum.
    assert int(np.abs(ours.astype(int) - theirs.astype(int)).max()) <= 3


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda model, a: model.morph(a, "absent.png"), PictureError, "absent.png"),
        (lambda model, a: model.morph(a, a, steps=1), StrengthError, "steps must be from 2"),
        (lambda model, a: model.morph(a, a, steps=2, strengths=STRENGTHS), StrengthError, "not both"),
        (lambda model, a: model.morph(a, a, strengths={"nose": 1}), StrengthError, "no group 'nose'"),
        (lambda model, a: model.morph(a, a, strengths={"hair": 2.5}), StrengthError, r"must lie in \[0, 2\]"),
        (lambda model, a: model.morph(a, a, method="cubic"), MethodError, "no method 'cubic'"),
        (lambda model, a: model.edit(a, {"hair": "green"}), LabelError, "no label 'green'"),
        (lambda model, a: model.grid(a, a, rows="hair", columns="hair"), StrengthError, "different groups"),
        (lambda model, a: model.square([a, a]), MethodError, "4 corners"),
    ],
)
def test_both_refuse_the_same(
    morpher: Morpher, pictures: npt.NDArray[np.uint8], ask: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ask(morpher, pictures[0])


def test_another_size(served: Any, pictures: npt.NDArray[np.uint8]) -> None:
    model = homomorph.load(served.repository.parent / "run", picture_size=96)
    assert model.edit(pictures[0], {"hair": "blond"}, steps=2).shape == (2, 96, 96, 3)
    with pytest.raises(PictureError, match="multiple of 8, not 60"):
        homomorph.load(served.repository.parent / "run", picture_size=60)


def test_frames_do_not_depend_on_how_many_are_decoded_together(here: Morpher, pictures: npt.NDArray[np.uint8]) -> None:
    strengths = torch.rand(40, 3).numpy()
    frames = here.morph(*pictures, strengths=strengths)
    alone = here.morph(*pictures, strengths=strengths[37:38])
    assert int(np.abs(frames[37].astype(int) - alone[0].astype(int)).max()) <= 1
