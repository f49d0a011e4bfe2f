"""Several cores for one step: each processes its share of the batch, and they synchronize a few times a step.

torch's own threads share each product and wait for each other after it, thousands of times a step. The products here
are small, and a core that is busy for a moment (training runs at low priority) delays the others each time. Threads
with a share of the batch each are as fast on an idle machine and lose less beside other work. Their gradients are
added in a fixed order, so a run remains reproducible.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

from streaming_encodec.model.encodec import EncodecModel

T = TypeVar("T")


class Replicas:
    """``model`` and ``count - 1`` others with the same weights in the same memory, but gradients of their own.

    With more than one, each works in a thread on one core. Gradient mode is a thread's own: ``work`` must set it.
    """

    def __init__(self, model: EncodecModel, count: int) -> None:
        self.models = [model, *(_sharing(model) for _ in range(count - 1))]
        self._threads: ThreadPoolExecutor | None = None
        if count > 1:
            threads = torch.get_num_threads()
            ready = Barrier(count + 1)
            self._threads = ThreadPoolExecutor(count, "replica", initializer=_one_core)
            for _ in range(count):
                self._threads.submit(ready.wait)
            ready.wait()
            torch.set_num_threads(threads)

    def shares(self, batch: Tensor) -> Sequence[Tensor]:
        """``batch`` [B, ...] cut along B, one share a replica; the run's settings refuse a batch that is too small."""
        return batch.tensor_split(len(self.models))

    def each(self, work: Callable[[int, EncodecModel], T]) -> list[T]:
        """``work(i, model)`` for every replica, at the same time."""
        if self._threads is None:
            return [work(0, self.models[0])]
        return list(self._threads.map(work, range(len(self.models)), self.models))

    @torch.no_grad()
    def gather_gradients(self) -> None:
        """Add the other replicas' gradients to the first's, which is the model that is updated."""
        for other in self.models[1:]:
            for mine, theirs in zip(self.models[0].parameters(), other.parameters(), strict=True):
                if theirs.grad is not None:
                    mine.grad = theirs.grad if mine.grad is None else mine.grad.add_(theirs.grad)
                    theirs.grad = None


def _one_core() -> None:
    # A thread copies the process' number of threads at its first query: query before setting it.
    torch.get_num_threads()
    torch.set_num_threads(1)


def _sharing(model: EncodecModel) -> EncodecModel:
    other = copy.deepcopy(model)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        theirs.data = mine.data
    return other
