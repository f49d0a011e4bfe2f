"""A page in Chromium opens a datagram session, as docs/protocol.md describes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chromium_kit import page
from cli.test_cli_call_commands import free_port
from relay_kit import FORMAT, counted, heard, seated, until, voice

from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
from streaming_encodec.wire.control import serialize_control
from streaming_encodec.wire.header import read_header, with_sender
from streaming_encodec.wire.hello import Hello

pytestmark = pytest.mark.browser

OPEN = """
const bytes = hex => Uint8Array.from(hex.match(/../g) ?? [], digits => parseInt(digits, 16));
const hex = data => [...new Uint8Array(data)].map(byte => byte.toString(16).padStart(2, "0")).join("");
window.bytes = bytes; window.hex = hex;
window.enter = async hello => {
    const socket = new WebSocket(location.origin.replace("http", "ws"), "streaming-encodec.v1");
    socket.binaryType = "arraybuffer";
    await new Promise(done => { socket.onopen = done; });
    socket.send(hello);
    const first = await new Promise(done => { socket.onmessage = done; });
    window.socket = socket;
    return JSON.parse(first.data);
};
window.open_session = async offer => {
    const session = new WebTransport(`https://${location.hostname}:${offer.port}/datagrams?key=${offer.key}`, {
        serverCertificateHashes: [{algorithm: "sha-256", value: bytes(offer.certificate_sha256)}],
    });
    await session.ready;
    return session;
};
"""


async def test_a_page_speaks_and_hears_over_datagrams(tmp_path: Path) -> None:
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    hello = json.dumps(serialize_control(Hello("r", "both", FORMAT)))
    async with (
        Relay(RelayConfig(port=port, origins=(origin,))) as relay,
        page(f"{origin}/healthz", tmp_path) as tab,
        seated(relay) as (other, _),
    ):
        welcome = await tab.run(f"{OPEN} window.welcome = await enter({hello}); return welcome;")
        assert set(welcome["datagrams"]) == {"port", "key", "certificate_sha256"}
        await tab.run("""
            window.session = await open_session(welcome.datagrams);
            window.writer = session.datagrams.writable.getWriter();
            window.reader = session.datagrams.readable.getReader();
        """)
        said = [voice(sequence) for sequence in range(50)]
        packets = json.dumps([packet.hex() for packet in said])
        await tab.run(f"for (const packet of {packets}) await writer.write(bytes(packet));")
        for packet in said:
            assert await heard(other) == with_sender(packet, welcome["sender"])
        await other.send(voice(700))
        got = bytes.fromhex(await tab.run("return hex((await reader.read()).value);"))
        assert read_header(got).sequence == 700
        # The key was good once.
        again = await tab.run("return await open_session(welcome.datagrams).then(() => 'open', () => 'refused');")
        assert again == "refused"
        assert counted(relay, "sessions_refused") == 1
        # A page that leaves is told to, and its session ends with its seat.
        assert len(relay._calls.datagrams) == 1
        await tab.run('socket.send(\'{"type":"bye"}\'); const end = await session.closed; return end.closeCode;')
        await until(lambda: len(relay._calls.datagrams) == 0, "the session ended")
