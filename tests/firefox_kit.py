"""Firefox without a window, driven over WebDriver BiDi, which it speaks itself."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from browser_kit import Tab, address_of, installed
from ci_kit import cannot
from websockets.asyncio.client import ClientConnection, connect

_NAMES = ("firefox-esr", "firefox")
_LISTENS = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
_PREFERENCES = {
    "media.autoplay.default": 0,  # sound without a click
    "media.navigator.permission.disabled": True,  # the microphone without a question
    "media.navigator.streams.fake": True,  # a tone
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}


class Firefox(Tab):
    """One page of a Firefox."""

    def __init__(self, socket: ClientConnection) -> None:
        super().__init__()
        self._socket, self._numbers, self._context = socket, count(1), ""

    async def begin(self) -> None:
        await self.ask("session.new", capabilities={})
        await self.ask("session.subscribe", events=["log.entryAdded"])
        self._context = (await self.ask("browsingContext.getTree"))["contexts"][0]["context"]

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask, and wait for the answer. AssertionError with the error if it is one."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(await asyncio.wait_for(self._socket.recv(), 120))
            if said.get("id") == number:
                break
            if said.get("method") == "log.entryAdded":
                self.log.append(f"{said['params']['level']}: {said['params']['text']}")
        assert said["type"] == "success", said
        result: dict[str, Any] = said["result"]
        return result

    async def go(self, url: str) -> None:
        """Load an address."""
        await self.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def run(self, program: str) -> Any:
        """Run JavaScript, the body of an async function; its result. AssertionError with what it throws."""
        source = f"(async () => JSON.stringify(await (async () => {{{program}}})()))()"
        answer = await self.ask(
            "script.evaluate",
            expression=source,
            awaitPromise=True,
            target={"context": self._context},
            userActivation=True,
        )
        assert answer["type"] == "success", answer
        result = answer["result"]
        return json.loads(result["value"]) if result["type"] == "string" else None

    async def picture(self, path: Path) -> None:
        """Write what is to be seen to a PNG file."""
        taken = await self.ask("browsingContext.captureScreenshot", context=self._context)
        path.write_bytes(base64.b64decode(taken["data"]))


@asynccontextmanager
async def _sound_server(folder: Path) -> AsyncIterator[str]:
    """Without a loudspeaker Firefox plays nothing. Yields the socket of a PulseAudio server that plays to nobody."""
    program = shutil.which("pulseaudio")
    if program is None:
        cannot("PulseAudio is not installed: apt install pulseaudio")
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "sound.socket"
    loads = ("module-null-sink", f"module-native-protocol-unix auth-anonymous=1 socket={socket}")
    options = ("-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", *(f"--load={one}" for one in loads))
    environment = os.environ | {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    process = await asyncio.create_subprocess_exec(program, *options, env=environment, stdout=DEVNULL, stderr=DEVNULL)
    try:
        async with asyncio.timeout(30):
            while not socket.exists():
                assert process.returncode is None, "PulseAudio ended before it could be used"
                await asyncio.sleep(0.02)
        yield f"unix:{socket}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def firefox(url: str, folder: Path) -> AsyncIterator[Firefox]:
    """A page at an address. folder: for its profile. Skips where there is no Firefox."""
    program = installed("Firefox", _NAMES)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _PREFERENCES.items()]
    (folder / "user.js").write_text("".join(lines))
    options = ("--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", str(folder))
    async with _sound_server(folder / "sound") as server:
        environment = os.environ | {"PULSE_SERVER": server}
        process = await asyncio.create_subprocess_exec(program, *options, env=environment, stdout=DEVNULL, stderr=PIPE)
        try:
            async with _driven(process) as page:
                await page.go(url)
                yield page
        finally:
            if process.returncode is None:
                process.terminate()  # it ends its other processes
            await process.wait()


@asynccontextmanager
async def _driven(process: Process) -> AsyncIterator[Firefox]:
    async with (
        address_of("Firefox", process, _LISTENS) as address,
        connect(f"{address}/session", max_size=None, compression=None, proxy=None, ping_interval=None) as socket,
    ):
        page = Firefox(socket)
        await page.begin()
        yield page
