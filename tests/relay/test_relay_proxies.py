"""nginx and haproxy, configured as docs/relays.md says, send each room to one of two relays."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from ci_kit import cannot
from relay_kit import FORMAT, fetch, heard, running, until, voice
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.wire.control import parse_control, serialize_control
from streaming_encodec.wire.hello import Hello, Welcome
from streaming_encodec.wire.room_path import room_path

PAGE = Path(__file__).parents[2] / "docs" / "relays.md"


def configuration(program: str, port: int, relays: list[Relay]) -> str:
    """The page's own, with this test's addresses, and without TLS."""
    found = re.search(rf"```{program}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    text = found[1]
    for number, relay in enumerate(relays, 11):
        assert f"10.0.0.{number}:8765" in text
        text = text.replace(f"10.0.0.{number}:8765", f"127.0.0.1:{relay.port}")
    text = re.sub(r"listen 443 ssl;|bind :443 ssl crt \S+", lambda m: _listen(m[0], port), text)
    return re.sub(r"^ *ssl_.*\n", "", text, flags=re.MULTILINE)


def _listen(line: str, port: int) -> str:
    return f"{line.split()[0]} 127.0.0.1:{port}{';' if line.endswith(';') else ''}"


@asynccontextmanager
async def proxy(program: str, relays: list[Relay], folder: Path) -> AsyncIterator[str]:
    """The URL of a running proxy."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        cannot(f"{program} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = configuration(program, port, relays)
    file = folder / f"{program}.conf"
    if program == "nginx":
        places = "".join(
            f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        head = f"daemon off;\npid {folder}/pid;\nerror_log stderr;\nworker_processes 1;\nevents {{}}\n"
        if os.geteuid() == 0:
            head += "user root;\n"
        file.write_text(f"{head}http {{\naccess_log off;\n{places}{text}}}\n")
        arguments = ["-c", str(file), "-p", str(folder), "-e", "stderr"]
    else:
        file.write_text(text)
        arguments = ["-db", "-f", str(file)]
    process = await asyncio.create_subprocess_exec(path, *arguments)
    try:
        for _ in range(1000):
            assert process.returncode is None, f"{program} has ended"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            break
        yield f"ws://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def enter(url: str, room: str, role: str) -> ClientConnection:
    client = await connect(url + room_path(room), subprotocols=[SUBPROTOCOL], compression=None, proxy=None)
    await client.send(serialize_control(Hello(room, role, FORMAT)))
    assert isinstance(parse_control(await client.recv()), Welcome)
    return client


@pytest.mark.parametrize("program", ["nginx", "haproxy"])
async def test_each_room_is_at_one_relay_and_heard_there(program: str, tmp_path: Path) -> None:
    async with running(insecure=True) as one, running(insecure=True) as two, AsyncExitStack() as stack:
        url = await stack.enter_async_context(proxy(program, [one, two], tmp_path))
        rooms: dict[Relay, str] = {}
        for number in range(100):
            room = f"tea & {number}"
            ear = await enter(url, room, "subscribe")
            (relay,) = (each for each in (one, two) if room in each._rooms.rooms)
            if relay in rooms:
                await ear.close()
                continue
            rooms[relay] = room
            mouth = await enter(url, room, "publish")
            for sequence in range(3):
                await mouth.send(voice(sequence))
                await heard(ear)
            stack.push_async_callback(mouth.close)
            stack.push_async_callback(ear.close)
            if len(rooms) == 2:
                break
        assert set(rooms) == {one, two}
        for relay, room in rooms.items():
            assert [name for name, there in relay._rooms.rooms.items() if len(there.participants) == 2] == [room]
        # The rooms of a relay that stops go to the other.
        one.drain()
        assert (await fetch(one, "/healthz"))[0] == 503
        await one.stop()

        async def arrived() -> bool:
            try:
                client = await enter(url, rooms[one], "subscribe")
            except (InvalidStatus, OSError):  # until the proxy knows
                return False
            stack.push_async_callback(client.close)
            return True

        for _ in range(300):
            if await arrived():
                break
            await asyncio.sleep(0.05)
        await until(lambda: rooms[one] in two._rooms.rooms, "the room is at the other relay")
