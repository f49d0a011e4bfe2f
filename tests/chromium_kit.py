"""Chromium without a window, driven over its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from browser_kit import Tab, address_of, installed
from websockets.asyncio.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_LISTENS = re.compile(r"^DevTools listening on (\S+)")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-port=0",
)


class Browser:
    """The debugging protocol's connection: questions and their answers, and what Chromium reports by itself."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        self._reading = asyncio.create_task(self._read())
        self.received = 0
        """Bytes of all finished requests, heads and bodies, as Chromium counts them."""
        self.requests: set[str] = set()

    async def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Ask, and wait for the answer. AssertionError with the error if it is one."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send(json.dumps(message if session is None else message | {"sessionId": session}))
        said = await asyncio.wait_for(answer, 120)
        assert "error" not in said, said["error"]
        result: dict[str, Any] = said["result"]
        return result

    async def watch(self, session: str) -> None:
        """Count what a page, a Worker or a worklet loads, and what those load that it starts."""
        attach = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        # All at once: what waits to be started answers nothing before it may run. Worklets have no network.
        await asyncio.gather(
            self.ask("Network.enable", session),
            self.ask("Target.setAutoAttach", session, **attach),
            self.ask("Runtime.runIfWaitingForDebugger", session),
            return_exceptions=True,
        )

    def close(self) -> None:
        self._reading.cancel()
        for chore in self._chores:
            chore.cancel()

    async def _read(self) -> None:
        async for text in self._socket:
            said = json.loads(text)
            asked = self._asked.pop(said.get("id"), None)
            if asked is not None and not asked.done():
                asked.set_result(said)
            match said.get("method"):
                case "Network.loadingFinished":
                    self.received += int(said["params"]["encodedDataLength"])
                case "Network.requestWillBeSent":
                    self.requests.add(said["params"]["request"]["url"])
                case "Target.attachedToTarget":
                    chore = asyncio.create_task(self.watch(said["params"]["sessionId"]))
                    self._chores.add(chore)
                    chore.add_done_callback(self._chores.discard)


class Page(Tab):
    """One page."""

    def __init__(self, browser: Browser, session: str) -> None:
        super().__init__()
        self.browser, self._session = browser, session

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask what belongs to this page."""
        return await self.browser.ask(method, self._session, **parameters)

    async def run(self, program: str) -> Any:
        """Run JavaScript, the body of an async function; its result. AssertionError with what it throws."""
        source = f"(async () => {{{program}}})()"
        answer = await self.ask("Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def is_at(self, url: str) -> bool:
        """Whether the page of this address is loaded. While it changes, a page may have nothing that runs programs."""
        try:
            return bool(
                await self.run(f"return location.href + document.readyState === {json.dumps(url + 'complete')}")
            )
        except AssertionError as error:
            if "execution context" in str(error) or "navigated or closed" in str(error):
                return False
            raise

    async def go(self, url: str) -> None:
        """Load an address, also the present one again."""
        await self.ask("Page.navigate", url=url)
        while not await self.is_at(url):
            await asyncio.sleep(0.05)

    async def press(self, key: str, code: str | None = None) -> None:
        """Press a key and let it go, as a keyboard does: `Tab`, `Enter`, ` `, a letter."""
        text = {"Enter": "\r", "Tab": ""}.get(key, key if len(key) == 1 else "")
        number = {"Enter": 13, "Tab": 9, " ": 32}.get(key, ord(key[0].upper()))
        about = {"key": key, "code": code or key, "windowsVirtualKeyCode": number}
        await self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    async def tree(self) -> list[tuple[str, str]]:
        """Role and name of what a screen reader finds."""
        nodes = (await self.ask("Accessibility.getFullAXTree"))["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]

    async def picture(self, path: Path) -> None:
        """Write what is to be seen to a PNG file."""
        taken = await self.ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(taken["data"]))


@asynccontextmanager
async def page(url: str, folder: Path, *options: str) -> AsyncIterator[Page]:
    """A page at an address. folder: for its profile. Skips where there is no Chromium."""
    program = installed("Chromium", _NAMES)
    process = await asyncio.create_subprocess_exec(
        program, *_OPTIONS, *options, f"--user-data-dir={folder}", "about:blank", stdout=DEVNULL, stderr=PIPE
    )
    try:
        async with (
            address_of("Chromium", process, _LISTENS) as address,
            connect(address, max_size=None, compression=None, proxy=None, ping_interval=None) as socket,
        ):
            browser = Browser(socket)
            try:
                target = await browser.ask("Target.createTarget", url="about:blank")
                attached = await browser.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
                opened = Page(browser, attached["sessionId"])
                await browser.watch(attached["sessionId"])
                await opened.go(url)
                yield opened
            finally:
                browser.close()
    finally:
        process.kill()
        await process.wait()
