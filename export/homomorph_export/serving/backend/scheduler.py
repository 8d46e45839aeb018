"""Run the tasks of many requests on a fixed number of threads, the task with the highest priority first.

A job is one request. It waits in the queue until a thread starts it, as a batch with similar jobs. A started job
consists of tasks of a few milliseconds, and each thread takes the next task of any job. So threads do not wait for each
other, a new job waits for one task instead of a whole batch, and a short job overtakes the rest of a long one. Servers
of language models call this continuous batching (Yu et al., "Orca: A Distributed Serving System for Transformer-Based
Generative Models", OSDI 2022).

The scheduler is independent of the networks: a task is a callable. It needs the standard library only.
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
"""A job takes at most about this many times `expected_s`, because of encoding and of other jobs' tasks."""

Priority = tuple[bool, float]
"""Smaller values run first: urgent jobs, then by the time at which each would finish if it ran alone."""


class OverloadedError(Exception):
    """The queue is full, or a job has waited in it for too long."""


class DeadlineExceededError(Exception):
    """A job's deadline has passed or cannot be met. A retry does not help, unlike after `OverloadedError`."""

    def __init__(self) -> None:
        # The same words as in the message of Triton's own queues, which clients recognise.
        super().__init__("Request timeout expired: it could not be answered in time")


@dataclass(eq=False, kw_only=True)
class Job:
    """One request. All times are those of `time.monotonic`."""

    batch_key: Hashable
    """Jobs with equal keys may be started as one batch."""
    urgent: bool = False
    """Urgent jobs go before all others."""
    timeout_s: float = math.inf
    """Time limit for the answer, in seconds after arrival."""
    expected_s: float = 0.0
    """Estimated run time of the job if it runs alone, in seconds, from the times of earlier jobs."""
    arrival_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    """Time at which the job left the queue; None while it waits."""
    answer: Future[Any] = field(default_factory=Future)

    @property
    def deadline_s(self) -> float:
        """Latest time for the answer."""
        return self.arrival_s + self.timeout_s

    @property
    def priority(self) -> Priority:
        """Key by which jobs and their tasks are sorted."""
        return not self.urgent, self.arrival_s + self.expected_s


@dataclass(eq=False)
class Task:
    """Work that one thread does without interruption, for one job or for a batch of jobs."""

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
            start_batch: called with the jobs of a batch. It adds further tasks (`add`) and finishes the jobs
                (`finish`), directly or in those tasks. If it raises, its jobs fail.
            threads: number of threads.
            max_batch_size: largest number of jobs that are started together.
            max_queue_size: largest number of waiting jobs; urgent jobs have a second queue of the same size.
            max_queue_s: a job that waits longer than this is refused.
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
        """Add tasks to run."""
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
        """Answer all submitted jobs, then end the threads."""
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
            except Exception as error:  # any kind of error, so that the jobs' callers get it
                for job in task.jobs:
                    self.fail(job, error)
            with self._changed:
                self._busy_threads -= 1

    def _next_task(self) -> Task | None:
        """Wait for the task with the highest priority and take it; None when closed and all jobs are answered."""
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
        """Take the first job and others with its batch key from the queue, at most one thread's share of all jobs."""
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
        # A job whose estimate alone exceeds its timeout is tried anyway, because the estimate may be wrong.
        own_s = min(WORST_SLOWDOWN * job.expected_s, job.timeout_s / 2)
        return now_s + WORST_SLOWDOWN * ahead_s + own_s > job.deadline_s

    def _fail_late_jobs(self, task: Task) -> None:
        """Fail the started jobs of a task whose deadlines have passed."""
        now_s = time.monotonic()
        for job in task.jobs:
            if job.started_s is not None and now_s > job.deadline_s:
                self.fail(job, DeadlineExceededError())

    def _has_unanswered_jobs(self, task: Task) -> bool:
        with self._changed:
            return not self._unanswered.isdisjoint(task.jobs)

    def _forget(self, job: Job) -> bool:
        """Remove a job and the tasks that belong only to it; return False if it was answered before."""
        with self._changed:
            if job not in self._unanswered:
                return False
            self._unanswered.remove(job)
            self._tasks = [task for task in self._tasks if list(task.jobs) != [job]]
            self._changed.notify_all()
            return True
