"""The call page in Chromium when its datagrams stop in the middle of a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from chromium_kit import Page
from cli.test_cli_call_commands import free_port
from line_kit import line
from relay_kit import until
from udp_kit import UdpWay, udp_way
from web.test_web_page import ALLOWED, PEOPLE, RECEIVED, SENT, WAY, join, loaded, microphone, relay, speaks

from streaming_encodec.relay.relay import Relay

pytestmark = pytest.mark.browser
__all__ = ["microphone"]

WATCH = """
window.seen = new Set();
new MutationObserver(() => seen.add(document.getElementById("status-text").textContent))
    .observe(document.getElementById("status-text"), { childList: true, characterData: true, subtree: true });
"""


@asynccontextmanager
async def call(folder: Path, microphone: list[str]) -> AsyncIterator[tuple[Relay, UdpWay, Page, Page]]:
    """Anna and Ben talk over datagrams, by a way that can be blocked."""
    port, far = free_port(), free_port()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(relay(port))
        await stack.enter_async_context(line(port, far))
        way = await stack.enter_async_context(udp_way(server, far))
        tabs = []
        for name in ("Anna", "Ben"):
            tabs.append(await stack.enter_async_context(loaded(far, folder / name, ALLOWED, *microphone)))
            await join(tabs[-1], name)
        for tab, other in zip(tabs, ("Ben", "Anna"), strict=True):
            await tab.until(f"{WAY} === 'datagrams' && {RECEIVED} > 20")
            await tab.until(speaks(other))
            await tab.run(WATCH)
        yield server, way, tabs[0], tabs[1]


async def both_stayed(anna: Page, ben: Page) -> None:
    """Neither lost the connection, nor the seat."""
    for tab in (anna, ben):
        assert "Reconnecting" not in await tab.run("return [...seen]")
        people = await tab.run(f"return {PEOPLE}")
        assert (people.count("Anna"), people.count("Ben")) == (1, 1)


async def test_when_datagrams_stop_the_websocket_takes_over_and_gives_back(
    tmp_path: Path, microphone: list[str]
) -> None:
    async with call(tmp_path, microphone) as (_, way, anna, ben):
        way.blocked = True
        for tab in (anna, ben):
            await tab.until(f"{WAY} === 'websocket'")
        for tab, other in ((anna, "Ben"), (ben, "Anna")):
            await tab.until(f"!({speaks(other)})")  # between two sentences, or while nobody knew yet
            await tab.until(speaks(other))
        way.blocked = False
        for tab, other in ((anna, "Ben"), (ben, "Anna")):
            before = await tab.run(f"return [{SENT}, {RECEIVED}]")
            await tab.until(f"{WAY} === 'datagrams' && {SENT} > {before[0] + 100} && {RECEIVED} > {before[1] + 100}")
            await tab.until(speaks(other))
        await both_stayed(anna, ben)


async def test_when_a_session_is_closed_another_one_is_opened(tmp_path: Path, microphone: list[str]) -> None:
    async with call(tmp_path, microphone) as (server, _, anna, ben):
        present = server._calls.datagrams._participants
        first = set(present)
        assert len(first) == 2
        for session in first:
            session.close()
        await until(lambda: len(present) == 2 and first.isdisjoint(present), "both have another session")
        for tab, other in ((anna, "Ben"), (ben, "Anna")):
            before = await tab.run(f"return [{SENT}, {RECEIVED}]")
            await tab.until(f"{WAY} === 'datagrams' && {SENT} > {before[0] + 50} && {RECEIVED} > {before[1] + 50}")
            await tab.until(speaks(other))
        await both_stayed(anna, ben)
