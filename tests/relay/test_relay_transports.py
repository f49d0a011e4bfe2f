"""Clients and a relay over transports that differ: what is heard depends on what arrives when, and on nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from call_kit import tiny_model
from memory_transport import MemoryWire
from relay_kit import FORMAT, FakeClock, counted, heard, running, seated, until, voice

from streaming_encodec.call.decoders import make_decoders
from streaming_encodec.call.incoming import IncomingVoices
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.client.link import Link
from streaming_encodec.relay.participants import WINDOW_PACKETS, SequenceWindow, VoiceAge
from streaming_encodec.transport.base import Dialer
from streaming_encodec.transport.websocket.client import WebSocketDialer
from streaming_encodec.voice.network import GilbertElliott, NetworkModel
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.wire.header import read_header
from streaming_encodec.wire.hello import Hello
from streaming_encodec.wire.packet import Packet, StreamFormat, serialize_packet

FRAME_S = FORMAT.frame_seconds
DATAGRAMS = NetworkModel(loss=GilbertElliott.with_loss(0.05), jitter_ms=15.0, reorder=0.1, duplicate=0.1)
STREAM = NetworkModel(loss=GilbertElliott.with_loss(0.05), jitter_ms=15.0, ordered=True)


def link(
    dialer: Dialer, role: str, on_packet: Callable[[bytes], None], clock: FakeClock, form: StreamFormat = FORMAT
) -> Link:
    hello = Hello("r", role, form)
    return Link(dialer, hello, None, on_packet=on_packet, on_control=lambda message: None, clock=clock)


async def opened(wire: MemoryWire, role: str, on_packet: Callable[[bytes], None] = lambda data: None) -> Link:
    made = link(wire, role, on_packet, wire.clock)
    await wire.during(asyncio.create_task(made.open()))
    return made


@pytest.mark.parametrize("model", [STREAM, DATAGRAMS], ids=["ordered and reliable", "neither"])
@pytest.mark.parametrize("seed", [0, 1])
async def test_a_call_over_any_transport(model: NetworkModel, seed: int) -> None:
    """Reliable: all packets in order. Else: those that the network did not lose, each once, in any order."""
    came: list[int] = []
    wire = MemoryWire(model, seed=seed)
    ear = await opened(wire, "subscribe", lambda data: came.append(read_header(data).sequence))
    mouth = await opened(wire, "publish")
    for number in range(600):
        mouth.send_packet(voice(65_300 + number))  # through the end of the numbers
        await wire.pass_time(FRAME_S)
    await wire.pass_time(1.0)
    sent = [(65_300 + number) % 65_536 for number in range(600)]
    assert mouth.connected
    assert ear.connected
    assert not wire.relay.metrics.closed
    if model.ordered:
        assert came == sent
    else:
        assert 0.8 * 600 < len(set(came)) < 600
        assert set(came) < set(sent)
        assert came != sorted(came, key=sent.index)  # some were late
        assert counted(wire.relay, "packets_replayed") > 20  # what came twice to the relay
        twice = len(came) - len(set(came))
        assert twice < 100  # what came twice from the relay, which is for the receiver's buffer
    await wire.during(asyncio.create_task(mouth.close()))
    await wire.during(asyncio.create_task(ear.close()))


async def test_the_same_packets_at_the_same_times_give_the_same_sound_over_any_transport() -> None:
    model = tiny_model()
    form = stream_format(model)
    rng = np.random.default_rng(0)
    packets = [serialize_packet(Packet(n, n, codes=rng.integers(0, 64, (4, 1)), bits_per_code=6)) for n in range(150)]
    gaps_s = rng.exponential(FRAME_S, 150)
    sounds = []
    for ordered in (True, False, None):
        clock = FakeClock()
        if ordered is None:
            async with running(clock=clock) as relay:
                sounds.append(await _played(model, form, packets, gaps_s, WebSocketDialer(relay.url), clock, None))
        else:
            wire = MemoryWire(NetworkModel(base_ms=0.0, ordered=ordered))
            sounds.append(await _played(model, form, packets, gaps_s, wire, wire.clock, wire))
    assert np.abs(sounds[0]).max() > 0
    for other in sounds[1:]:
        np.testing.assert_array_equal(sounds[0], other)


async def _played(
    model: object,
    form: StreamFormat,
    packets: list[bytes],
    gaps_s: np.ndarray,
    dialer: Dialer,
    clock: FakeClock,
    wire: MemoryWire | None,
) -> np.ndarray:
    """What a listener plays of packets that arrive at these times, by the moving clock."""
    decoders = make_decoders(model, "fused")  # type: ignore[arg-type]
    voices = IncomingVoices(form, decoders, ReceiverSettings(), clock=clock, on_reports=lambda reports: None)
    ear = link(dialer, "subscribe", lambda data: voices.on_packet(data, clock()), clock, form)
    mouth = link(dialer, "publish", lambda data: None, clock, form)
    for each in (ear, mouth):
        opening = asyncio.create_task(each.open())
        if wire is not None:
            await wire.during(opening)
        await opening
    begin_s = clock.now_s
    blocks, played = [], 0
    for number, (packet, gap_s) in enumerate(zip(packets, gaps_s, strict=True)):
        clock.now_s += gap_s
        mouth.send_packet(packet)
        if wire is not None:
            await wire.pass_time(0.0)
        await until(lambda: voices.packets_arrived == number + 1, "it arrived")  # noqa: B023
        while played / form.sample_rate < clock.now_s - begin_s:
            blocks.append(voices.read(160, begin_s + played / form.sample_rate))
            played += 160
    for each in (mouth, ear):
        closing = asyncio.create_task(each.close())
        if wire is not None:
            await wire.during(closing)
        await closing
    return np.concatenate(blocks, axis=1)


# -- replays ----------------------------------------------------------------------------------------------------------


def test_the_window_takes_each_number_once_in_any_order() -> None:
    rng = np.random.default_rng(0)
    for first in (0, 65_400):
        window = SequenceWindow()
        numbers = np.arange(1000)
        shuffled = numbers[np.argsort(numbers + rng.uniform(0, WINDOW_PACKETS - 1, 1000))]
        taken = [window.take(int(first + n) % 65_536, ordered=False) for n in np.repeat(shuffled, 2)]
        assert taken == [True, False] * 1000
        assert not window.take(int(first + 999 - WINDOW_PACKETS) % 65_536, ordered=False)  # too old to know
        assert window.take((first + 30_000) % 65_536, ordered=False)  # far ahead: what was before is forgotten
        assert not window.take((first + 29_999 - WINDOW_PACKETS) % 65_536, ordered=False)
        assert window.take((first + 29_999) % 65_536, ordered=False)
        assert not window.take((first + 29_998) % 65_536, ordered=True)  # new, but where order is kept no accident


async def test_a_replay_is_never_heard_and_ends_no_call_that_does_not_keep_order() -> None:
    came: list[int] = []
    wire = MemoryWire(NetworkModel(base_ms=1.0))
    ear = await opened(wire, "subscribe", lambda data: came.append(read_header(data).sequence))
    mouth = await opened(wire, "publish")
    for number in (500, 502, 501, 500, 501, 502, 503, 200, 502):
        mouth.send_packet(voice(number))
        await wire.pass_time(FRAME_S)
    assert came == [500, 502, 501, 503]
    assert counted(wire.relay, "packets_replayed") == 5
    assert mouth.connected
    for each in (mouth, ear):
        await wire.during(asyncio.create_task(each.close()))


# -- late voice -------------------------------------------------------------------------------------------------------


def ages(arrivals: list[tuple[int, float]]) -> list[bool]:
    age = VoiceAge(FRAME_S)
    return [age.is_late(timestamp, now_s) for timestamp, now_s in arrivals]


def test_after_an_outage_only_what_can_still_be_used_is_passed_on() -> None:
    """Three seconds, then all at once, at the speed of a network."""
    arrivals = [(n, n * FRAME_S) for n in range(75)]
    arrivals += [(75 + n, 4.0 + 0.0001 * n) for n in range(225)]
    arrivals += [(300 + n, 4.0 + (n + 2) * FRAME_S) for n in range(75)]
    late = ages(arrivals)
    assert late == [False] * 75 + [True] * late.count(True) + [False] * (300 - late.count(True))
    assert late.count(True) == pytest.approx(225 - 30, abs=3)


@pytest.mark.parametrize("speed", [1.5, 2.0, 5.0])
def test_a_backlog_that_comes_slowly_is_dropped_to_its_end(speed: float) -> None:
    arrivals = [(n, n * FRAME_S) for n in range(75)]
    arrivals += [(75 + n, 3.0 + n * FRAME_S / speed) for n in range(600)]
    late = ages(arrivals)
    oldest_s = max(now_s - n * FRAME_S for (n, now_s), is_late in zip(arrivals, late, strict=True) if not is_late)
    assert oldest_s < 0.45
    assert not any(late[-50:])


def test_timestamps_that_stood_still_cost_next_to_nothing() -> None:
    """A caller that says nothing for a minute and does not count that: its words are not a minute old."""
    arrivals = [(n, n * FRAME_S) for n in range(75)] + [(75 + n, 61.0 + n * FRAME_S) for n in range(75)]
    assert sum(ages(arrivals)) <= 3


def test_a_slow_clock_and_a_slower_way_are_no_reason_to_drop() -> None:
    slow = [(n, n * FRAME_S * 1.0005) for n in range(75 * 3600)]
    assert not any(ages(slow))
    longer = [(n, n * FRAME_S + (0.0 if n < 75 else 0.35)) for n in range(750)]
    assert not any(ages(longer))


def test_a_sender_that_is_slower_than_real_time_loses_nothing() -> None:
    assert not any(ages([(n, n * FRAME_S * 1.5) for n in range(750)]))


async def test_old_voice_after_an_outage_is_counted_and_not_heard() -> None:
    clock = FakeClock()
    async with (
        running(clock=clock) as relay,
        seated(relay, "subscribe") as (ear, _),
        seated(relay, "publish") as (mouth, _),
    ):
        await mouth.send(voice(0))
        assert read_header(await heard(ear)).sequence == 0
        clock.now_s += 6.0
        for sequence in range(1, 451):
            await mouth.send(voice(sequence))
        for sequence in range(420, 451):
            assert read_header(await heard(ear)).sequence == sequence
        assert counted(relay, "packets_late") == 419
        assert counted(relay, "packets_out") == 32
        clock.now_s += 6.0
        await mouth.send(voice(451))
        await mouth.send(voice(452, end=True))
        assert read_header(await heard(ear)).sequence == 452  # that nothing follows is news at any age
        assert counted(relay, "packets_late") == 420
