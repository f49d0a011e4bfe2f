"""The call page in Chromium: people in browsers and programs hear each other, and what goes wrong is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import soundfile
from chromium_kit import Page, page
from cli.test_cli_call_commands import free_port
from relay_kit import KEY

import streaming_encodec
from streaming_encodec import AudioReader, VoiceClient
from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.client.settings import CodecSettings, ConnectionSettings
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
from streaming_encodec.relay.web_files import WebFiles

MODEL = Path(streaming_encodec.__file__).parent / "assets" / "voice-24khz" / "model.safetensors"

pytestmark = pytest.mark.browser

RATE = 24_000
IN_CALL = "!document.getElementById('call').hidden"
PEOPLE = "document.getElementById('people').innerText"
READY = "document.documentElement.dataset.ready"
WAY = "document.getElementById('status').dataset.way"
SENT = "Number(document.getElementById('status').dataset.datagramsSent)"
RECEIVED = "Number(document.getElementById('status').dataset.datagramsReceived)"
FIGURES = "document.getElementById('figures').textContent"
PROBLEM = "document.getElementById('problem').innerText"


def relay(port: int, *, tokens: bool = False, datagrams: bool = True) -> Relay:
    web = WebFiles.bundled(tokens=tokens)
    return Relay(RelayConfig(port=port, web=web, token_key=KEY if tokens else None, datagrams=datagrams))


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of Chromium that make the bundled clip its microphone, and need no click for sound."""
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    with AudioReader(bundled_clip(), RATE, channels=1) as reader:
        soundfile.write(path, np.concatenate(list(reader), axis=1)[0], RATE)
    return [
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={path}",
        "--autoplay-policy=no-user-gesture-required",
    ]


ALLOWED = "--use-fake-ui-for-media-stream"
DENIED = "--deny-permission-prompts"


@asynccontextmanager
async def loaded(port: int, folder: Path, *options: str) -> AsyncIterator[Page]:
    """The page of the room kitchen, ready to join."""
    async with page(f"http://localhost:{port}/r/kitchen", folder, *options) as tab:
        await tab.until(READY)
        yield tab


class Tab(Protocol):
    """A page in whatever browser."""

    async def run(self, program: str) -> Any:
        """Run JavaScript, the body of an async function; its result."""

    async def until(self, condition: str, limit_s: float = 60.0) -> None:
        """Wait until an expression is true."""


async def join(tab: Tab, name: str) -> None:
    await tab.run(f"document.getElementById('name').value = {json.dumps(name)}")
    await tab.run("document.getElementById('join').click()")
    await tab.until(IN_CALL)


def speaks(name: str) -> str:
    """Whether the page shows that somebody speaks."""
    return (
        "[...document.querySelectorAll('[data-speaking=true] bdi')]"
        f".some(label => label.textContent === {json.dumps(name)})"
    )


async def hear_each_other(tab: Tab, port: int) -> None:
    """Anna, in a page that is ready to join, and a program in the same room."""
    codec, name = CodecSettings(bandwidth=6.0), ConnectionSettings(name="Program")
    url = f"ws://localhost:{port}/r/kitchen"
    async with VoiceClient(url, None, "voice-24khz", codec=codec, connection=name) as program:
        await join(tab, "Anna")

        async def say() -> None:
            with AudioReader(bundled_clip(), RATE, channels=1) as reader:
                for block in reader.blocks(RATE // 50):
                    await program.send(block)
                    await asyncio.sleep(0.02)

        saying = asyncio.create_task(say())
        try:
            await tab.until(speaks("Program"))
        finally:
            saying.cancel()
        await program.wait_for_voice()
        heard = []
        async for block in program.receive():
            heard.append(np.abs(block).max())
            if heard[-1] > 0.05:
                break
            assert len(heard) < 3000, "nothing was heard of the page"


async def test_two_pages_hear_each_other_and_go_on_after_a_restart_of_the_relay(
    tmp_path: Path, microphone: list[str]
) -> None:
    port = free_port()
    async with (
        relay(port) as first,
        loaded(port, tmp_path / "a", ALLOWED, *microphone) as anna,
        loaded(port, tmp_path / "b", ALLOWED, *microphone) as ben,
    ):
        await join(anna, "Anna")
        assert "Nobody else is here" in await anna.run("return document.getElementById('call').innerText")
        await join(ben, "Ben")
        await anna.until(speaks("Ben"))
        await ben.until(speaks("Anna"))
        assert await ben.run(f"return {PEOPLE}.includes('Ben (you)')")

        await first.stop()
        await anna.until("document.getElementById('status-text').textContent === 'Reconnecting'")
        async with relay(port):
            for tab, other in ((anna, "Ben"), (ben, "Anna")):
                await tab.until("document.getElementById('banner').hidden")
                await tab.until(speaks(other))

            await anna.run("document.getElementById('mute').click()")
            await ben.until(f"!({speaks('Anna')})")
            await anna.until("!document.getElementById('muted-speech').hidden")

            await anna.run("document.getElementById('leave').click()")
            await anna.until("!document.getElementById('over').hidden")
            await ben.until(f"!{PEOPLE}.includes('Anna')")


async def test_a_first_visit_loads_the_model_and_little_else_a_second_one_nothing(
    tmp_path: Path, microphone: list[str]
) -> None:
    port = free_port()
    async with relay(port), loaded(port, tmp_path, ALLOWED, *microphone) as tab:
        everything = {url for url in tab.browser.requests if "/model/" in url or "/web/" in url}
        assert len(everything) > 40
        first = tab.browser.received
        assert 9_000_000 < first < 10_150_000 < MODEL.stat().st_size
        await tab.go(f"http://localhost:{port}/r/other")
        await tab.until(READY)
        assert tab.browser.received - first < 8000  # the page itself and call.json


async def test_voice_goes_by_datagrams_where_the_relay_offers_them(tmp_path: Path, microphone: list[str]) -> None:
    port = free_port()
    async with (
        relay(port),
        loaded(port, tmp_path / "a", ALLOWED, *microphone) as anna,
        loaded(port, tmp_path / "b", ALLOWED, *microphone) as ben,
    ):
        await join(anna, "Anna")
        await join(ben, "Ben")
        for tab, other in ((anna, "Ben"), (ben, "Anna")):
            await tab.until(f"{WAY} === 'datagrams' && {FIGURES}.includes('Datagrams (UDP)')")
            await tab.until(f"{SENT} > 100 && {RECEIVED} > 100")
            await tab.until(speaks(other))


async def test_voice_goes_over_the_websocket_where_there_are_no_datagrams(
    tmp_path: Path, microphone: list[str]
) -> None:
    port = free_port()
    async with (
        relay(port, datagrams=False),
        loaded(port, tmp_path / "a", ALLOWED, *microphone) as anna,
        loaded(port, tmp_path / "b", ALLOWED, *microphone) as ben,
    ):
        await join(anna, "Anna")
        await join(ben, "Ben")
        await anna.until(f"{WAY} === 'websocket' && {FIGURES}.includes('WebSocket (TCP)')")
        await anna.until(speaks("Ben"))
        assert await anna.run(f"return [{SENT}, {RECEIVED}]") == [0, 0]


async def test_a_page_and_a_program_hear_each_other(tmp_path: Path, microphone: list[str]) -> None:
    port = free_port()
    async with relay(port), loaded(port, tmp_path, ALLOWED, *microphone) as tab:
        await hear_each_other(tab, port)


async def test_without_a_microphone_the_page_says_so_and_one_can_listen(tmp_path: Path, microphone: list[str]) -> None:
    port = free_port()
    async with relay(port), loaded(port, tmp_path, DENIED, *microphone) as tab:
        await tab.run("document.getElementById('join').click()")
        await tab.until(f"{PROBLEM}.includes('does not let this page use the microphone')")
        await tab.run("document.getElementById('listen').click()")
        await tab.until(IN_CALL)


async def test_a_wrong_token_is_refused_in_plain_words(tmp_path: Path, microphone: list[str]) -> None:
    port = free_port()
    async with relay(port, tokens=True), loaded(port, tmp_path, ALLOWED, *microphone) as tab:
        await tab.run("document.getElementById('join').click()")
        await tab.until(f"{PROBLEM}.includes('You are not allowed in this room.')")
        assert not await tab.run(f"return {IN_CALL}")
        assert await tab.run(
            "return document.getElementById('mic-hint').innerText.startsWith('Turn the microphone on')"
        )
