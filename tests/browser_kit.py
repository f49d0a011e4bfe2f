"""What browsers that tests drive have in common: where they are, when they can be driven, and waiting for a page."""

from __future__ import annotations

import asyncio
import re
import shutil
from abc import ABC, abstractmethod
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ci_kit import cannot


class Tab(ABC):
    """One page of a browser."""

    def __init__(self) -> None:
        self.log: list[str] = []
        """What the page and its browser said of errors, where that is noted."""

    @abstractmethod
    async def run(self, program: str) -> Any:
        """Run JavaScript, the body of an async function; its result. AssertionError with what it throws."""

    async def until(self, condition: str, limit_s: float = 60.0) -> None:
        """Wait until an expression is true. AssertionError with the page's text if it does not become so."""
        try:
            async with asyncio.timeout(limit_s):
                while not await self.run(f"return Boolean({condition})"):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            shown = await self.run("return document.body.innerText")
            raise AssertionError("\n".join([condition, shown, *self.log])) from None


def installed(browser: str, names: tuple[str, ...]) -> str:
    """Its program: the first of these names. Skips where there is none; Debian's package has the first name."""
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        cannot(f"{browser} is not installed: apt install {names[0]}")
    return program


@asynccontextmanager
async def address_of(browser: str, process: Process, listens: re.Pattern[str]) -> AsyncIterator[str]:
    """Where it listens for those who drive it: the pattern's group, on standard error. That is read on meanwhile."""
    assert process.stderr is not None
    rest: asyncio.Task[bytes] | None = None
    try:
        while True:
            line = (await asyncio.wait_for(process.stderr.readline(), 120)).decode()
            assert line, f"{browser} ended before it could be driven"
            if found := listens.search(line):
                break
        rest = asyncio.create_task(process.stderr.read())
        yield found[1]
    finally:
        if rest is not None:
            rest.cancel()
