"""The executor for one machine: processes, each with one worker."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from itertools import chain, islice
from multiprocessing.connection import wait as wait_for

from streaming_encodec.corpus.jobs import Done, Job, Worker, WorkerSettings
from streaming_encodec.errors import FolderError


def run_in_processes(jobs: Iterable[Job], settings: WorkerSettings, processes: int = 0) -> Iterator[Done]:
    """Do jobs in so many processes; 0 is one for each core. Never more than there are jobs.

    Raises:
        FolderError: a process was ended from outside, as by a system without memory. Done jobs keep their files.
    """
    waiting = iter(jobs)
    wanted = processes or os.cpu_count() or 1
    first = list(islice(waiting, wanted))
    if not first:
        return
    waiting = chain(first, waiting)
    # Spawned, not forked: torch's and ONNX Runtime's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(len(first), context, _start, (settings,))
    running: set[Future[Done]] = set()
    try:
        running = {pool.submit(_do, job) for job in islice(waiting, 2 * len(first))}
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
    finally:
        pool.shutdown(cancel_futures=True)


_worker: Worker
"""Of this process."""


def _start(settings: WorkerSettings) -> None:
    global _worker  # the pool hands a job to a function, not to an object
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(settings)


def _end_with_parent() -> None:
    """End this process when its parent is gone: one that is killed cannot say so, and the pool's queue never ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _do(job: Job) -> Done:
    return _worker.do(job)
