"""Runs the tasks of many requests on a fixed number of threads, the most pressing task first.

A job is one request. It waits in the queue until a thread starts it, together with others of its kind as a batch; from
then on its work is tasks of a few milliseconds, and each thread takes the next task of any job. So no thread waits for
another one; a job that comes while others are computed waits for one task of theirs, not for a batch; and a short job
overtakes the rest of a long one. (Servers of language models call this continuous batching: Yu et al., "Orca: A
Distributed Serving System for Transformer-Based Generative Models", OSDI 2022.)

This file knows nothing of networks: a task is a callable. It needs the standard library alone.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import insort
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

WORST_SLOWDOWN = 2
"""A job is expected to take at most this many times `expected_s`: there are other jobs' tasks, and encoding."""

Priority = tuple[bool, float]
"""Smaller values go first: urgent jobs, then by the time at which each would be finished if it were alone."""


class OverloadedError(Exception):
    """The queue is full, or a job has waited in it for too long."""


class DeadlineExceededError(Exception):
    """A job's deadline is over, or cannot be met. Asking again is of no use, unlike after `OverloadedError`."""

    def __init__(self) -> None:
        # These are the words of Triton's own queues, which clients know.
        super().__init__("Request timeout expired: it could not be answered in time")


@dataclass(eq=False, kw_only=True)
class Job:
    """One request. All times are those of `time.monotonic`."""

    batch_key: Hashable
    """Jobs with equal keys may be started as one batch."""
    urgent: bool = False
    """Urgent jobs go before all others."""
    timeout_s: float = math.inf
    """Seconds after arrival until the answer is of no use any more."""
    expected_s: float = 0.0
    """Seconds that the job would take if it were alone, judged by earlier ones."""
    arrival_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    """When it left the queue; None while it waits."""
    answer: Future[Any] = field(default_factory=Future)

    @property
    def deadline_s(self) -> float:
        """When the answer is of no use any more."""
        return self.arrival_s + self.timeout_s

    @property
    def priority(self) -> Priority:
        """Key by which jobs and their tasks are sorted."""
        return not self.urgent, self.arrival_s + self.expected_s


@dataclass(eq=False)
class Task:
    """What one thread does without interruption, for one job or for a batch of them."""

    jobs: Sequence[Job]
    run: Callable[[], None]

    @property
    def priority(self) -> Priority:
        """Priority of its first job."""
        return self.jobs[0].priority


class Scheduler:
    """A queue of jobs, the tasks that are ready to run, and the threads that run them."""

    def __init__(
        self,
        start_batch: Callable[[list[Any]], None],
        *,
        threads: int,
        max_batch_size: int,
        max_queue_size: int,
        max_queue_s: float,
        count: Callable[[str, float], None] = lambda name, value: None,
    ) -> None:
        """Start the threads.

        Args:
            start_batch: what the first task of a batch calls with its jobs; it adds further tasks (`add`) and finishes
                the jobs (`finish`), there or in those tasks. If it raises, its jobs fail.
            threads: number of threads.
            max_batch_size: largest number of jobs that are started together.
            max_queue_size: number of jobs that may wait, and of urgent ones beside them.
            max_queue_s: seconds after which a job that still waits is refused.
            count: called, from any thread, with seconds to add to the metrics `queue_s` (from arrival to start) and
                `compute_s` (from start to answer).
        """
        self.threads = threads
        self._start_batch = start_batch
        self._max_batch_size = max_batch_size
        self._max_queue_size = max_queue_size
        self._max_queue_s = max_queue_s
        self._count = count
        self._changed = threading.Condition()  # its lock guards everything below
        self._unanswered: set[Job] = set()
        self._queue: list[Job] = []
        self._tasks: list[Task] = []
        self._busy_threads = 0
        self._closed = False
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for worker in self._workers:
            worker.start()

    def submit(self, job: Job) -> None:
        """Put a job into the queue. Its `answer` will hold the result or the error.

        Raises:
            OverloadedError: the queue is full.
        """
        with self._changed:
            if sum(other.urgent == job.urgent for other in self._queue) >= self._max_queue_size:
                raise OverloadedError(f"Exceeds maximum queue size: {self._max_queue_size} requests wait")
            job.answer.set_running_or_notify_cancel()  # from here on it cannot be cancelled
            self._unanswered.add(job)
            insort(self._queue, job, key=lambda job: job.priority)
            self._changed.notify_all()

    def add(self, tasks: Sequence[Task]) -> None:
        """Have tasks run."""
        with self._changed:
            for task in tasks:
                insort(self._tasks, task, key=lambda task: task.priority)
            self._changed.notify_all()

    def finish(self, job: Job, result: Any) -> None:
        """Answer a job with its result, unless it has been answered."""
        if self._forget(job):
            assert job.started_s is not None
            self._count("compute_s", time.monotonic() - job.started_s)
            job.answer.set_result(result)

    def fail(self, job: Job, error: Exception) -> None:
        """Answer a job with an error, unless it has been answered."""
        if self._forget(job):
            job.answer.set_exception(error)

    def has_backlog(self) -> bool:
        """Whether jobs or tasks wait for a thread."""
        with self._changed:
            return bool(self._queue or self._tasks)

    def idle_threads(self) -> int:
        """Number of threads that run no task."""
        with self._changed:
            return self.threads - self._busy_threads

    def threads_per_task(self) -> int:
        """Number of cores that each running or waiting task may use, at least 1."""
        with self._changed:
            return max(1, self.threads // (self._busy_threads + len(self._tasks) + len(self._queue)))

    def close(self) -> None:
        """Answer every job that was submitted, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _work(self) -> None:
        """Run tasks until the scheduler is closed; the body of each thread."""
        while task := self._next_task():
            try:
                self._fail_late_jobs(task)
                if self._has_unanswered_jobs(task):
                    task.run()
            except Exception as error:  # of any kind: the jobs' callers must hear of it
                for job in task.jobs:
                    self.fail(job, error)
            with self._changed:
                self._busy_threads -= 1

    def _next_task(self) -> Task | None:
        """Wait for the most pressing task and take it; None once the scheduler is closed and all jobs are answered."""
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._queue or (self._closed and not self._unanswered))
            if not (self._tasks or self._queue):
                return None
            self._busy_threads += 1
            if not self._tasks or (self._queue and self._queue[0].priority < self._tasks[0].priority):
                jobs = self._take_batch()
                return Task(jobs, lambda: self._start(jobs))
            return self._tasks.pop(0)

    def _take_batch(self) -> list[Job]:
        """Take the first job from the queue, and others that fit to it: one thread's share of all that wait."""
        first = self._queue[0]
        share = min(self._max_batch_size, math.ceil(len(self._queue) / self.threads))
        batch = [job for job in self._queue if job.batch_key == first.batch_key][:share]
        self._queue = [job for job in self._queue if job not in batch]
        return batch

    def _start(self, jobs: list[Job]) -> None:
        """Start the jobs that can still be answered in time, and fail the others."""
        started = []
        for job in jobs:
            now_s = time.monotonic()
            self._count("queue_s", now_s - job.arrival_s)
            if self._would_be_late(job, now_s):
                self.fail(job, DeadlineExceededError())
            elif now_s > job.arrival_s + self._max_queue_s:
                self.fail(job, OverloadedError("Request timeout expired: it waited for too long"))
            else:
                job.started_s = now_s
                started.append(job)
        if started:
            self._start_batch(started)

    def _would_be_late(self, job: Job, now_s: float) -> bool:
        """Whether a job that is started now is expected to miss its deadline."""
        with self._changed:
            ahead_s = sum(other.expected_s for other in self._unanswered if other.started_s is not None)
        # A job that is too long for its timeout even when alone gets a chance.
        own_s = min(WORST_SLOWDOWN * job.expected_s, job.timeout_s / 2)
        return now_s + WORST_SLOWDOWN * ahead_s + own_s > job.deadline_s

    def _fail_late_jobs(self, task: Task) -> None:
        """Fail the started jobs of a task whose deadline is over."""
        now_s = time.monotonic()
        for job in task.jobs:
            if job.started_s is not None and now_s > job.deadline_s:
                self.fail(job, DeadlineExceededError())

    def _has_unanswered_jobs(self, task: Task) -> bool:
        with self._changed:
            return not self._unanswered.isdisjoint(task.jobs)

    def _forget(self, job: Job) -> bool:
        """Drop a job and the tasks that are its alone; return False if it has been answered before."""
        with self._changed:
            if job not in self._unanswered:
                return False
            self._unanswered.remove(job)
            self._tasks = [task for task in self._tasks if list(task.jobs) != [job]]
            self._changed.notify_all()
            return True
