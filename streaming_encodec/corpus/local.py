"""The executor for one machine: processes, each with one worker."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from itertools import islice

from streaming_encodec.corpus.formats import Job
from streaming_encodec.corpus.jobs import Done, Worker, WorkerSettings
from streaming_encodec.errors import FolderError


def run_in_processes(jobs: Sequence[Job], settings: WorkerSettings, processes: int = 0) -> Iterator[Done]:
    """Do jobs in so many processes; 0 is one for each core. Never more than there are jobs.

    Raises:
        FolderError: a process was ended from outside, as by a system without memory. Done jobs keep their files.
    """
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if not processes:
        return
    # Spawned, not forked: torch's and ONNX Runtime's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, context, _start, (settings,)) as pool:
            waiting = iter(jobs)
            running = {pool.submit(_do, job) for job in islice(waiting, 2 * processes)}
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(_do, job) for job in islice(waiting, len(finished))}
                for future in finished:
                    yield future.result()
    except BrokenExecutor as error:
        raise FolderError(
            "a worker process was ended, perhaps for want of memory: run the same again, which goes on where this "
            "stopped, with fewer processes"
        ) from error


_worker: Worker
"""Of this process."""


def _start(settings: WorkerSettings) -> None:
    global _worker  # the pool hands a job to a function, not to an object
    _worker = Worker(settings)


def _do(job: Job) -> Done:
    return _worker.do(job)
