"""Compute morphs from pictures, and answer each request as soon as its own frames are decoded.

`model.py` beside this file passes requests to a `MorphRunner`, and `scheduler.py` decides which task runs next. A morph
has three kinds of tasks: encode pictures, mix their features, and decode a few frames. Waiting requests are encoded and
mixed together, which takes less time.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from scheduler import Job, Scheduler, Task
from torch import Tensor

MAX_ELEMENTS_OF_ONE_THREAD = 1 << 14
"""Pictures, or features, with at most this many elements use one thread: starting a second costs more than it saves."""
MAX_BATCH_SIZE = 8
"""Largest number of requests that are encoded and mixed together."""
PIXELS_PER_TASK = 1 << 15
"""Pixels that one task decodes, 8 frames of 64x64; at least one frame. A task is not interrupted."""
EFFICIENT_FRAMES = 3
"""Smallest number of frames in a task at which the time for one frame is about as short as in larger tasks."""


@dataclass(eq=False, kw_only=True)
class Morph(Job):
    """One request: B pairs of pictures, and S rows of K strengths for each pair."""

    source: Tensor
    """uint8 [B, H, W, 3]."""
    target: Tensor
    """uint8 [B, H, W, 3]."""
    strengths: Tensor
    """float32 [B, S, K]."""
    decoded: list[Tensor | None] = field(default_factory=list)
    """Frames of each decoding task, in the order of the frames; None until the task has run."""

    @property
    def frames(self) -> int:
        """Number of frames of the answer, B * S."""
        return self.strengths.shape[:2].numel()

    @property
    def pixels(self) -> int:
        """Number of pixels of the answer, B * S * H * W."""
        return self.frames * self.source.shape[1:3].numel()


class MorphRunner:
    """Runs the networks of one joint model for any number of callers."""

    def __init__(
        self,
        module: Any,
        *,
        threads: int,
        device: torch.device,
        max_queue_size: int,
        max_queue_s: float,
        cache_bytes: int = 0,
        count: Callable[[str, float], None] = lambda name, value: None,
    ) -> None:
        """Start the threads.

        Args:
            module: the TorchScript model in `model.pt`, with the methods `encode`, `interpolate`, `delta`, `combine`
                and `decode`.
            threads: number of threads that compute.
            device: the module's device. A GPU decodes the frames of a batch together.
            max_queue_size: largest number of waiting requests; urgent requests have a second queue of the same size.
            max_queue_s: a request that waits longer than this is refused.
            cache_bytes: size of the cache of pictures' features and of the branches' outputs; 0: no cache.
            count: called, from any thread, with numbers to add to metrics: pictures `known` from the cache or
                `encoded`, and the scheduler's `queue_s` and `compute_s`.
        """
        self.module = module
        self.device = device
        self.decodes_together = device.type != "cpu"
        self.pixel_s: float | None = None
        """Seconds to decode one pixel, a moving average; None until something has been decoded."""
        self.cache = FeatureCache(cache_bytes) if cache_bytes else None
        self._count = count
        self._lock = threading.Lock()  # guards `pixel_s` and what tasks of one job share
        self.scheduler = Scheduler(
            self._encode,
            threads=threads,
            max_batch_size=MAX_BATCH_SIZE,
            max_queue_size=max_queue_size,
            max_queue_s=max_queue_s,
            count=count,
        )

    def submit(
        self,
        source: Tensor,
        target: Tensor,
        strengths: Tensor,
        *,
        urgent: bool = False,
        timeout_s: float = math.inf,
    ) -> Future[Tensor]:
        """Compute a morph in the background.

        Args:
            source: uint8 pictures [B, H, W, 3]. The caller must not change any tensor before the answer.
            target: uint8 pictures [B, H, W, 3].
            strengths: float32 [B, S, K].
            urgent: whether the request has priority over all that are not urgent.
            timeout_s: a request that cannot be answered within this time is refused at its turn. Otherwise an
                overloaded server would answer every request, each one slightly too late.

        Returns:
            A future of uint8 frames [B, S, H, W, 3], or of an error.

        Raises:
            OverloadedError: the queue is full.
        """
        morph = Morph(
            batch_key=(source.shape[1:], strengths.shape[1:]),
            urgent=urgent,
            timeout_s=timeout_s,
            source=source,
            target=target,
            strengths=strengths,
        )
        if self.pixel_s is not None:
            morph.expected_s = morph.pixels * self.pixel_s / self.scheduler.threads
        self.scheduler.submit(morph)
        return morph.answer

    def close(self) -> None:
        """Finish the submitted requests and end the threads."""
        self.scheduler.close()

    @torch.inference_mode()  # inference mode is a setting of the calling thread, so each task sets it
    def _encode(self, jobs: list[Morph]) -> None:
        """Encode the pictures of a batch that are not in the cache, on all idle threads; then mix."""
        pictures = torch.cat([pictures for job in jobs for pictures in (job.source, job.target)])
        # With a cache, the key is a hash of the picture, so that equal pictures are encoded once; without, its index.
        keys: list[Any] = [picture_key(picture) for picture in pictures] if self.cache else list(range(len(pictures)))
        features = self._cached(keys)
        known = set(features)
        missing = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in features}
        if not missing:
            self._mix(jobs, [features[key] for key in keys], keys, known)
            return
        needed = len(features) + len(missing)

        @torch.inference_mode()
        def encode_some(some: list[Any]) -> None:
            rows = torch.stack([missing[key] for key in some])
            self._set_threads(rows)
            encoded = self.module.encode(rows.to(self.device))
            with self._lock:
                for key, row in zip(some, encoded, strict=True):
                    # The cache gets a copy: a row is a view that would keep the whole batch's features in memory.
                    features[key] = self.cache.put(key, row.clone()) if self.cache else row
                complete = len(features) == needed
            if complete:
                self._mix(jobs, [features[key] for key in keys], keys, known)

        to_encode = list(missing)
        size = math.ceil(len(to_encode) / (1 + self.scheduler.idle_threads()))
        mine, *others = [to_encode[start : start + size] for start in range(0, len(to_encode), size)]
        self.scheduler.add([Task(jobs, partial(encode_some, some)) for some in others])
        encode_some(mine)

    def _cached(self, keys: list[Any]) -> dict[Any, Tensor]:
        """Return the features of the pictures that are in the cache, by key."""
        if not self.cache:
            return {}
        with self._lock:
            found = {key: features for key in keys if (features := self.cache.get(key)) is not None}
        unknown = len(set(keys) - found.keys())
        self._count("known", len(keys) - unknown)
        self._count("encoded", unknown)
        return found

    def _mix(self, jobs: list[Morph], features: list[Tensor], keys: list[Any], known: set[Any]) -> None:
        """Interpolate the features of a batch's pictures, and add the tasks that decode the frames.

        Args:
            jobs: the batch.
            features: features of each picture, [C, h, w]: of each job, first its B sources, then its B targets.
            keys: their keys.
            known: the keys that the cache had.
        """
        sources: list[int] = []
        targets: list[int] = []
        for job in jobs:
            start, pairs = len(sources) + len(targets), len(job.source)
            sources += range(start, start + pairs)
            targets += range(start + pairs, start + 2 * pairs)
        self._set_threads(features)
        strengths = torch.cat([job.strengths for job in jobs]).to(self.device)
        features_a, features_b = (torch.stack([features[index] for index in side]) for side in (sources, targets))
        # More requests for two known pictures are likely, such as those of a slider that is moved.
        pairs_known = [
            (keys[a], keys[b]) if {keys[a], keys[b]} <= known else None for a, b in zip(sources, targets, strict=True)
        ]
        if any(pairs_known):
            deltas = self._deltas(features_b - features_a, pairs_known, (strengths != 0).any(dim=1))
            mixed = self.module.combine(features_a, deltas, strengths)
        else:
            mixed = self.module.interpolate(features_a, features_b, strengths)
        rows = mixed.flatten(0, 1).unsqueeze(1)  # (frames of all jobs, 1, C, h, w)
        if self.decodes_together:
            for job in jobs:
                job.decoded = [None]
            self.scheduler.add([Task(jobs, lambda: self._decode(jobs, 0, rows))])
        else:
            each = zip(jobs, rows.split([job.frames for job in jobs]), strict=True)
            self.scheduler.add([task for job, own in each for task in self._decoding_tasks(job, own)])

    def _deltas(self, differences: Tensor, pairs: list[tuple[Any, Any] | None], used: Tensor) -> Tensor:
        """Return what each branch takes of each pair's difference; of known pairs, it is computed once.

        Args:
            differences: F_b - F_a of N pairs, [N, C, h, w].
            pairs: keys of both pictures of each pair; None where one of them is new.
            used: whether a strength of that pair and branch is not 0, [N, K]. Other deltas are not initialised.

        Returns:
            T_i(F_b - F_a), [N, K, C, h, w].
        """
        deltas = differences.new_empty(*used.shape, *differences.shape[1:])
        for column, rows in enumerate(used.T.tolist()):
            missing = []
            for row in (row for row, is_used in enumerate(rows) if is_used):
                with self._lock:
                    delta = self.cache.get((pairs[row], column)) if self.cache and pairs[row] else None
                if delta is None:
                    missing.append(row)
                else:
                    deltas[row, column] = delta
            if missing:
                computed = self.module.delta(differences[missing], column)
                deltas[missing, column] = computed
                with self._lock:
                    for row, delta in zip(missing, computed, strict=True):
                        if self.cache and pairs[row]:
                            self.cache.put((pairs[row], column), delta.clone())
        return deltas

    def _decoding_tasks(self, job: Morph, rows: Tensor) -> list[Task]:
        """Divide the decoding of a job's frames into tasks: equally many for each thread."""
        efficient = EFFICIENT_FRAMES if self.scheduler.has_backlog() else 1
        sharing = min(self.scheduler.threads, math.ceil(job.frames / efficient))
        count = sharing * max(1, math.ceil(job.pixels / (PIXELS_PER_TASK * sharing)))
        parts = rows.tensor_split(min(count, job.frames))
        job.decoded = [None] * len(parts)

        def task(index: int) -> Task:
            return Task([job], lambda: self._decode([job], index, parts[index]))

        return [task(index) for index in range(len(parts))]

    @torch.inference_mode()
    def _decode(self, jobs: list[Morph], index: int, rows: Tensor) -> None:
        """Decode part number `index` of each job, and finish the jobs of which it was the last part."""
        self._set_threads(rows)
        start_s = time.perf_counter()
        frames = self.module.decode(rows).cpu()
        pixel_s = (time.perf_counter() - start_s) / frames.shape[:-1].numel()
        each = [frames] if len(jobs) == 1 else frames.split([job.frames for job in jobs])
        complete: list[tuple[Morph, list[Tensor]]] = []
        with self._lock:
            self.pixel_s = pixel_s if self.pixel_s is None else self.pixel_s + (pixel_s - self.pixel_s) / 8
            for job, own in zip(jobs, each, strict=True):
                job.decoded[index] = own
                parts = [part for part in job.decoded if part is not None]
                if len(parts) == len(job.decoded):
                    complete.append((job, parts))
        for job, parts in complete:
            self.scheduler.finish(job, torch.cat(parts).view(*job.strengths.shape[:2], *frames.shape[2:]))

    def _set_threads(self, rows: Tensor | list[Tensor]) -> None:
        """Let this task's operations use the idle cores too, if rows are large enough to profit."""
        large = rows[0].numel() > MAX_ELEMENTS_OF_ONE_THREAD
        torch.set_num_threads(self.scheduler.threads_per_task() if large else 1)


class FeatureCache:
    """Features of pictures and outputs of branches, by their keys; the most recently used ones are kept."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty; never hold more than `max_bytes`."""
        self.max_bytes = max_bytes
        self.bytes = 0
        self.features: OrderedDict[Any, Tensor] = OrderedDict()

    def get(self, key: Any) -> Tensor | None:
        """Return what has this key and mark it as used; None if the cache does not have it."""
        if key in self.features:
            self.features.move_to_end(key)
        return self.features.get(key)

    def put(self, key: Any, features: Tensor) -> Tensor:
        """Store features, drop the least recently used ones if need be, and return them."""
        if key in self.features:  # two concurrent requests had the same picture
            return self.features[key]
        self.features[key] = features
        self.bytes += features.nbytes
        while self.bytes > self.max_bytes:
            _, oldest = self.features.popitem(last=False)
            self.bytes -= oldest.nbytes
        return features


def picture_key(picture: Tensor) -> bytes:
    """Return a hash of a picture [H, W, 3]: its pixels and its size."""
    pixels = picture.numpy()
    return hashlib.blake2b(pixels.data, digest_size=32, salt=repr(pixels.shape[:2]).encode()).digest()
