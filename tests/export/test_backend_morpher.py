"""The Python backend's own file for `morpher`, which batches, caches and answers later; run without a server."""

from __future__ import annotations

import os
import time
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from homomorph.models.morph import MorphModel
from homomorph.training.strips import morph_pixels

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


class Request(dict[str, np.ndarray]):
    """A request's inputs; what the backend sends as its response, at once or later, comes to `response`."""

    def __init__(self, inputs: dict[str, np.ndarray], parameters: str = "", timeout_us: int = 0) -> None:
        super().__init__(inputs)
        self.sent: Queue[Any] = Queue()
        self.parameters, self.timeout = lambda: parameters, lambda: timeout_us

    def get_response_sender(self) -> Any:
        return SimpleNamespace(send=lambda response, flags: self.sent.put(response))

    def response(self) -> Any:
        return self.sent.get(timeout=60)


def morph_request(pictures: np.ndarray, steps: int = 4, seed: int = 0, parameters: str = "") -> Request:
    strengths = np.random.default_rng(seed).random((1, steps, 3), dtype=np.float32)
    return Request({"SOURCE": pictures[:1], "TARGET": pictures[1:2], "STRENGTHS": strengths}, parameters)


def answered(served: Any, *requests: Request) -> list[Any]:
    """Return what a joint model answers to requests that come together."""
    assert served.execute(list(requests)) is None
    return [request.response() for request in requests]


def counted_pictures(served: Any) -> dict[str, float]:
    """Return how many pictures were found in the cache ("yes") and how many not ("no"), once the model has told."""
    families = served.module.pb_utils.MetricFamily.counted
    before = None
    while before != (counted := dict(families["homomorph_pictures"])):
        before = counted
        time.sleep(0.5)
    return counted


@pytest.fixture
def pictures() -> np.ndarray:
    """Four random pictures, uint8 [4, 32, 32, 3]."""
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("cache_mib", ["0", "1"])
@pytest.mark.parametrize(
    ("threads", "engine"),
    [(1, "torchscript"), (2, "torchscript"), (3, "torchscript"), (2, "onnxruntime")],
)
def test_a_joint_model_gives_the_frames_of_the_run(
    backend,
    repository: Path,
    model: MorphModel,
    pictures: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    cache_mib: str,
    threads: int,
    engine: str,
):
    monkeypatch.setenv("HOMOMORPH_ENGINE", engine)
    monkeypatch.setenv("HOMOMORPH_CACHE_MIB", cache_mib)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(threads)))
    served = backend(repository, "morpher")
    assert len(served.instance.morpher.scheduler._workers) == threads
    requests = [
        morph_request(pictures, seed=1),
        morph_request(pictures[2:], seed=2),
        morph_request(pictures[[3, 0]], steps=80),  # several pieces for each thread
        morph_request(pictures[[0, 1]], steps=1),
        Request(
            {
                "SOURCE": pictures[:3],
                "TARGET": pictures[1:],
                "STRENGTHS": np.random.default_rng(3).random((3, 4, 3), dtype=np.float32),
            }
        ),
    ]
    for request, response in zip(requests, answered(served, *requests), strict=True):
        expected = morph_pixels(
            model,
            *(torch.from_numpy(request[name]).permute(0, 3, 1, 2) for name in ("SOURCE", "TARGET")),
            torch.from_numpy(request["STRENGTHS"]),
        )
        frames = response.output_tensors[0].array
        assert np.abs(frames.astype(int) - expected.movedim(2, -1).numpy()).max() <= 1
        (alone,) = answered(served, request)
        assert np.abs(frames.astype(int) - alone.output_tensors[0].array).max() <= 1


def test_a_morph_that_fails_is_an_answer_too(backend, repository: Path, pictures: np.ndarray):
    served = backend(repository, "morpher")
    served.instance.morpher.module = SimpleNamespace(encode=lambda pictures: [][0])
    (response,) = answered(served, morph_request(pictures))
    assert (str(response.error), response.error.code) == ("list index out of range", "internal")
    wrong = morph_request(pictures)
    wrong["STRENGTHS"][:] = -1
    (response,) = answered(served, wrong)
    assert response.error.code == "invalid argument"
    late = Request(morph_request(pictures), timeout_us=1)
    (response,) = answered(served, late)
    assert (response.error.code, "timeout expired" in str(response.error)) == ("cancelled", True)


@pytest.mark.parametrize("urgent", ['"false"', "1", "null", "[]"])
def test_urgent_is_true_or_false(backend, repository: Path, pictures: np.ndarray, urgent: str):
    served = backend(repository, "morpher")
    (response,) = answered(served, morph_request(pictures, parameters=f'{{"urgent": {urgent}}}'))
    assert response.error.code == "invalid argument"
    assert "the parameter urgent must be true or false" in str(response.error)


@pytest.mark.parametrize("timeout_us", [2**64 - 1, 10**13])
def test_timeouts_that_were_negative_or_are_endless(backend, repository: Path, pictures: np.ndarray, timeout_us: int):
    served = backend(repository, "morpher")
    (response,) = answered(served, Request(morph_request(pictures), timeout_us=timeout_us))
    assert (response.error.code, "timeout must be from 0" in str(response.error)) == ("invalid argument", True)


def test_no_picture_is_encoded_twice(backend, repository: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOMOMORPH_CACHE_MIB", "1")
    served = backend(repository, "morpher")
    answered(served, morph_request(pictures))
    answered(served, morph_request(pictures[1:]))
    assert counted_pictures(served) == {"yes": 1, "no": 3}, "the second's source is the first's target"
    answered(served, morph_request(pictures, seed=1))
    answered(served, morph_request(pictures[[3, 1]]), morph_request(pictures[[0, 1]], seed=2))
    assert counted_pictures(served) == {"yes": 6, "no": 4}
    # The same bytes in another shape are another picture.
    answered(served, morph_request(pictures.reshape(4, 16, 64, 3)))
    assert counted_pictures(served) == {"yes": 6, "no": 6}


def test_a_slider_that_moves_runs_no_branch_again(
    backend, repository: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    plain = backend(repository, "morpher")
    monkeypatch.setenv("HOMOMORPH_CACHE_MIB", "1")
    served = backend(repository, "morpher")
    module = served.instance.morpher.module
    runs: list[tuple[int, int]] = []

    def delta(difference: torch.Tensor, column: int) -> torch.Tensor:
        runs.append((column, len(difference)))
        return module.delta(difference, column)

    served.instance.morpher.module = SimpleNamespace(
        encode=module.encode, interpolate=module.interpolate, delta=delta, combine=module.combine, decode=module.decode
    )
    strengths = np.zeros((3, 1, 3), dtype=np.float32)
    for moved, expected in (
        ({0: 0.5}, []),  # the first request of these pictures: another one may never come
        ({0: 0.6}, [(0, 3)]),
        ({0: 0.7}, []),
        ({0: 0.7, 2: 1.0}, [(2, 3)]),
        ({0: 0.2, 2: 1.5}, []),
    ):
        runs.clear()
        for column, value in moved.items():
            strengths[:, :, column] = value
        request = Request({"SOURCE": pictures[:3], "TARGET": pictures[1:], "STRENGTHS": strengths.copy()})
        (response,), (right,) = answered(served, request), answered(plain, request)
        np.testing.assert_array_equal(response.output_tensors[0].array, right.output_tensors[0].array)
        assert runs == expected
    # New pictures beside known ones: the known pair's answers are taken, and nothing of the new one is kept.
    runs.clear()
    pairs = np.stack([pictures[0], 255 - pictures[0]]), pictures[1:3]
    request = Request({"SOURCE": pairs[0], "TARGET": pairs[1], "STRENGTHS": strengths[:2]})
    (response,), (right,) = answered(served, request), answered(plain, request)
    np.testing.assert_array_equal(response.output_tensors[0].array, right.output_tensors[0].array)
    assert runs == [(0, 1), (2, 1)]


def test_without_a_cache_nothing_is_kept(backend, repository: Path, pictures: np.ndarray):
    served = backend(repository, "morpher")
    for _ in range(2):
        answered(served, morph_request(pictures))
    assert served.instance.morpher.cache is None


def test_strengths_of_zero_run_no_branch(backend, repository: Path, pictures: np.ndarray):
    """Of a group that no request of a batch uses, T_i does not run: the frames do not need its weights."""
    served = backend(repository, "morpher")
    request = morph_request(pictures)
    request["STRENGTHS"][:] = 0
    networks = served.instance.module
    features = networks.encode(torch.from_numpy(np.concatenate([request["SOURCE"], request["TARGET"]])))

    def convolutions() -> int:
        with torch.profiler.profile() as profile:
            networks.interpolate(features[:1], features[1:], torch.from_numpy(request["STRENGTHS"]))
        return sum(event.count for event in profile.key_averages() if "convolution" in event.key)

    idle = convolutions()
    request["STRENGTHS"][:, :, 1] = 1
    assert convolutions() > idle
