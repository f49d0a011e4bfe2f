"""The call page in Firefox, whose microphone has a rate of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.test_cli_call_commands import free_port
from firefox_kit import firefox
from web.test_web_page import IN_CALL, PROBLEM, READY, RECEIVED, SENT, WAY, hear_each_other, relay

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("datagrams", [True, False])
async def test_a_page_in_firefox_and_a_program_hear_each_other(datagrams: bool, tmp_path: Path) -> None:
    port = free_port()
    async with relay(port, datagrams=datagrams), firefox(f"http://localhost:{port}/r/kitchen", tmp_path) as tab:
        await tab.until(READY)
        await hear_each_other(tab, port)
        if datagrams:
            await tab.until(f"{WAY} === 'datagrams' && {SENT} > 0 && {RECEIVED} > 0")
        else:
            await tab.until(f"{WAY} === 'websocket'")
            assert await tab.run(f"return {SENT}") == 0
        assert await tab.run("return document.getElementById('problem').hidden"), await tab.run(f"return {PROBLEM}")
        assert await tab.run(f"return {IN_CALL}")
        assert not tab.log
