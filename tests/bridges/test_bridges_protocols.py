"""What telephones say, message by message: as their protocols' documents have it, and as nobody should say it."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streaming_encodec.bridges.asterisk_websocket import FORMATS, AsteriskWebSocket
from streaming_encodec.bridges.audiosocket import RATES, AudioSocket, frame
from streaming_encodec.bridges.g711 import decode_g711, encode_g711
from streaming_encodec.bridges.media_streams import MediaStream
from streaming_encodec.bridges.protocol import (
    Digit,
    Ended,
    Event,
    Hold,
    Message,
    PhoneProtocol,
    Queued,
    Sound,
    Started,
)
from streaming_encodec.errors import BridgeError

# -- G.711 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["ulaw", "alaw"])
def test_g711_is_that_of_the_standard_library(law: str) -> None:
    audioop = pytest.importorskip("audioop", reason="left the standard library in Python 3.13")
    decode, encode = getattr(audioop, f"{law}2lin"), getattr(audioop, f"lin2{law}")
    codes = bytes(range(256))
    levels = np.frombuffer(decode(codes, 2), "<i2")
    assert np.array_equal(np.rint(decode_g711(codes, law) * 32_768), levels)
    # Every level comes back; 0x7f is a second zero of µ-law.
    back = encode_g711(decode_g711(codes, law), law)
    assert {i for i in range(256) if back[i] != i} <= {0x7F}
    samples = np.arange(-32_768, 32_768)
    ours = encode_g711((samples / 32_768).astype(np.float32), law)
    theirs = encode(samples.astype("<i2").tobytes(), 2)
    wrong = [i for i in range(len(samples)) if ours[i] != theirs[i]]
    # Theirs first drops the two or three lowest bits, and rounds so to the next lower step.
    assert all(abs(samples[i] - decode_g711(ours[i : i + 1], law)[0] * 32_768) <= 1024 for i in wrong)
    assert len(wrong) < 1500


def test_g711_agrees_with_a_simulator_of_twilio() -> None:
    g711 = pytest.importorskip("streamdouble.g711", reason="streamdouble is not installed")
    codes = bytes(range(256))
    decoded = np.asarray(g711.ulaw_to_pcm16(codes) if hasattr(g711, "ulaw_to_pcm16") else g711.decode(codes))
    if decoded.dtype != np.int16:
        decoded = np.frombuffer(decoded.tobytes(), "<i2")
    assert np.array_equal(np.rint(decode_g711(codes) * 32_768), decoded)


# -- golden messages ---------------------------------------------------------------------------------------------

SILENT = base64.b64encode(b"\xff" * 160).decode()
TWILIO = [
    '{"event":"connected","protocol":"Call","version":"1.0.0"}',
    '{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"MZ18ad3ab5a668481ce02b83e7395059f0",'
    '"callSid":"CA123","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},'
    '"customParameters":{"FirstName":"Jane","LastName":"Doe"}},"streamSid":"MZ18ad3ab5a668481ce02b83e7395059f0"}',
    '{"event":"media","sequenceNumber":"3","media":{"track":"inbound","chunk":"1","timestamp":"20","payload":"'
    + SILENT
    + '"},"streamSid":"MZ18ad3ab5a668481ce02b83e7395059f0"}',
    '{"event":"dtmf","streamSid":"MZ18ad3ab5a668481ce02b83e7395059f0","sequenceNumber":"5","dtmf":{"track":"inbound_track","digit":"1"}}',
    '{"event":"mark","sequenceNumber":"4","streamSid":"MZ18ad3ab5a668481ce02b83e7395059f0","mark":{"name":"my label"}}',
    '{"event":"stop","sequenceNumber":"5","streamSid":"MZ18ad3ab5a668481ce02b83e7395059f0","stop":{"callSid":"CA123"}}',
]
TELNYX = [
    '{"event":"connected","version":"1.0.0"}',
    '{"event":"start","sequence_number":"1","start":{"user_id":"3E6F995F","call_control_id":"v2:T02llQxIyaRk",'
    '"client_state":"aGF2","media_format":{"encoding":"PCMU","sample_rate":8000,"channels":1}},"stream_id":"32de0dea"}',
    '{"event":"media","sequence_number":"4","media":{"track":"inbound","chunk":"2","timestamp":"5","payload":"'
    + SILENT
    + '"},"stream_id":"32de0dea"}',
    '{"event":"dtmf","stream_id":"32de0dea","occurred_at":"2026","sequence_number":"5","dtmf":{"digit":"1"}}',
    '{"event":"stop","sequence_number":"5","stop":{"user_id":"3E6F995F"},"stream_id":"32de0dea"}',
]
PLIVO = [
    '{"sequenceNumber":0,"event":"start","start":{"callId":"da91","streamId":"20a5","accountId":"1","tracks":["inbound"],'
    '"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000}},"extra_headers":"{}"}',
    '{"sequenceNumber":1,"streamId":"20a5","event":"media","media":{"track":"inbound","timestamp":"1709","chunk":1,'
    '"payload":"' + SILENT + '"},"extra_headers":"{}"}',
    '{"event":"dtmf","streamId":"20a5","dtmf":{"track":"inbound","digit":"1","timestamp":"1709"}}',
]
EXOTEL = [
    '{"event":"connected"}',
    '{"event":"start","sequence_number":"1","stream_sid":"b0f8","start":{"stream_sid":"b0f8","call_sid":"a1","account_sid":'
    '"x","from":"0","to":"1","custom_parameters":{"a":"b"},"media_format":{"encoding":"base64","sample_rate":"8000","bit_rate":'
    '"128kbps"}}}',
    '{"event":"media","sequence_number":"3","stream_sid":"b0f8","media":{"chunk":"2","timestamp":"10","payload":"'
    + base64.b64encode(bytes(320)).decode()
    + '"}}',
    '{"event":"dtmf","sequence_number":"4","stream_sid":"b0f8","dtmf":{"duration":"100","digit":"1"}}',
    '{"event":"stop","sequence_number":"5","stream_sid":"b0f8","stop":{"call_sid":"a1","reason":"callended"}}',
]


def all_events(protocol: PhoneProtocol, messages: list[Any]) -> list[Event]:
    return [event for message in messages for event in protocol.receive(message)]


@pytest.mark.parametrize(
    ("dialect", "messages", "call"),
    [
        ("twilio", TWILIO, "CA123"),
        ("telnyx", TELNYX, "v2:T02llQxIyaRk"),
        ("plivo", PLIVO, "da91"),
        ("exotel", EXOTEL, "a1"),
    ],
)
def test_the_messages_of_each_providers_documents(dialect: str, messages: list[str], call: str) -> None:
    start, sound, digit, *rest = all_events(MediaStream(dialect), messages)
    assert isinstance(start, Started)
    assert (start.call, start.rate) == (call, 8000)
    assert isinstance(sound, Sound)
    assert len(sound.samples) == 160
    assert not sound.samples.any()
    assert digit == Digit("1")
    assert rest in ([Ended("the caller hung up")], [])


def test_twilio_tells_its_time_and_its_parameters() -> None:
    start, sound, *_ = all_events(MediaStream(), TWILIO)
    assert start.parameters == {"FirstName": "Jane", "LastName": "Doe"}  # type: ignore[union-attr]
    assert sound.end_s == pytest.approx(0.040)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("dialect", "messages", "sound", "mark", "clear"),
    [
        (
            "twilio",
            TWILIO,
            {"event": "media", "streamSid": "MZ18ad3ab5a668481ce02b83e7395059f0", "media": {"payload": SILENT}},
            {
                "event": "mark",
                "streamSid": "MZ18ad3ab5a668481ce02b83e7395059f0",
                "mark": {"name": "streaming-encodec-1"},
            },
            {"event": "clear", "streamSid": "MZ18ad3ab5a668481ce02b83e7395059f0"},
        ),
        (
            "plivo",
            PLIVO,
            {
                "event": "playAudio",
                "streamId": "20a5",
                "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": SILENT},
            },
            {"event": "checkpoint", "streamId": "20a5", "name": "streaming-encodec-1"},
            {"event": "clearAudio", "streamId": "20a5"},
        ),
    ],
)
def test_what_a_provider_is_told(dialect: str, messages: list[str], sound: object, mark: object, clear: object) -> None:
    stream = MediaStream(dialect)
    all_events(stream, messages[:3])
    assert json.loads(stream.sound(np.zeros(160, np.float32))) == sound
    assert json.loads(stream.probe()) == mark
    assert json.loads(stream.clear()) == clear


def test_a_mark_tells_what_waits_and_a_clear_forgets_it() -> None:
    stream = MediaStream()
    all_events(stream, TWILIO[:2])
    stream.sound(np.zeros(160, np.float32))
    mark = stream.probe()
    for _ in range(3):
        stream.sound(np.zeros(160, np.float32))
    assert stream.receive(mark) == [Queued(pytest.approx(0.060), exact=False)]
    assert stream.receive(mark) == []  # a second time it says nothing
    mark = stream.probe()
    stream.clear()
    assert stream.receive(mark) == []


def test_plivo_answers_a_checkpoint_under_another_name() -> None:
    stream = MediaStream("plivo")
    all_events(stream, PLIVO[:1])
    stream.probe()
    answer = '{"event":"playedStream","streamId":"20a5","name":"streaming-encodec-1"}'
    assert stream.receive(answer) == [Queued(0.0, exact=False)]


def test_marks_that_nobody_answers_do_not_pile_up() -> None:
    stream = MediaStream()
    all_events(stream, TWILIO[:2])
    for _ in range(1000):
        stream.probe()
    assert len(stream._marks) <= 64


def test_exotel_gets_pieces_as_large_as_it_takes() -> None:
    stream = MediaStream("exotel")
    all_events(stream, EXOTEL[:2])
    message = json.loads(stream.sound(np.zeros(8 * stream.frame_ms, np.float32)))
    assert message["stream_sid"] == "b0f8"
    assert len(base64.b64decode(message["media"]["payload"])) == 3200


UUID = bytes(range(16))


def audiosocket_call(kind: int = 0x10) -> bytes:
    samples = (np.arange(160) * 100).astype("<i2").tobytes()
    return frame(0x01, UUID) + frame(kind, samples) + frame(0x03, b"#") + frame(kind, samples) + frame(0x00)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 320, 10_000])
def test_an_audiosocket_may_be_cut_anywhere(piece: int) -> None:
    socket, data = AudioSocket(), audiosocket_call()
    events = all_events(socket, [data[at : at + piece] for at in range(0, len(data), piece)])
    assert [type(event) for event in events] == [Started, Sound, Digit, Sound, Ended]
    assert events[0] == Started("00010203-0405-0607-0809-0a0b0c0d0e0f", 8000)
    assert np.array_equal(events[1].samples * 32_768, np.arange(160) * 100)  # type: ignore[union-attr]
    assert events[2] == Digit("#")
    assert len(socket._waiting) == 0


@pytest.mark.parametrize(("kind", "rate"), RATES.items())
def test_an_audiosocket_answers_at_the_rate_that_it_hears(kind: int, rate: int) -> None:
    socket = AudioSocket()
    started = socket.receive(audiosocket_call(kind))[0]
    assert started == Started("00010203-0405-0607-0809-0a0b0c0d0e0f", rate)
    sent = socket.sound(np.full(rate // 50, 0.5, np.float32))
    assert sent[:3] == bytes([kind]) + (rate // 25).to_bytes(2, "big")
    assert sent[3:5] == (16_384).to_bytes(2, "little")
    assert socket.hang_up() == b"\0\0\0"


MEDIA_START = (
    "MEDIA_START connection_id:media_connection1 channel:WebSocket/media_connection1/0x51 channel_id:1761245643.1 "
    "format:ulaw optimal_frame_size:160 ptime:20"
)
MEDIA_START_JSON = json.dumps(
    {
        "event": "MEDIA_START",
        "connection_id": "media_connection1",
        "channel": "WebSocket/media_connection1/0x5140001a0040",
        "channel_id": "1761245643.1",
        "format": "slin24",
        "optimal_frame_size": 960,
        "ptime": 20,
        "channel_variables": {"DIALEDPEERNUMBER": "media_connection1/c(slin24)"},
    }
)


def test_asterisk_in_plain_text() -> None:
    call = AsteriskWebSocket()
    messages = [
        MEDIA_START,
        b"\xff" * 160,
        "DTMF_END digit:5 channel_id:1761245643.1",
        "MEDIA_XOFF",
        "MEDIA_XON",
        "STATUS channel_id:1761245643.1 queue_length:43 xon_level:800 xoff_level:900 queue_full:false",
        "QUEUE_DRAINED",
        "MEDIA_BUFFERING_COMPLETED x",
    ]
    start, sound, *rest = all_events(call, messages)
    assert start.call == "1761245643.1"  # type: ignore[union-attr]
    assert len(sound.samples) == 160  # type: ignore[union-attr]
    assert rest == [Digit("5"), Hold(True), Hold(False), Queued(pytest.approx(0.86), exact=True)]
    assert call.sound(np.zeros(160, np.float32)) == b"\xff" * 160
    assert (call.probe(), call.clear(), call.hang_up()) == ("GET_STATUS", "FLUSH_MEDIA", "HANGUP")


def test_asterisk_in_json_is_answered_in_json() -> None:
    call = AsteriskWebSocket()
    messages = [
        MEDIA_START_JSON,
        bytes(960),
        '{"event":"DTMF_END","channel_id":"1761245643.1","digit":"5"}',
        '{"event":"MEDIA_XOFF","channel_id":"1761245643.1"}',
        '{"event":"STATUS","channel_id":"1","queue_length":2,"xon_level":800}',
    ]
    start, _, *rest = all_events(call, messages)
    assert isinstance(start, Started)
    assert (start.rate, start.parameters) == (24_000, {"DIALEDPEERNUMBER": "media_connection1/c(slin24)"})
    assert rest == [Digit("5"), Hold(True), Queued(pytest.approx(0.04), exact=True)]
    assert json.loads(call.probe()) == {"command": "GET_STATUS"}
    assert len(call.sound(np.zeros(480, np.float32))) == 960


def test_asterisks_commands_are_as_short_as_it_takes() -> None:
    for start in (MEDIA_START, MEDIA_START_JSON):
        call = AsteriskWebSocket()
        call.receive(start)
        assert all(len(text) <= 128 for text in (call.probe(), call.clear(), call.hang_up()))


# -- broken ones -------------------------------------------------------------------------------------------------


def twilio(**media: Any) -> str:
    return json.dumps({"event": "media", "streamSid": "MZ18ad3ab5a668481ce02b83e7395059f0", "media": media})


def start_of(**form: Any) -> str:
    message = json.loads(TWILIO[1])
    message["start"]["mediaFormat"] |= form
    return json.dumps(message)


BROKEN: list[tuple[Callable[[], PhoneProtocol], list[Message], Message, str]] = [
    (MediaStream, [], b"\x00", "binary"),
    (MediaStream, [], "{", "not JSON"),
    (MediaStream, [], "[" * 100_000, "not JSON"),
    (MediaStream, [], "[1]", "a JSON object"),
    (MediaStream, [], '{"event":7}', "'event'"),
    (MediaStream, [], TWILIO[2], "before 'start'"),
    (MediaStream, [], TWILIO[5], "before 'start'"),
    (MediaStream, [], '{"event":"start"}', "'start'"),
    (MediaStream, [], start_of(sampleRate=16_000), "8000 Hz"),
    (MediaStream, [], start_of(sampleRate="x"), "8000 Hz"),
    (MediaStream, [], start_of(encoding="audio/opus"), "8000 Hz"),
    (MediaStream, [], start_of(channels=2), "8000 Hz"),
    (MediaStream, [], TWILIO[1].replace("MZ18ad3ab5a668481ce02b83e7395059f0", "x" * 200), "streamSid"),
    (MediaStream, [], TWILIO[1].replace("CA123", "CA\\u0007"), "callSid"),
    (MediaStream, TWILIO[:2], TWILIO[1], "second time"),
    (MediaStream, TWILIO[:2], TWILIO[2].replace("MZ18", "MZ19"), "another stream"),
    (MediaStream, TWILIO[:2], twilio(), "payload"),
    (MediaStream, TWILIO[:2], twilio(payload=7), "payload"),
    (MediaStream, TWILIO[:2], twilio(payload="###"), "base64"),
    (MediaStream, TWILIO[:2], twilio(payload=SILENT, timestamp="-1"), "timestamp"),
    (MediaStream, TWILIO[:2], twilio(payload=base64.b64encode(bytes(8001)).decode()), "at most 1 s"),
    (MediaStream, TWILIO[:2], TWILIO[3].replace('"digit":"1"', '"digit":"11"'), "key"),
    (MediaStream, TWILIO, TWILIO[2], "after 'stop'"),
    (lambda: MediaStream("exotel"), EXOTEL[:2], EXOTEL[2].replace("AAAA", "", 1)[:-4] + '=="}}', "base64"),
    (AudioSocket, [], "text", "text"),
    (AudioSocket, [], frame(0x10, bytes(320)), "UUID"),
    (AudioSocket, [], frame(0x01, bytes(15)), "16 bytes"),
    (AudioSocket, [frame(0x01, UUID)], frame(0x01, UUID), "second UUID"),
    (AudioSocket, [frame(0x01, UUID)], frame(0x10, bytes(321)), "half a sample"),
    (AudioSocket, [frame(0x01, UUID)], frame(0x10, bytes(60_000)), "at most 1 s"),
    (AudioSocket, [frame(0x01, UUID), frame(0x10, bytes(320))], frame(0x12, bytes(640)), "16000 Hz"),
    (AudioSocket, [frame(0x01, UUID)], frame(0x03, b"12"), "1 byte"),
    (AudioSocket, [frame(0x01, UUID)], frame(0x03, b"x"), "key"),
    (AudioSocket, [frame(0x01, UUID)], frame(0x42), "0x42"),
    (AudioSocket, [], b"GET / HTTP/1.1\r\n\r\n", "UUID"),
    (AsteriskWebSocket, [], b"\xff" * 160, "before MEDIA_START"),
    (AsteriskWebSocket, [], "MEDIA_XOFF", "before MEDIA_START"),
    (AsteriskWebSocket, [], "", "no control message"),
    (AsteriskWebSocket, [], "hello there", "no control message"),
    (AsteriskWebSocket, [], "{]", "not JSON"),
    (AsteriskWebSocket, [], '{"command":"ANSWER"}', "'event'"),
    (AsteriskWebSocket, [], MEDIA_START.replace("ulaw", "opus"), "c(slin24)"),
    (AsteriskWebSocket, [], MEDIA_START.replace("size:160", "size:320"), "optimal_frame_size"),
    (AsteriskWebSocket, [], MEDIA_START.replace("size:160", "size:x"), "optimal_frame_size"),
    (AsteriskWebSocket, [], MEDIA_START.replace("ptime:20", "ptime:0"), "ptime"),
    (AsteriskWebSocket, [MEDIA_START], MEDIA_START, "second time"),
    (AsteriskWebSocket, [MEDIA_START_JSON], bytes(961), "half a sample"),
    (AsteriskWebSocket, [MEDIA_START], bytes(8001), "at most 1 s"),
    (AsteriskWebSocket, [MEDIA_START], "STATUS queue_length:-1", "queue_length"),
    (AsteriskWebSocket, [MEDIA_START], "DTMF_END", "key"),
]


@pytest.mark.parametrize(("make", "before", "message", "says"), BROKEN)
def test_what_breaks_a_protocol_is_one_clear_error(
    make: Callable[[], PhoneProtocol], before: list[Message], message: Message, says: str
) -> None:
    protocol = make()
    all_events(protocol, before)
    with pytest.raises(BridgeError) as error:
        protocol.receive(message)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_half_a_frame_of_a_liar_is_refused_before_it_has_come() -> None:
    socket = AudioSocket()
    socket.receive(frame(0x01, UUID))
    with pytest.raises(BridgeError, match="at most 1 s"):
        socket.receive(b"\x10\xff\xff")


# -- fuzz --------------------------------------------------------------------------------------------------------

GOLDEN: dict[str, tuple[Callable[[], PhoneProtocol], list[Any]]] = {
    "twilio": (MediaStream, TWILIO),
    "telnyx": (lambda: MediaStream("telnyx"), TELNYX),
    "plivo": (lambda: MediaStream("plivo"), PLIVO),
    "exotel": (lambda: MediaStream("exotel"), EXOTEL),
    "audiosocket": (AudioSocket, [frame(0x01, UUID), *[frame(k, bytes(320)) for k in RATES], frame(3, b"1"), frame(0)]),
    "asterisk-ws": (
        AsteriskWebSocket,
        [
            MEDIA_START,
            MEDIA_START_JSON,
            b"\xff" * 160,
            "MEDIA_XOFF",
            "STATUS queue_length:4",
            "DTMF_END digit:1",
            "HANGUP",
        ],
    ),
}
ODD = [None, 7, -1, 1e300, "", "x", [], {}, True, "\u2028", "9" * 400, {"payload": "AA=="}, "NaN", "MEDIA_START " * 9]


def mutated(message: Any, rng: random.Random) -> Any:
    """Near to a real message, in one of many ways."""
    chance = rng.random()
    if chance < 0.3:
        return message
    if isinstance(message, str) and message.startswith("{") and chance < 0.6:
        value = json.loads(message)
        target = value
        while True:
            key = rng.choice(list(target))
            if isinstance(target[key], dict) and target[key] and rng.random() < 0.7:
                target = target[key]
                continue
            break
        if rng.random() < 0.3:
            del target[key]
        else:
            target[key] = rng.choice(ODD)
        return json.dumps(value)
    if chance < 0.65:
        return rng.randbytes(rng.randrange(400)) if isinstance(message, str) else "text"
    raw = bytearray(message.encode() if isinstance(message, str) else message)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(raw) + 1)
        change = rng.randrange(3)
        if change == 0:
            del raw[at : at + rng.randrange(1, 9)]
        elif change == 1:
            raw[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif at < len(raw):
            raw[at] = rng.randrange(256)
    return raw.decode("utf-8", "replace") if isinstance(message, str) else bytes(raw)


def fuzz(kind: str, messages: int) -> tuple[int, int]:
    """So many mutated messages through fresh calls. Returns how many were taken and refused; anything else raises."""
    make, golden = GOLDEN[kind]
    rng = random.Random(kind)
    taken = refused = 0
    while taken + refused < messages:
        protocol = make()
        started = False
        for _ in range(rng.randrange(1, 40)):
            message = mutated(golden[0] if not started and rng.random() < 0.8 else rng.choice(golden), rng)
            try:
                events = protocol.receive(message)
            except BridgeError as error:
                assert str(error).isprintable()  # noqa: PT017
                refused += 1
                break
            taken += 1
            for event in events:
                started = started or isinstance(event, Started)
                if isinstance(event, Sound):
                    assert event.samples.dtype == np.float32
                    assert np.isfinite(event.samples).all()
                    assert 0 < len(event.samples) <= 48_000
            if started:
                protocol.sound(np.zeros(160, np.float32))
                protocol.probe()
        if isinstance(protocol, AudioSocket):
            assert len(protocol._waiting) < 3 + 65_536
    return taken, refused


@pytest.mark.parametrize("kind", GOLDEN)
def test_any_message_is_taken_or_refused(kind: str) -> None:
    taken, refused = fuzz(kind, 3000)
    assert taken > 300  # real messages get through
    assert refused > 300


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOLDEN)
def test_a_hundred_thousand_messages_are_taken_or_refused(kind: str) -> None:
    taken, refused = fuzz(kind, 100_000)
    assert min(taken, refused) > 10_000


def test_asterisks_formats_have_its_rates() -> None:
    assert {name: encoding.rate for name, encoding in FORMATS.items() if name.startswith("slin")} == {
        "slin": 8000,
        "slin12": 12_000,
        "slin16": 16_000,
        "slin24": 24_000,
        "slin32": 32_000,
        "slin44": 44_100,
        "slin48": 48_000,
    }
