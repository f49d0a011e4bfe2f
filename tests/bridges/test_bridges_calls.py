"""Whole telephone calls through a bridge and a relay on this machine, with good peers and broken ones."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from call_kit import tiny_model
from relay_kit import KEY, running, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streaming_encodec.bench.bridge_calls import Echo, speech
from streaming_encodec.bench.telephones import AsteriskTelephone, Telephone, make_telephone
from streaming_encodec.bridges.admission import Admission, parse_networks, twilio_signature
from streaming_encodec.bridges.audiosocket import frame
from streaming_encodec.bridges.bridge import Bridge
from streaming_encodec.bridges.config import BridgeConfig, BridgeLimits
from streaming_encodec.bridges.protocol import Encoding
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.client.client import VoiceClient
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.relay.relay import Relay

VOICE = ModelFolder.from_pretrained("voice-24khz")
KINDS = ("twilio", "audiosocket", "asterisk-ws")
SECRET = "s3cr3t-of-sixteen"


@pytest.fixture(scope="module")
def small() -> EncodecModel:
    return tiny_model()


class Log:
    """What the bridge logs: events with their fields."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __call__(self, name: str) -> list[dict[str, Any]]:
        return [
            getattr(record, "fields", {}) | {"level": record.levelname}
            for record in self._caplog.records
            if record.getMessage() == name
        ]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.INFO, "streaming_encodec.transport")
    return Log(caplog)


@asynccontextmanager
async def bridged(
    kind: str,
    model: Any = VOICE,
    *,
    limits: BridgeLimits | None = None,
    relay: dict[str, Any] | None = None,
    **config: Any,
) -> AsyncIterator[tuple[Relay, Bridge]]:
    digits = config.pop("on_digit", None)
    async with running(**(relay or {})) as there:
        settings = {"room": "tea", "url": there.url, "bandwidth": 6.0} | config
        settings |= {"limits": limits or BridgeLimits()}
        async with Bridge(BridgeConfig(kind, model=model, **settings), on_digit=digits) as bridge:
            yield there, bridge


async def hear_the_echo(telephone: Telephone, bridge: Bridge, relay: Relay, model: Any = VOICE) -> None:
    calling = asyncio.create_task(telephone.call(bridge.url))
    echo = await Echo.join(int(relay.url.rpartition(":")[2]), "tea", stream_format(model))
    await asyncio.wait_for(calling, 60)
    echo.close()


def loudness(sound: np.ndarray) -> np.ndarray:
    """Of each 20 ms, in dB."""
    blocks = sound[: len(sound) // 160 * 160].reshape(-1, 160)
    return 10 * np.log10(np.mean(blocks**2, axis=1) + 1e-5)


def likeness(telephone: Telephone) -> float:
    """How alike the ups and downs of the last 3 s heard are to those of 3 s that were said: 1 is equal."""
    if len(telephone.heard) < 3 * 8000:
        return 0.0
    heard = loudness(telephone.heard[-3 * 8000 :])
    said = np.lib.stride_tricks.sliding_window_view(loudness(telephone.said), len(heard))
    said, heard = said - said.mean(axis=1, keepdims=True), heard - heard.mean()
    alike = (said @ heard) / (np.linalg.norm(said, axis=1) * np.linalg.norm(heard) + 1e-9)
    return float(alike.max())


async def hang_up_after_hearing(telephone: Telephone) -> None:
    """On a machine that stands still now and then, sound is left out: the caller speaks until 3 s came without."""
    looked = 0
    while likeness(telephone) < 0.8:
        looked += 1
        assert looked < 90, "the caller never heard what the caller said"
        await until(lambda: len(telephone.heard) > 4000 * looked, "more sound came")  # noqa: B023
    telephone.enough = True


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_hears_the_room_and_the_room_hears_the_caller(kind: str, log: Log) -> None:
    async with bridged(kind) as (relay, bridge):
        telephone = make_telephone(kind, speech(50.0))
        await asyncio.gather(hear_the_echo(telephone, bridge, relay), hang_up_after_hearing(telephone))
        await until(lambda: log("phone_ended"), "the call ended")
        (ended,) = log("phone_ended")
        assert ended["level"] == "INFO"
        assert ended["room"] == "tea"
        assert ended["heard_s"] + ended["dropped_s"] >= 3.0
        await until(lambda: bridge.calls == 0, "nothing is left")


@pytest.mark.parametrize(("name", "in_json"), [("slin24", True), ("ulaw", False)])
async def test_asterisk_is_asked_what_waits_there(name: str, in_json: bool) -> None:
    encoding = Encoding("slin", 24_000) if name == "slin24" else Encoding("ulaw", 8000)
    said = np.repeat(speech(3.0), encoding.rate // 8000)
    async with bridged("asterisk-ws") as (relay, bridge):
        telephone = AsteriskTelephone(said, encoding, name=name, in_json=in_json)
        await hear_the_echo(telephone, bridge, relay)
        assert telephone.control.count("GET_STATUS") >= 2
        assert telephone.queue_lengths
        assert max(telephone.queue_lengths) <= 25  # 0.5 s, of which more than 0.44 is cleared


async def test_a_simulator_of_twilio_that_others_wrote() -> None:
    """streamdouble: it refuses what Twilio would, and plays marks back."""
    api = pytest.importorskip("streamdouble.api", reason="streamdouble is not installed: pip install streamdouble")
    session = pytest.importorskip("streamdouble.session")
    said = speech(4.0)
    data = Encoding("ulaw", 8000).encode(said)
    frames = [data[at : at + 160] for at in range(0, len(data) - 159, 160)]
    async with bridged("twilio") as (relay, bridge):
        echo = await Echo.join(int(relay.url.rpartition(":")[2]), "tea", stream_format(VOICE))
        settings = session.SessionConfig(max_drain_s=1.0, custom_parameters={"room": "tea"})
        report = await asyncio.wait_for(api.call(bridge.url, frames=frames, config=settings), 60)
        echo.close()
        await until(lambda: bridge.calls == 0, "nothing is left")
    assert report.violations == []
    assert report.result.unknown_events == []
    assert report.result.marks_received
    assert report.result.marks_echoed
    heard = Encoding("ulaw", 8000).decode(report.audio_received[:8000])
    heard = np.concatenate([heard, Encoding("ulaw", 8000).decode(report.audio_received[8000:16_000])])
    assert np.abs(heard).max() > 0.05
    assert len(report.audio_received) > 160 * len(frames) // 2


async def test_digits_are_passed_on(small: EncodecModel, log: Log) -> None:
    pressed: list[tuple[str, str]] = []
    on_digit: Callable[[str, str], None] = lambda call, digit: pressed.append((call, digit))  # noqa: E731
    async with bridged("audiosocket", small, on_digit=on_digit) as (_, bridge):
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
        writer.write(frame(1, bytes(16)) + frame(0x10, bytes(320)) + frame(3, b"4") + frame(3, b"#"))
        await until(lambda: len(pressed) == 2, "both keys")
        writer.close()
    name = "00000000-0000-0000-0000-000000000000"
    assert pressed == [(name, "4"), (name, "#")]
    assert [told["digit"] for told in log("phone_digit")] == ["4", "#"]
    assert reader is not None


async def test_two_callers_hear_each_other() -> None:
    async with bridged("audiosocket") as (_, bridge):
        said = speech(5.0)
        first, second = make_telephone("audiosocket", said), make_telephone("audiosocket", np.zeros_like(said))
        await asyncio.wait_for(asyncio.gather(first.call(bridge.url), second.call(bridge.url)), 60)
        assert np.abs(second.heard).max() > 0.05
        assert np.abs(first.heard).max() < 0.05
        await until(lambda: bridge.calls == 0, "nothing is left")


# -- who may call ------------------------------------------------------------------------------------------------


async def refused(url: str, **headers: str) -> int:
    """The status of a handshake that fails; 101 for one that does not."""
    try:
        async with connect(url, proxy=None, additional_headers=headers):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def test_only_who_is_admitted_may_call(small: EncodecModel) -> None:
    admission = Admission(secret=SECRET)
    async with bridged("twilio", small, admission=admission) as (_, bridge):
        assert await refused(bridge.url) == 403
        assert await refused(f"{bridge.url}/{SECRET}x") == 403
        assert await refused(f"{bridge.url}/{SECRET}") == 101
        assert await refused(f"{bridge.url}/{SECRET}", X_Forwarded_For="192.0.2.1") == 101
    admission = Admission(auth_token="12345")
    async with bridged("twilio", small, admission=admission) as (_, bridge):
        url = f"wss://127.0.0.1:{bridge.port}/calls"
        signed = {"X-Twilio-Signature": twilio_signature("12345", url)}
        assert await refused(f"{bridge.url}/calls", **signed) == 101
        assert await refused(f"{bridge.url}/others", **signed) == 403
        assert await refused(f"{bridge.url}/calls") == 403
    async with bridged("twilio", small) as (_, bridge):
        assert await refused(bridge.url, **{"X-Forwarded-For": "192.0.2.1"}) == 403
        assert await refused(bridge.url, Origin="https://evil.example") == 403
        assert await refused(bridge.url) == 101
    admission = Admission(networks=parse_networks(["192.0.2.0/24"]))
    for kind in ("twilio", "audiosocket"):
        async with bridged(kind, small, admission=admission) as (_, bridge):
            if kind == "twilio":
                assert await refused(bridge.url) == 403
                continue
            reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()


async def test_a_call_too_many_is_refused(small: EncodecModel) -> None:
    async with bridged("twilio", small, limits=BridgeLimits(max_calls=1)) as (_, bridge):
        async with connect(bridge.url, proxy=None):
            await until(lambda: bridge.calls == 1, "the first is there")
            assert await refused(bridge.url) == 503
        await until(lambda: bridge.calls == 0, "the first has gone")
        assert await refused(bridge.url) == 101


async def test_each_call_gets_a_token_of_its_own(small: EncodecModel, log: Log) -> None:
    async with bridged("audiosocket", small, token_key=KEY, room="x-{call}", relay={"token_key": KEY}) as (_, bridge):
        telephones = [make_telephone("audiosocket", np.zeros(4000, np.float32)) for _ in range(2)]
        await asyncio.wait_for(asyncio.gather(*(telephone.call(bridge.url) for telephone in telephones)), 60)
        await until(lambda: len(log("phone_ended")) == 2, "both ended")
    rooms = {told["room"] for told in log("phone_call")}
    assert len(rooms) == 2
    assert all(room.startswith("x-") for room in rooms)


# -- broken peers ------------------------------------------------------------------------------------------------

START = {
    "event": "start",
    "streamSid": "MZ1",
    "start": {"callSid": "CA1", "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}},
}
MEDIA = {"event": "media", "streamSid": "MZ1", "media": {"payload": base64.b64encode(b"\xff" * 160).decode()}}
ASTERISK = "MEDIA_START connection_id:a channel:b channel_id:CA1 format:slin optimal_frame_size:320 ptime:20"
FLOOD = 3000

BREAKS: list[tuple[str, list[Any], str]] = [
    ("twilio", [json.dumps(MEDIA)], "before 'start'"),
    ("twilio", [json.dumps(START), b"\x00\x01"], "binary"),
    ("twilio", [json.dumps(START), "{"], "not JSON"),
    ("twilio", [json.dumps(START), *[json.dumps({"event": "new"})] * FLOOD], "messages a second"),
    ("twilio", [json.dumps(START), "x" * 200_000], "exceeds limit"),
    ("twilio", [], "did not start within"),
    ("asterisk-ws", [bytes(320)], "before MEDIA_START"),
    ("asterisk-ws", [ASTERISK, bytes(321)], "half a sample"),
    ("asterisk-ws", [ASTERISK, *[bytes(16_000)] * 60], "as fast as it is spoken"),
    ("audiosocket", [b"GET / HTTP/1.1\r\n\r\n"], "UUID"),
    ("audiosocket", [frame(1, bytes(16)) + frame(0x10, bytes(320)) + frame(0x12, bytes(640))], "16000 Hz"),
    ("audiosocket", [frame(1, bytes(16)), *[frame(0x10, bytes(16_000))] * 60], "as fast as it is spoken"),
    ("audiosocket", [frame(1, bytes(16)) + frame(0x10, bytes(320))], "nothing came"),
]


@pytest.mark.parametrize(("kind", "messages", "says"), BREAKS)
async def test_a_broken_call_ends_with_one_line_and_the_room_goes_on(
    kind: str, messages: list[Any], says: str, small: EncodecModel, log: Log
) -> None:
    limits = BridgeLimits(start_s=0.5 if not messages else 20.0, silent_s=1.0 if says == "nothing came" else 60.0)
    async with bridged(kind, small, limits=limits) as (relay, bridge):
        async with VoiceClient(relay.url, None, small, room="tea") as other:
            await _send_all(kind, bridge, messages)
            await until(lambda: log("phone_ended"), "the call ended")
            await until(lambda: bridge.calls == 0 and not other.present, "nothing is left")
            other.check()  # the room goes on
        (ended,) = log("phone_ended")
        assert says in ended["reason"]
        assert ended["level"] == "WARNING"
        assert "\n" not in ended["reason"]
        assert not log("failed")
        # And so does the bridge.
        telephone = make_telephone(kind, np.zeros(8000, np.float32))
        await asyncio.wait_for(telephone.call(bridge.url), 60)
        assert len(telephone.heard)


async def _send_all(kind: str, bridge: Bridge, messages: list[Any]) -> None:
    if kind == "audiosocket":
        reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
        try:
            for message in messages:
                writer.write(message)
                await writer.drain()
            await asyncio.wait_for(_read_all(reader), 60)
        except ConnectionError:
            pass
        writer.close()
        return
    async with connect(bridge.url, proxy=None, compression=None) as socket:
        try:
            for message in messages:
                await socket.send(message)
            async with asyncio.timeout(60):
                async for _ in socket:
                    pass
        except (ConnectionError, ConnectionClosed):
            pass


async def _read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(4096):
        pass


@pytest.mark.parametrize("kind", KINDS)
async def test_a_sudden_end_leaks_nothing(kind: str, small: EncodecModel, log: Log) -> None:
    async with bridged(kind, small) as (_, bridge):
        threads = threading.active_count()
        for number in range(3):
            telephone = make_telephone(kind, np.zeros(80_000, np.float32))
            calling = asyncio.create_task(telephone.call(bridge.url))
            await until(lambda: len(log("phone_call")) > number, "the call began")  # noqa: B023
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            await until(lambda: bridge.calls == 0, "it ended here too")
        assert len(log("phone_ended")) == 3
        assert threading.active_count() <= threads + 8  # asyncio's own pool
    gc.collect()
    assert bridge.calls == 0


async def test_a_bridge_that_stops_hangs_up(small: EncodecModel, log: Log) -> None:
    telephone = make_telephone("audiosocket", np.zeros(800_000, np.float32))
    async with bridged("audiosocket", small) as (_, bridge):
        calling = asyncio.create_task(telephone.call(bridge.url))
        await until(lambda: len(telephone.arrivals_s) > 3, "it hears something")
        bridge.stop()
        await asyncio.wait_for(calling, 30)
    assert "end" in telephone.control
    (ended,) = log("phone_ended")
    assert ended["reason"] == "the bridge stops"


async def test_no_relay_is_one_line_and_the_caller_is_not_left_waiting(small: EncodecModel, log: Log) -> None:
    async with Bridge(BridgeConfig("audiosocket", "tea", "ws://127.0.0.1:9", model=small)) as bridge:
        telephone = make_telephone("audiosocket", np.zeros(80_000, np.float32))
        await asyncio.wait_for(telephone.call(bridge.url), 60)
        await until(lambda: log("phone_ended"), "the call ended")
    (ended,) = log("phone_ended")
    assert ended["level"] == "WARNING"
    assert "127.0.0.1:9" in ended["reason"]


async def test_an_address_that_is_taken(small: EncodecModel) -> None:
    async with bridged("audiosocket", small) as (_, bridge):
        config = BridgeConfig("audiosocket", "tea", "ws://127.0.0.1:9", port=bridge.port, model=small)
        with pytest.raises(CallError) as error:
            async with Bridge(config):
                pass
    assert error.value.reason is CallErrorReason.CANNOT_LISTEN
