"""An event loop in a thread of its own, for programs whose main thread has other things to do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class BackgroundLoop:
    """Runs coroutines from other threads. `close` cancels what is left and waits for it."""

    def __init__(self, name: str = "streaming-encodec-net") -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result], timeout_s: float | None = None) -> Result:
        """Run to the end and give its result; raises what it raises."""
        return self.start(work).result(timeout_s)

    def start(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Begin and do not wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a plain function called there soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Stop. Nothing can be run after it; a second call does nothing."""
        if self._loop.is_closed():
            return
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
