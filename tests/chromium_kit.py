"""Chromium without a window, driven over its debugging protocol."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from ci_kit import cannot
from websockets.asyncio.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-port=0",
)


class Page:
    """One page."""

    def __init__(self, socket: ClientConnection, session: str) -> None:
        self._socket, self._session, self._numbers = socket, session, count(100)

    async def run(self, program: str) -> Any:
        """Run JavaScript, the body of an async function; its result. AssertionError with what it throws."""
        source = f"(async () => {{{program}}})()"
        parameters = {"expression": source, "awaitPromise": True, "returnByValue": True}
        answer = await _ask(self._socket, next(self._numbers), "Runtime.evaluate", parameters, self._session)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def is_at(self, url: str) -> bool:
        """Whether the page of this address is loaded. While it changes, a page may have nothing that runs programs."""
        try:
            return bool(
                await self.run(f"return location.href + document.readyState === {json.dumps(url + 'complete')}")
            )
        except AssertionError as error:
            if "execution context" in str(error):
                return False
            raise

    async def until(self, condition: str, limit_s: float = 60.0) -> None:
        """Wait until an expression is true. AssertionError with the page's text if it does not become so."""
        try:
            async with asyncio.timeout(limit_s):
                while not await self.run(f"return Boolean({condition})"):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{condition}\n{await self.run('return document.body.innerText')}") from None


async def _ask(
    socket: ClientConnection, number: int, method: str, parameters: dict[str, Any], session: str | None = None
) -> Any:
    message = {"id": number, "method": method, "params": parameters}
    await socket.send(json.dumps(message if session is None else message | {"sessionId": session}))
    while True:
        answer = json.loads(await asyncio.wait_for(socket.recv(), 120))
        if answer.get("id") == number:
            assert "error" not in answer, answer["error"]
            return answer["result"]


@asynccontextmanager
async def page(url: str, folder: Path, *options: str) -> AsyncIterator[Page]:
    """A page at an address. folder: for its profile. Skips where there is no Chromium."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        cannot("Chromium is not installed: apt install chromium")
    process = await asyncio.create_subprocess_exec(
        program, *_OPTIONS, *options, f"--user-data-dir={folder}", "about:blank", stdout=DEVNULL, stderr=PIPE
    )
    assert process.stderr is not None
    rest: asyncio.Task[bytes] | None = None
    try:
        while True:
            line = (await asyncio.wait_for(process.stderr.readline(), 120)).decode()
            assert line, "Chromium ended before it could be driven"
            if line.startswith("DevTools listening on "):
                break
        rest = asyncio.create_task(process.stderr.read())
        address = line.removeprefix("DevTools listening on ").strip()
        async with connect(address, max_size=None, compression=None, proxy=None, ping_interval=None) as socket:
            target = await _ask(socket, 1, "Target.createTarget", {"url": url})
            attached = await _ask(socket, 2, "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
            opened = Page(socket, attached["sessionId"])
            while not await opened.is_at(url):
                await asyncio.sleep(0.05)
            yield opened
    finally:
        process.kill()
        await process.wait()
        if rest is not None:
            rest.cancel()
