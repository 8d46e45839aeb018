"""The order in which the backend's engine computes, and what it does not compute; its networks are stand-ins."""

from __future__ import annotations

import importlib
import importlib.resources
import threading
import time
from typing import Any

import pytest
import torch


class Recorder:
    """Networks of one number a picture, which wait until they may go on; `decoded` has what they decoded, in order."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self.decoded: list[list[float]] = []

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures[:, :1, :1, 0].float()

    def interpolate(self, source: torch.Tensor, target: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
        if source.max() > 250:
            raise RuntimeError("out of memory")
        return source[:, None].expand(-1, strengths.shape[1], -1, -1)

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        self.started.release()
        self.go.acquire()
        self.decoded.append(sorted(set(features.flatten().tolist())))
        return features[..., None].expand(-1, 1, 8, 8, 3).to(torch.uint8)

    def ask(self, morpher: Any, value: int, frames: int = 1, **options: Any) -> Any:
        picture = torch.full((1, 8, 8, 3), value, dtype=torch.uint8)
        return morpher.submit(picture, picture, torch.ones(1, frames, 3), **options)


@pytest.fixture
def morphers(monkeypatch: pytest.MonkeyPatch):
    """The module `morpher`, imported as in a model's process, where it stands beside `scheduler`."""
    folder = importlib.resources.files("homomorph_export") / "serving" / "backend"
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("morpher")


@pytest.fixture
def scheduler(morphers):
    """The module `scheduler` that `morpher` uses."""
    return importlib.import_module("scheduler")


@pytest.mark.parametrize(
    ("decodes_together", "expected"),
    [(False, [[1], [4], [2], [3]]), (True, [[1], [2, 3, 4]])],
    ids=["CPU", "GPU"],
)
def test_who_goes_first(morphers, decodes_together: bool, expected: list[list[float]]):
    """In the order of arrival, but the urgent before all others."""
    networks = Recorder()
    morpher = morphers.MorphRunner(networks, threads=1, device=torch.device("cpu"), max_queue_size=8, max_queue_s=60)
    morpher.decodes_together = decodes_together
    answers = [networks.ask(morpher, 1)]
    networks.started.acquire()
    answers += [networks.ask(morpher, 2), networks.ask(morpher, 3), networks.ask(morpher, 4, urgent=True)]
    networks.go.release(100)
    for value, answer in enumerate(answers, 1):
        frames = answer.result(timeout=60)
        assert (frames.dtype, frames.shape) == (torch.uint8, (1, 1, 8, 8, 3))
        assert (frames == value).all()
    assert networks.decoded == expected
    morpher.close()


def test_a_short_one_overtakes_a_long_one_that_is_computed(morphers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(morphers, "PIXELS_PER_TASK", 8 * 64)
    networks = Recorder()
    morpher = morphers.MorphRunner(networks, threads=1, device=torch.device("cpu"), max_queue_size=8, max_queue_s=60)
    morpher.pixel_s = 1.0  # that long was taken by earlier ones
    long = networks.ask(morpher, 1, frames=32)
    networks.started.acquire()
    short = networks.ask(morpher, 2)
    networks.go.release(2)
    assert (short.result(timeout=60) == 2).all()
    assert not long.done()
    networks.go.release(100)
    assert (long.result(timeout=60) == 1).all()
    assert networks.decoded == [[1], [2], [1], [1], [1]]
    morpher.close()


def test_requests_beyond_the_bound_are_refused_and_a_failure_is_one_requests_own(morphers, scheduler):
    networks = Recorder()
    morpher = morphers.MorphRunner(networks, threads=1, device=torch.device("cpu"), max_queue_size=2, max_queue_s=60)
    answers = [networks.ask(morpher, 1)]
    networks.started.acquire()
    answers += [networks.ask(morpher, 2), networks.ask(morpher, 3)]
    with pytest.raises(scheduler.OverloadedError, match="Exceeds maximum queue size: 2 requests wait"):
        networks.ask(morpher, 4)
    answers.append(networks.ask(morpher, 5, urgent=True))  # there is room for them beside the others
    networks.go.release(100)
    assert [int(answer.result(timeout=60).max()) for answer in answers] == [1, 2, 3, 5]
    with pytest.raises(RuntimeError, match="out of memory"):
        networks.ask(morpher, 251).result(timeout=60)
    last = networks.ask(morpher, 6)
    morpher.close()
    assert int(last.result(timeout=0).max()) == 6, "answered before the end"


def test_who_waits_for_too_long_is_not_computed(morphers, scheduler):
    networks, counted = Recorder(), []
    morpher = morphers.MorphRunner(
        networks,
        threads=1,
        device=torch.device("cpu"),
        max_queue_size=8,
        max_queue_s=60,
        count=lambda name, value: counted.append((name, value)),
    )
    first = networks.ask(morpher, 1)
    networks.started.acquire()
    hasty = networks.ask(morpher, 2, timeout_s=0.01)
    patient = networks.ask(morpher, 3, timeout_s=600)
    time.sleep(0.02)
    networks.go.release(100)
    with pytest.raises(scheduler.DeadlineExceededError, match="Request timeout expired"):
        hasty.result(timeout=60)
    assert [int(answer.result(timeout=60).max()) for answer in (first, patient)] == [1, 3]
    morpher.scheduler._max_queue_s = 0
    with pytest.raises(scheduler.OverloadedError, match="it waited for too long"):
        networks.ask(morpher, 4, timeout_s=600).result(timeout=60)
    with pytest.raises(scheduler.DeadlineExceededError):
        networks.ask(morpher, 5, timeout_s=1e-9).result(timeout=60)
    morpher.close()
    assert networks.decoded == [[1], [3]]
    assert sorted(what for what, _ in counted) == ["compute_s"] * 2 + ["queue_s"] * 5, (
        "who waited in vain has waited, too"
    )
    assert sum(more for what, more in counted if what == "queue_s") > 2 * 0.02


def test_what_could_not_be_answered_in_time_is_not_begun(morphers, scheduler):
    networks = Recorder()
    morpher = morphers.MorphRunner(networks, threads=2, device=torch.device("cpu"), max_queue_size=8, max_queue_s=60)
    morpher.pixel_s = 1.0  # a frame of 8x8 pixels would take 32 s on both threads
    first = networks.ask(morpher, 1, timeout_s=40)  # too long even alone: it gets its chance
    networks.started.acquire()
    with pytest.raises(scheduler.DeadlineExceededError):
        networks.ask(morpher, 2, timeout_s=100).result(timeout=60)
    third = networks.ask(morpher, 3, timeout_s=200)
    networks.go.release(100)
    assert [int(answer.result(timeout=60).max()) for answer in (first, third)] == [1, 3]
    morpher.close()


def test_what_is_of_no_use_any_more_is_not_computed_to_its_end(morphers, scheduler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(morphers, "PIXELS_PER_TASK", 8 * 64)
    networks = Recorder()
    morpher = morphers.MorphRunner(networks, threads=1, device=torch.device("cpu"), max_queue_size=8, max_queue_s=60)
    long = networks.ask(morpher, 1, frames=32, timeout_s=2)
    networks.started.acquire()
    time.sleep(2.1)
    networks.go.release(100)
    with pytest.raises(scheduler.DeadlineExceededError):
        long.result(timeout=60)
    assert int(networks.ask(morpher, 2).result(timeout=60).max()) == 2
    morpher.close()
    assert networks.decoded == [[1], [2]], "one of four pieces"


def test_the_cache_keeps_what_was_used_last(morphers):
    cache = morphers.FeatureCache(100)
    features = {letter: torch.zeros(10) for letter in "abc"}  # 40 bytes each
    cache.put(b"a", features["a"])
    cache.put(b"b", features["b"])
    assert cache.get(b"a") is features["a"]
    cache.put(b"c", features["c"])
    assert (cache.get(b"a"), cache.get(b"b"), cache.get(b"c")) == (features["a"], None, features["c"])
    assert cache.put(b"large", torch.zeros(26)) is not None
    assert (cache.bytes, cache.get(b"large"), len(cache.features)) == (0, None, 0), "larger than the cache"
