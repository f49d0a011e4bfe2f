"""The call page in Chromium when the network is lost, when it is loaded again, and without a mouse."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from chromium_kit import Page, page
from cli.test_cli_call_commands import free_port
from line_kit import line
from relay_kit import KEY
from web.test_web_page import ALLOWED, IN_CALL, PEOPLE, PROBLEM, READY, join, loaded, microphone, relay, speaks

pytestmark = pytest.mark.browser
__all__ = ["microphone"]

LOST = "document.getElementById('status-text').textContent === 'Reconnecting'"
FOCUS = "document.activeElement.id"
PROGRESS = """
    window.shares = [];
    new MutationObserver(() => {
        const said = document.getElementById("loading")?.textContent.match(/([0-9]+) %/);
        if (said) shares.push(Number(said[1]));
    }).observe(document, { childList: true, characterData: true, subtree: true });
"""

CONTEXTS = """
    window.contexts = [];
    window.AudioContext = class extends AudioContext {
        constructor(options) {
            super(options);
            contexts.push(this);
        }
    };
"""


async def test_after_a_lost_network_the_page_is_heard_and_hears_again(tmp_path: Path, microphone: list[str]) -> None:
    port, far = free_port(), free_port()
    async with (
        relay(port, datagrams=False),
        line(port, far) as network,
        loaded(far, tmp_path / "a", ALLOWED, *microphone) as anna,
        loaded(port, tmp_path / "b", ALLOWED, *microphone) as ben,
    ):
        await join(anna, "Anna")
        await join(ben, "Ben")
        await anna.until(speaks("Ben"))
        await ben.until(speaks("Anna"))
        network.lose()
        await anna.until(LOST)
        await ben.until(f"!({speaks('Anna')})")
        assert await anna.run("return document.getElementById('banner').innerText.includes('was lost')")
        network.restore()
        await anna.until(f"document.getElementById('banner').hidden && {speaks('Ben')}")
        await ben.until(speaks("Anna"))
        assert await ben.run(f"return {PEOPLE}.split('Anna').length === 2"), "she has one seat"


async def test_on_a_slow_line_the_page_says_how_far_it_is(tmp_path: Path, microphone: list[str]) -> None:
    port, far = free_port(), free_port()
    async with (
        relay(port),
        line(port, far, bytes_per_s=2e6),
        page("about:blank", tmp_path, ALLOWED, *microphone) as tab,
    ):
        await tab.ask("Page.enable")
        await tab.ask("Page.addScriptToEvaluateOnNewDocument", source=PROGRESS)
        await tab.go(f"http://localhost:{far}/r/kitchen")
        await tab.until(READY)
        shares = await tab.run("return shares")
        assert shares == sorted(shares)
        assert len(set(shares)) > 50, "it moves"
        assert shares[-1] == 100


async def test_who_loads_the_page_again_is_back_and_a_used_link_is_explained(
    tmp_path: Path, microphone: list[str]
) -> None:
    port = free_port()
    link = f"http://localhost:{port}/r/kitchen"
    token = KEY.sign("kitchen", now_s=time.time())
    async with relay(port, tokens=True), loaded(port, tmp_path / "a", ALLOWED, *microphone) as tab:
        await tab.run(f"location.hash = 'token={token}'; location.reload();")
        # The token is good once, and it is not left where it can be seen.
        await tab.until(f"location.href === {json.dumps(link)} && {READY}")
        await join(tab, "Anna")
        await tab.go(link)
        await tab.until(IN_CALL)
        await tab.run("document.getElementById('leave').click()")
        await tab.until("!document.getElementById('over').hidden")
        await tab.run("document.getElementById('again').click(); document.getElementById('join').click();")
        await tab.until(f"{PROBLEM}.includes('Links are good for one person, once: ask for a new one.')")
        assert not await tab.run(f"return {IN_CALL}")


async def test_a_call_needs_no_mouse(tmp_path: Path, microphone: list[str]) -> None:
    port = free_port()
    async with relay(port), loaded(port, tmp_path, ALLOWED, *microphone) as tab:
        assert await stops(tab, "join") == ["name", "microphone", "mic-start", "output", "chime", "listen", "join"]
        found = await tab.tree()
        for one in (
            ("textbox", "Your name"),
            ("combobox", "Microphone"),
            ("combobox", "Loudspeaker"),
            ("meter", "Level of your microphone"),
            ("button", "Join"),
            ("heading", "Join the call"),
        ):
            assert one in found, found
        await tab.press("Enter")
        await tab.until(f"{IN_CALL} && {FOCUS} === 'call-title'")

        assert await stops(tab, "leave") == ["mute", "invite", "settings", "leave"]
        found = await tab.tree()
        for one in (("list", "People in this call"), ("group", "Controls of the call"), ("button", "Leave")):
            assert one in found, found
        await tab.run("document.getElementById('call-title').focus()")
        await tab.press("Tab")
        for key in (" ", "Enter", "m"):
            before = await tab.run("return document.getElementById('mute').ariaPressed")
            await tab.press(key)
            await tab.until(f"document.getElementById('mute').ariaPressed !== '{before}'")
        assert ("button", "Unmute") in await tab.tree()
        await stops(tab, "leave")
        await tab.press("Enter")
        await tab.until(f"{FOCUS} === 'over-title'")


async def stops(tab: Page, last: str) -> list[str]:
    """Where the Tab key stops, up to an element."""
    found: list[str] = []
    while not found or found[-1] != last:
        await tab.press("Tab")
        found.append(await tab.run(f"return {FOCUS}"))
        assert len(found) < 20, found
    return found


async def test_where_the_browser_wants_a_click_for_sound_the_page_asks_until_it_plays(tmp_path: Path) -> None:
    port = free_port()
    async with relay(port), page("about:blank", tmp_path, "--autoplay-policy=document-user-activation-required") as tab:
        await tab.ask("Page.enable")
        await tab.ask("Page.addScriptToEvaluateOnNewDocument", source=CONTEXTS)
        await tab.go(f"http://localhost:{port}/r/kitchen")
        await tab.until(READY)
        await tab.run("document.getElementById('listen').click()")  # by no person
        await tab.until(f"{IN_CALL} && {PROBLEM}.includes('waits for a click')")
        await tab.press("a")  # the browser starts the sound; the page's button is not used
        await tab.run("await contexts[0].resume()")
        await tab.until("document.getElementById('problem').hidden")
