"""Reads batches ahead of the step that needs them, and skips pictures that cannot be read."""

from __future__ import annotations

import logging
import multiprocessing.queues
import os
import signal
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Protocol, TypeVar, cast

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from homomorph.data.labels import LabelledPictures
from homomorph.errors import DataError

_GRACE_S = 3
"""Seconds that a worker goes on for after SIGTERM."""

_log = logging.getLogger(__name__)


class _Batch(Protocol):
    @property
    def bad(self) -> dict[int, str]:
        """Pictures of the data that were drawn but cannot be read, with the reason."""
        ...


B = TypeVar("B", bound=_Batch, covariant=True)


class Batches(Protocol[B]):
    """A data set whose item `step` is the batch of that training step."""

    def __getitem__(self, step: int) -> B:
        """Draw the batch."""
        ...

    def check_bad(self, bad: Mapping[int, str]) -> None:
        """Raise DataError if too many pictures cannot be read."""
        ...


def load_batches(batches: Batches[B], steps: range, workers: int, bad: dict[int, str]) -> Generator[B, None, None]:
    """Read the batches of these steps, and add to `bad` the pictures that cannot be read, with a warning each.

    Raises:
        DataError: they are too many, or a worker ended.
    """
    loader: DataLoader[B] = DataLoader(
        cast(Dataset[B], batches),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        worker_init_fn=_begin_worker if workers else None,
        prefetch_factor=8 if workers else None,
    )
    try:
        for batch in _start(loader):
            for index in sorted(batch.bad.keys() - bad.keys()):
                bad[index] = batch.bad[index]
                _log.warning("skipped: %s", bad[index])
            batches.check_bad(bad)
            yield batch
    except DataError as error:
        # Across processes the message arrives wrapped into the other process's traceback.
        raise DataError(str(error).strip().rpartition(f"{DataError.__name__}: ")[2]) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that reads pictures ended: memory or /dev/shm is full. Make room (docker run --shm-size=1g), or "
            "train with fewer --workers"
        ) from error


def _start(loader: DataLoader[B]) -> Iterator[B]:
    """Start the workers while OpenCV has no threads.

    A fork copies OpenCV's list of threads but not the threads. In such a worker, `setNumThreads` and filters never end.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


def default_workers() -> int:
    """Return the default number of processes that read pictures: one for every two cores, at least 1, at most 8."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // 2))


def report_skipped(count: int, data: LabelledPictures) -> None:
    """Warn at the end how many pictures could not be used, if any."""
    if count:
        _log.warning("%d of %d pictures could not be used and were skipped", count, len(data.paths))


def _begin_worker(_: int) -> None:
    """Let a worker use one core, so that the networks have the others, and let it outlive signals to its group."""
    # Ctrl-C reaches every process of a terminal, and service managers stop all of a service's: the process that takes
    # the batches finishes its step first. It also ends its workers by SIGTERM when it ends, and then waits for them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))  # any other status would raise in that process
    # If /dev/shm is full, a batch cannot be sent. By default it would be lost, and the other process would wait for it.
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(lambda *_: os._exit(1))
    torch.set_num_threads(1)
