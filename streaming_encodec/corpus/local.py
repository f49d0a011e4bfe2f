"""The executor for one machine: processes, each with one worker."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice

from streaming_encodec.corpus.formats import Job
from streaming_encodec.corpus.jobs import Done, Worker, WorkerSettings


def run_in_processes(jobs: Sequence[Job], settings: WorkerSettings, processes: int = 0) -> Iterator[Done]:
    """Do jobs in so many processes; 0 is one for each core. Never more than there are jobs."""
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if not processes:
        return
    # Spawned, not forked: torch's and ONNX Runtime's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (settings,)) as pool:
        waiting = iter(jobs)
        running = {pool.submit(_do, job) for job in islice(waiting, 2 * processes)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {pool.submit(_do, job) for job in islice(waiting, len(finished))}
            for future in finished:
                yield future.result()


_worker: Worker
"""Of this process."""


def _start(settings: WorkerSettings) -> None:
    global _worker  # the pool hands a job to a function, not to an object
    _worker = Worker(settings)


def _do(job: Job) -> Done:
    return _worker.do(job)
