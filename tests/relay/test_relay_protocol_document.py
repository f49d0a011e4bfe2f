"""The figures and tables of docs/protocol.md that the network's code decides."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from itertools import pairwise
from typing import Any

import pytest
from relay_kit import running
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from wire.vectors import DOCUMENT

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.relay.limits import MAX_FRAME_RATE_HZ, RelayLimits
from streaming_encodec.transport.addresses import DEFAULT_PORT, SUBPROTOCOL
from streaming_encodec.transport.close_codes import FINAL_CODES, CloseCode
from streaming_encodec.transport.limits import FIRST_BYTES, MAX_MESSAGE_BYTES, OUTAGE_S
from streaming_encodec.voice.noise import BAND_EDGES_HZ
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.header import MAX_PACKET_BYTES
from streaming_encodec.wire.hello import MAX_ROOM_CHARACTERS, MAX_SPEAKERS, MAX_TOKEN_CHARACTERS

LIMITS = RelayLimits()


def test_every_close_code_is_listed_with_what_follows() -> None:
    rows = dict(re.findall(r"^\| (\d{4}) \|.*\| (.*?) \|$", DOCUMENT, re.MULTILINE))
    assert {int(code) for code in rows} == {*CloseCode, 1006}  # which is never sent
    for code in CloseCode:
        assert rows[str(int(code))].startswith("over") == (code in FINAL_CODES), code


@pytest.mark.parametrize(
    "said",
    [
        f"`{SUBPROTOCOL}`",
        f"The port is {DEFAULT_PORT}†",
        f"more than {LIMITS.max_connections_per_address}† connections of one address",
        f"({LIMITS.max_connections}† connections)",
        f"within {LIMITS.hello_s:g} s† of the handshake",
        f"at most {MAX_FRAME_RATE_HZ:g} frames a second",
        f"at most {MAX_PACKET_BYTES} bytes",
        f"more than {MAX_MESSAGE_BYTES} bytes is refused (1009)",
        f"text, 1–{MAX_TOKEN_CHARACTERS}",
        f"text, 1–{MAX_ROOM_CHARACTERS}",
        f"every {LIMITS.heartbeat_s:g} s†, and closes a connection that does not answer within "
        f"{2 * LIMITS.heartbeat_s:g} s†",
        f"at least every {LIMITS.idle_s:g} s† (else 4408)",
        f"{LIMITS.queue_frames} frames† of each speaker",
        f"reads nothing for {LIMITS.stall_s:g} s† is closed (4410)",
        f"{FIRST_BYTES / LIMITS.hello_s:g} a second; {LIMITS.upkeep_frames_per_s:g} a second† | {FIRST_BYTES:,}; "
        f"{2 * LIMITS.upkeep_frames_per_s:g}†",
        f"| {LIMITS.bytes_per_s:,.0f} a second† | {8 * LIMITS.bytes_per_s / 2**20:g} MiB† |",
        f"| {LIMITS.speed:g}† × the frame rate: {round(LIMITS.speed * 75)} a second at 75 | {LIMITS.burst_s:g} s† "
        f"of sound: {LIMITS.burst_s * 75:g} at 75 a second |",
        f"| control messages | {LIMITS.controls_per_s:g} a second† | {2 * LIMITS.controls_per_s:g}† |",
        f"| {LIMITS.upkeep_frames_per_s:g} a second† | {2 * LIMITS.upkeep_frames_per_s:g}† |",
        f"After a pause of {OUTAGE_S:g} s or more",
        f"for at most {LIMITS.outage_s:g} s† of it",
        f"at most {LIMITS.max_peers}† seats, {LIMITS.max_speakers}† of which may speak ({MAX_SPEAKERS} at most)",
        f"at most {LIMITS.max_rooms}† rooms",
        f"the seat is kept for {LIMITS.resume_s:g} s†",
        f"one every {SenderSettings().noise_every_frames} frames",
        "bands "
        + ", ".join(f"{low:g}–{high:g}" for low, high in pairwise(BAND_EDGES_HZ[:-1]))
        + f" and above {BAND_EDGES_HZ[-2]:g} Hz",
    ],
)
def test_figures_in_the_text(said: str) -> None:
    assert said in DOCUMENT


@pytest.mark.parametrize(
    ("status", "path", "options"),
    [
        (400, "/", {"subprotocols": None}),
        (400, "/", {"subprotocols": ["streaming-encodec.v2"]}),
        (403, "/", {"origin": "https://page.example"}),
        (403, "/", {"additional_headers": {"X-Forwarded-For": "192.0.2.1"}}),
        (404, "/room", {}),
        (404, "/r/", {}),
        (404, "/r/a/b", {}),
        (404, "/r/%ff", {}),
        (404, "/r/%00", {}),
        (404, "/r/%2e%2e", {}),
        (404, f"/r/{'x' * (MAX_ROOM_CHARACTERS + 1)}", {}),
        (101, "/r/room", {}),
        (101, "/r/%F0%9F%8E%A4%2F%25?anything", {}),
        (101, "/?anything", {}),
    ],
)
async def test_a_handshake_is_answered_as_listed(status: int, path: str, options: dict[str, Any]) -> None:
    assert status == 101 or f"| {status} |" in DOCUMENT
    async with running() as relay:
        options = {"subprotocols": [SUBPROTOCOL], "proxy": None} | options
        try:
            async with connect(relay.url + path, **options) as socket:
                assert socket.response is not None
                found = socket.response.status_code
                assert not socket.protocol.extensions, "compression was offered and must not be accepted"
        except InvalidStatus as refused:
            found = refused.response.status_code
    assert found == status


def test_the_configurations_defaults() -> None:
    """By which a fingerprint is made of a file that leaves something out."""
    said = dict(re.findall(r"\| `(\w+)` \| [\w –]+ \| (?:always )?(`[^`]+`|[^ |]+) (?=\|)", DOCUMENT))
    spelled = {None: "null", True: "true", False: "false"}
    for field in fields(EncodecConfig):
        default = field.default
        assert default is not MISSING
        if field.name == "codebook_dim":
            wanted = "`hidden_size`"
        elif isinstance(default, tuple):
            wanted = "`[" + ",".join(map(str, default)) + "]`"
        elif isinstance(default, str):
            wanted = f'`"{default}"`'
        elif default is None or isinstance(default, bool):
            wanted = spelled[default]
        else:
            wanted = str(default)
        assert said[field.name] == wanted, field.name
