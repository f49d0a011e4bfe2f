"""The executor for one machine: processes, each with one worker."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from itertools import chain, islice
from typing import TYPE_CHECKING

from streaming_encodec.corpus.jobs import Done, Going, Job, Worker, WorkerSettings
from streaming_encodec.errors import FolderError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.sharedctypes import SynchronizedArray

_TELL_S = 1.0


def run_in_processes(jobs: Iterable[Job], settings: WorkerSettings, processes: int = 0) -> Iterator[Done | Going]:
    """Do jobs in so many processes; 0 is one for each core. Never more than there are jobs.

    Ctrl-C ends the processes at once, in the middle of their jobs.

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
    counts = context.Array("d", 2)
    stop, held = context.Pipe(duplex=False)  # `stop` ends when `held` is closed, or this process is gone
    pool = ProcessPoolExecutor(len(first), context, _start, (settings, counts, stop))
    running: set[Future[Done]] = set()
    try:
        with _deaf_children():
            running = {pool.submit(_do, job) for job in islice(waiting, 2 * len(first))}
        while running:
            finished, running = wait(running, _TELL_S, FIRST_COMPLETED)
            yield Going(int(counts[0]), counts[1])
            running |= {pool.submit(_do, job) for job in islice(waiting, len(finished))}
            for future in finished:
                yield future.result()
    except BrokenExecutor as error:
        raise FolderError(
            "a worker process was ended, perhaps for want of memory: run the same again, which goes on where this "
            "stopped, with fewer processes"
        ) from error
    except KeyboardInterrupt:
        held.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        stop.close()


_worker: Worker
"""Of this process."""


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that are started here ignore Ctrl-C, which a terminal sends to all: the parent ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(settings: WorkerSettings, counts: SynchronizedArray[float], stop: Connection) -> None:
    global _worker  # the pool hands a job to a function, not to an object
    threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()

    def tell(seconds: float) -> None:
        with counts.get_lock():
            counts[0] += 1
            counts[1] += seconds

    _worker = Worker(settings, tell)


def _end_with_parent(stop: Connection) -> None:
    """End this process when its parent asks for it or has ended: a parent that is killed cannot ask."""
    with contextlib.suppress(EOFError, OSError):
        stop.recv_bytes()
    os._exit(1)


def _do(job: Job) -> Done:
    return _worker.do(job)
