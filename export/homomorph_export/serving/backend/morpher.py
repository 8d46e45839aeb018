"""Pictures to frames in one process, which answers each request as soon as its own frames are done.

`model.py` beside this file runs `model.pt` through it. Requests do not form batches that begin and end together: their
work is cut into pieces of a few frames, and each thread takes the next piece, whosever it is. So no thread waits for
another one, neither after a layer nor at the end of a batch; who comes while others are computed waits for a piece of
theirs, not for a batch; and who came first is answered first. (Servers of language models call this continuous
batching: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022.) Only what
comes before the frames, encoding and mixing, is done for several requests at once where several wait: it costs less so.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SMALL = 1 << 14
"""Up to so many numbers of one picture, or of its features, threads wait for each other longer than they compute."""
MOST_TOGETHER = 8
"""Requests that are encoded and mixed at once."""
PIECE_PIXELS = 1 << 15
"""Pixels of a piece, 8 frames of 64x64, if its first frame has not more already: a piece is not interrupted."""
WELL_FILLED = 3
"""Frames of a piece that is decoded about as fast, by the frame, as a larger one."""
TIME_IN_ALL = 2
"""How many times as long as its decoding a morph takes, at most: there are encoding and mixing, and others' pieces."""

Order = tuple[bool, float]


class OverloadedError(Exception):
    """So many requests wait that no other one is taken, or one has waited for too long."""


class TooLateError(Exception):
    """A request could not be answered within its timeout. Unlike one that is refused for the others, it is over."""

    def __init__(self) -> None:
        super().__init__("Request timeout expired: it could not be answered in time")


@dataclass(eq=False)
class Job:
    """One request on its way: B pairs of pictures, and S rows of strengths for each."""

    source: Tensor
    target: Tensor
    strengths: Tensor
    urgent: bool
    arrival_s: float
    """By `time.monotonic`, like all times."""
    timeout_s: float
    """After how many seconds its answer is of no use any more."""
    alone_s: float
    """How long its frames would take if it were alone here, by what earlier ones took."""
    order: Order
    """Whose work is done first: that of the urgent, and then of whoever would be done first if each were alone here."""
    answer: Future[Tensor] = field(default_factory=Future)
    begun_s: float = 0.0
    """When it was begun."""
    parts: list[Tensor | None] = field(default_factory=list)
    """Frames of each piece, as far as they are decoded."""

    @property
    def shape(self) -> tuple[torch.Size, torch.Size]:
        """What jobs have in common that are encoded and mixed at once."""
        return self.source.shape[1:], self.strengths.shape[1:]

    @property
    def frames(self) -> int:
        """How many frames the answer has, B * S."""
        return self.strengths.shape[:2].numel()

    @property
    def useless_s(self) -> float:
        """When its answer is of no use any more."""
        return self.arrival_s + self.timeout_s

    @property
    def frame_pixels(self) -> int:
        """How many pixels a frame has."""
        return self.source.shape[1:3].numel()


@dataclass(eq=False)
class Piece:
    """What one thread does without a break, for one job or for several."""

    jobs: list[Job]
    compute: Callable[[], None]

    @property
    def order(self) -> Order:
        """When it is done: with its first job."""
        return self.jobs[0].order


class Morpher:
    """Runs the networks of one joint model; for any number of threads that ask."""

    def __init__(
        self,
        module: Any,
        *,
        threads: int,
        device: torch.device,
        max_waiting: int,
        longest_wait_s: float,
        cache_bytes: int = 0,
        count: Callable[[str, float], None] = lambda what, more: None,
    ) -> None:
        """Start the threads.

        Args:
            module: what `model.pt` holds, with the methods `encode`, `interpolate` and `decode`.
            threads: how many compute.
            device: where the module is. A GPU decodes at once what it has mixed at once.
            max_waiting: how many requests may wait, and how many urgent ones beside them.
            longest_wait_s: after how many seconds a request that still waits is refused in any case.
            cache_bytes: how much the features of pictures may take that are kept for later requests; 0 for none.
            count: called from any of the threads with how many more pictures were `known` already or have to be
                `encoded`, and for how many more seconds requests have waited until they were begun, `queue_s`, and
                then until they were answered, `compute_s`.
        """
        self.module = module
        self.threads = threads
        self.device = device
        self.decodes_together = device.type != "cpu"
        self.max_waiting = max_waiting
        self.longest_wait_s = longest_wait_s
        self.known = KnownFeatures(cache_bytes) if cache_bytes else None
        self.count = count
        self.changed = threading.Condition()  # whose lock guards all that follows, and what is known
        self.jobs: set[Job] = set()
        self.waiting: list[Job] = []
        self.pieces: list[Piece] = []
        self.working = 0
        self.pixel_s = 0.0
        self.closed = False
        self.workers = [threading.Thread(target=self.work, daemon=True) for _ in range(threads)]
        for worker in self.workers:
            worker.start()

    def submit(
        self,
        source: Tensor,
        target: Tensor,
        strengths: Tensor,
        *,
        urgent: bool = False,
        timeout_s: float = math.inf,
    ) -> Future[Tensor]:
        """Take a request on.

        Args:
            source: uint8 pictures [B, H, W, 3]; they and the others must stay as they are until the answer is there.
            target: the same.
            strengths: float32 [B, S, K].
            urgent: whether it goes before all others.
            timeout_s: after how many seconds the answer is of no use any more. A request that could not be answered in
                time is refused when it has its turn: a server that is asked for more than it can compute would else
                answer all of them, each a little too late.

        Returns:
            What will be uint8 frames [B, S, H, W, 3], or what went wrong.

        Raises:
            OverloadedError: too many wait.
        """
        now_s = time.monotonic()
        with self.changed:
            if sum(job.urgent == urgent for job in self.waiting) >= self.max_waiting:
                # The words of Triton's own queues, which clients know; so below.
                raise OverloadedError(f"Exceeds maximum queue size: {self.max_waiting} requests wait")
            alone_s = strengths.shape[:2].numel() * source.shape[1:3].numel() * self.pixel_s / self.threads
            order = (not urgent, now_s + alone_s)
            job = Job(source, target, strengths, urgent, now_s, timeout_s, alone_s, order)
            job.answer.set_running_or_notify_cancel()  # it cannot be called off any more
            self.jobs.add(job)
            insort(self.waiting, job, key=lambda job: job.order)
            self.changed.notify_all()
        return job.answer

    def close(self) -> None:
        """Answer what was taken on, and end the threads."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        for worker in self.workers:
            worker.join()

    def work(self) -> None:
        """Do one piece after the other; what each of the threads runs."""
        with torch.inference_mode():  # of this thread alone, as is the number of threads that its operations use
            while piece := self.take():
                try:
                    if self.wanted(piece):
                        piece.compute()
                except Exception as error:  # whatever it is, those who asked must hear of it
                    for job in piece.jobs:
                        self.end(job, error)
                with self.changed:
                    self.working -= 1

    def take(self) -> Piece | None:
        """Wait for the piece that is next, and return it; None if none will come any more."""
        with self.changed:
            self.changed.wait_for(lambda: self.pieces or self.waiting or (self.closed and not self.jobs))
            if not (self.pieces or self.waiting):
                return None
            self.working += 1
            if not self.pieces or (self.waiting and self.waiting[0].order < self.pieces[0].order):
                return self.begin()
            return self.pieces.pop(0)

    def begin(self) -> Piece:
        """Return the first piece of those who wait, as many of them as are one thread's share."""
        first = self.waiting[0]
        share = min(MOST_TOGETHER, -(-len(self.waiting) // self.threads))
        jobs = [job for job in self.waiting if job.shape == first.shape][:share]
        self.waiting = [job for job in self.waiting if job not in jobs]
        return Piece(jobs, lambda: self.encode(jobs))

    def add(self, pieces: list[Piece]) -> None:
        """Have pieces computed."""
        with self.changed:
            for piece in pieces:
                insort(self.pieces, piece, key=lambda piece: piece.order)
            self.changed.notify_all()

    def encode(self, jobs: list[Job]) -> None:
        """Encode the pictures of jobs that are not known, as many threads as have nothing to do; then mix."""
        jobs = [job for job in jobs if self.begins(job)]
        if not jobs:
            return
        pictures = torch.cat([pictures for job in jobs for pictures in (job.source, job.target)])
        keys: list[Any] = list(range(len(pictures)))
        if self.known is not None:
            keys = [key_of(picture) for picture in pictures]
        features: dict[Any, Tensor] = {}
        with self.changed:
            if self.known is not None:
                features |= {key: known for key in keys if (known := self.known.get(key)) is not None}
            idle = self.threads - self.working
        missing = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in features}
        if self.known is not None:
            unknown = sum(key in missing for key in set(keys))
            self.count("known", len(keys) - unknown)
            self.count("encoded", unknown)
        if not missing:
            self.mix(jobs, [features[key] for key in keys])
            return
        everything = len(features) + len(missing)

        def piece(share: list[Any]) -> Piece:
            def compute() -> None:
                rows = torch.stack([missing[key] for key in share])
                self.lend(rows)
                encoded = self.module.encode(rows.to(self.device))
                with self.changed:
                    for key, row in zip(share, encoded, strict=True):
                        # A copy, or one picture's features would keep those of its whole share in memory.
                        features[key] = row if self.known is None else self.known.put(key, row.clone())
                    last = len(features) == everything
                if last:
                    self.mix(jobs, [features[key] for key in keys])

            return Piece(jobs, compute)

        size = -(-len(missing) // (1 + idle))
        names = list(missing)
        own, *others = [piece(names[start : start + size]) for start in range(0, len(names), size)]
        self.add(others)
        own.compute()

    def wanted(self, piece: Piece) -> bool:
        """End the begun jobs of a piece whose answers are of no use any more; return whether a job is left."""
        now_s = time.monotonic()
        for job in piece.jobs:
            if job.begun_s and now_s > job.useless_s:
                self.end(job, TooLateError())
        with self.changed:
            return not self.jobs.isdisjoint(piece.jobs)

    def begins(self, job: Job) -> bool:
        """Begin a job that has its turn; return False if it comes too late, and was ended."""
        now_s = time.monotonic()
        self.count("queue_s", now_s - job.arrival_s)
        with self.changed:
            ahead_s = sum(other.alone_s for other in self.jobs if other.begun_s)
        # What takes longer than is allowed, even alone, gets its chance.
        own_s = min(TIME_IN_ALL * job.alone_s, job.timeout_s / 2)
        if now_s + TIME_IN_ALL * ahead_s + own_s > job.useless_s:
            self.end(job, TooLateError())
        elif now_s > job.arrival_s + self.longest_wait_s:
            self.end(job, OverloadedError("Request timeout expired: it waited for too long"))
        else:
            job.begun_s = now_s
        return bool(job.begun_s)

    def mix(self, jobs: list[Job], features: list[Tensor]) -> None:
        """Mix the features of the pictures of jobs, each job's sources first and then its targets; have all decoded."""
        sources, targets = [], []
        for job in jobs:
            pairs = len(job.source)
            sources += features[:pairs]
            targets += features[pairs : 2 * pairs]
            features = features[2 * pairs :]
        strengths = torch.cat([job.strengths for job in jobs])
        self.lend(sources)
        mixed = self.module.interpolate(torch.stack(sources), torch.stack(targets), strengths.to(self.device))
        rows = mixed.flatten(0, 1).unsqueeze(1)
        if self.decodes_together:
            for job in jobs:
                job.parts = [None]
            self.add([Piece(jobs, lambda: self.decode(jobs, 0, rows))])
        else:
            each = zip(jobs, rows.split([job.frames for job in jobs]), strict=True)
            self.add([piece for job, own in each for piece in self.cut(job, own)])

    def cut(self, job: Job, rows: Tensor) -> list[Piece]:
        """Return the pieces in which a job's frames are decoded: an equal number for each thread."""
        with self.changed:
            busy = bool(self.waiting or self.pieces)
        sharing = min(self.threads, -(-job.frames // (WELL_FILLED if busy else 1)))
        count = sharing * max(1, -(-job.frames * job.frame_pixels // (PIECE_PIXELS * sharing)))
        parts = rows.tensor_split(min(count, job.frames))
        job.parts = [None] * len(parts)

        def piece(index: int) -> Piece:
            return Piece([job], lambda: self.decode([job], index, parts[index]))

        return [piece(index) for index in range(len(parts))]

    def decode(self, jobs: list[Job], index: int, rows: Tensor) -> None:
        """Decode the part of that index of each job; answer those that it completes."""
        self.lend(rows)
        begin = time.perf_counter()
        frames = self.module.decode(rows).cpu()
        pixel_s = (time.perf_counter() - begin) / frames.numel() * frames.shape[-1]
        each = [frames] if len(jobs) == 1 else frames.split([job.frames for job in jobs])
        complete: list[tuple[Job, list[Tensor]]] = []
        with self.changed:
            self.pixel_s += (pixel_s - self.pixel_s) / 8
            for job, own in zip(jobs, each, strict=True):
                job.parts[index] = own
                decoded = [part for part in job.parts if part is not None]
                if len(decoded) == len(job.parts):
                    complete.append((job, decoded))
        for job, parts in complete:
            self.count("compute_s", time.monotonic() - job.begun_s)
            self.end(job, torch.cat(parts).view(*job.strengths.shape[:2], *frames.shape[2:]))

    def end(self, job: Job, answer: Tensor | Exception) -> None:
        """Answer a job, unless that was done already, and forget it."""
        with self.changed:
            if job not in self.jobs:
                return
            self.jobs.remove(job)
            self.pieces = [piece for piece in self.pieces if piece.jobs != [job]]
            self.changed.notify_all()
        if isinstance(answer, Exception):
            job.answer.set_exception(answer)
        else:
            job.answer.set_result(answer)

    def lend(self, rows: Tensor | list[Tensor]) -> None:
        """Let this thread's next operations use the threads that have nothing to do, if rows are large enough."""
        with self.changed:
            spare = self.threads // (self.working + len(self.pieces) + len(self.waiting))
        torch.set_num_threads(max(1, spare) if rows[0].numel() > SMALL else 1)


class KnownFeatures:
    """Features of the pictures that were used last, by their keys, as many as there is room for."""

    def __init__(self, most_bytes: int) -> None:
        """Say how much room there is."""
        self.most_bytes = most_bytes
        self.bytes = 0
        self.features: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, key: bytes) -> Tensor | None:
        """Return a picture's features, which counts as a use of them, or None if they are not known."""
        if key in self.features:
            self.features.move_to_end(key)
        return self.features.get(key)

    def put(self, key: bytes, features: Tensor) -> Tensor:
        """Keep a picture's features, instead of those that were not used for longest, and return them."""
        if key in self.features:  # two requests have brought the same picture at once
            return self.features[key]
        self.features[key] = features
        self.bytes += features.nbytes
        while self.bytes > self.most_bytes:
            _, oldest = self.features.popitem(last=False)
            self.bytes -= oldest.nbytes
        return features


def key_of(picture: Tensor) -> bytes:
    """Return what two pictures [H, W, 3] have in common only if all their pixels are the same."""
    pixels = picture.numpy()
    return hashlib.blake2b(pixels.data, digest_size=32, salt=repr(pixels.shape[:2]).encode()).digest()
