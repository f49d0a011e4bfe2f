"""`VoiceEncoder` and `VoiceDecoder`: 20 ms in, a packet out, and back, through everything that telephony
does."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streaming_encodec
from streaming_encodec import EncodecModel, PacketError, StreamError, StreamingDecoder, StreamingEncoder
from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.call import voice_decoder, voice_encoder
from streaming_encodec.wire.packet import parse_packet

# Not "auto": exporting a model for ONNX Runtime takes longer than all of these tests.
# The numbers, which a call draws, are about to wrap.
VoiceEncoder = partial(voice_encoder.VoiceEncoder, engine="fused", first_sequence=65_530, first_timestamp=2**32 - 12)
VoiceDecoder = partial(voice_decoder.VoiceDecoder, engine="fused")
RATE = 24_000
TICK = 480  # 20 ms at 24 kHz


def voice(seconds: float, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 180 * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def ticks(sound: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(sound) - size + 1, size):
        yield sound[start : start + size]


def offline(model: EncodecModel, sound: np.ndarray) -> np.ndarray:
    return StreamingDecoder(model, engine="fused").push(StreamingEncoder(model, 6.0, engine="fused").push(sound))[0]


def call(encoder: voice_encoder.VoiceEncoder, decoder: voice_decoder.VoiceDecoder, sound: np.ndarray) -> np.ndarray:
    out = []
    for chunk in ticks(sound, encoder.frame_samples):
        for packet in encoder.encode(chunk):
            decoder.push(packet)
        out.append(decoder.pull(decoder.frame_samples))
    return np.concatenate(out)


def test_20_ms_give_a_packet_each_and_come_back_as_the_streams_give_them(model: EncodecModel) -> None:
    encoder = VoiceEncoder(RATE, model=model)
    decoder = VoiceDecoder(RATE, model=model, output="float32")
    sound = voice(1.0)
    packets = [encoder.encode(chunk) for chunk in ticks(sound, TICK)]
    assert {len(p) for p in packets} == {1}
    out = []
    for (packet,) in packets:
        decoder.push(packet)
        out.append(decoder.pull(TICK))
    heard, late = np.concatenate(out), 160
    assert decoder.delay_ms == pytest.approx(1000 * late / RATE)
    wanted = offline(model, sound)[: len(heard) - late]
    fade = 72  # the first 3 ms are led in from silence
    np.testing.assert_allclose(heard[late + fade :], wanted[fade:], atol=1e-6)
    assert not heard[:late].any()
    assert decoder.statistics.concealed_samples == 0


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_other_rates_keep_the_cadence_and_nothing_is_made_up(model: EncodecModel, rate: int) -> None:
    encoder, decoder = VoiceEncoder(rate, model=model), VoiceDecoder(rate, model=model, output="float32")
    heard = call(encoder, decoder, voice(0.6, rate))
    assert len(heard) == 30 * rate // 50
    assert decoder.statistics.concealed_samples == 0
    assert encoder.delay_ms + decoder.delay_ms < 13


def test_pulls_of_a_rounded_length_find_their_samples(model: EncodecModel) -> None:
    """20 ms at 11025 Hz are 220 samples and a half: what is pulled is no whole number of samples at 24 kHz."""
    encoder, decoder = VoiceEncoder(11_025, model=model), VoiceDecoder(11_025, model=model)
    assert encoder.frame_samples == decoder.frame_samples == 220
    assert decoder.delay_ms > 1000 * 319 / RATE
    call(encoder, decoder, voice(2.0, 11_025))
    assert decoder.statistics.concealed_samples == 0


def test_delay_is_what_is_reported(model: EncodecModel) -> None:
    """The stream's own sound, 160 samples late, through a resampler whose delay has its own test."""
    sound = voice(1.0)
    decoder = VoiceDecoder(16_000, model=model, output="float32")
    for packet in VoiceEncoder(RATE, model=model).encode(sound):
        decoder.push(packet)
    resampler, late = LowDelayResampler(RATE, 16_000), 160
    wanted = resampler.push(np.concatenate([np.zeros(late, np.float32), offline(model, sound)])[None])[0]
    np.testing.assert_allclose(decoder.pull(15_000)[300:], wanted[300:15_000], atol=1e-5)
    assert decoder.delay_ms == pytest.approx(1000 * late / RATE + resampler.delay_ms)


def test_bytes_int16_and_float_are_the_same_sound(model: EncodecModel) -> None:
    whole = np.rint(voice(0.2) * 32767).astype(np.int16)
    kinds = [
        whole,
        whole.astype("<i2").tobytes(),
        memoryview(whole.tobytes()),
        whole.astype(np.float64) / 32768,
    ]
    packets = [VoiceEncoder(RATE, model=model).encode(kind) for kind in kinds]
    assert all(p == packets[0] for p in packets)
    outputs = {}
    for form in ("int16", "float32", "bytes"):
        decoder = VoiceDecoder(RATE, model=model, output=form)
        for packet in packets[0]:
            decoder.push(packet)
        outputs[form] = decoder.pull(3000)
    assert outputs["int16"].dtype == np.int16
    assert outputs["bytes"] == outputs["int16"].astype("<i2").tobytes()
    np.testing.assert_allclose(outputs["float32"], outputs["int16"] / 32768, atol=1e-4)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=12))
def test_pulls_of_any_size_give_the_same_samples(model: EncodecModel, sizes: list[int]) -> None:
    packets = VoiceEncoder(RATE, model=model).encode(voice(0.5))

    def pulled(counts: list[int]) -> np.ndarray:
        decoder = VoiceDecoder(16_000, model=model, output="float32")
        for packet in packets:
            decoder.push(packet)
        return np.concatenate([decoder.pull(n) for n in counts])

    np.testing.assert_allclose(pulled(sizes), pulled([sum(sizes)]), atol=1e-5)


def test_decode_lost_keeps_step_with_the_sender(model: EncodecModel) -> None:
    """After the losses the sound is where it would have been without them, and none was heard twice."""
    sound = voice(1.2)
    encoder, decoder = VoiceEncoder(RATE, model=model), VoiceDecoder(RATE, model=model, output="float32")
    out = []
    for number, chunk in enumerate(ticks(sound, TICK)):
        (packet,) = encoder.encode(chunk)
        if number in (10, 13, 14, 21):
            out.append(decoder.decode_lost(TICK))
        else:
            decoder.push(packet)
            out.append(decoder.pull(TICK))
    heard, wanted = np.concatenate(out), offline(model, sound)
    assert {len(part) for part in out} == {TICK}
    assert decoder.statistics.concealed_samples == (2 + 1 + 2 + 1) * 320  # packets 10, 14 hold two frames
    np.testing.assert_allclose(heard[160 + 72 : 10 * TICK], wanted[72 : 10 * TICK - 160], atol=1e-6)
    # Long after the last loss the decoder has forgotten it: sample for sample in place.
    tail = slice(len(heard) - 4 * TICK, len(heard))
    shifted = wanted[tail.start - 160 : tail.stop - 160]
    assert np.abs(heard[tail] - shifted).max() < 0.1 * np.abs(shifted).max()


def test_gaps_are_filled_by_themselves_and_redundancy_saves_them(model: EncodecModel) -> None:
    sound = voice(0.6)
    encoder = VoiceEncoder(RATE, model=model, redundant_frames=4)
    decoder = VoiceDecoder(RATE, model=model)
    packets = [p for chunk in ticks(sound, TICK) for p in encoder.encode(chunk)]
    assert parse_packet(packets[9]).redundancy.shape == (2, 4)  # type: ignore[union-attr]
    for number, packet in enumerate(packets):
        if number != 12:
            decoder.push(packet)
    decoder.pull(len(sound) - 320)
    assert decoder.statistics.redundant_frames_used == parse_packet(packets[12]).num_frames
    assert decoder.statistics.concealed_samples == 0


def test_when_nothing_comes_the_voice_fades_and_the_place_is_kept(model: EncodecModel) -> None:
    packets = VoiceEncoder(RATE, model=model).encode(voice(0.4))
    decoder = VoiceDecoder(RATE, model=model, output="float32")
    decoder.push(packets[0])
    assert np.abs(decoder.pull(6 * 320)).max() > 0
    quiet = decoder.pull(RATE)[-4800:]
    assert np.abs(quiet).max() < 0.05
    decoder.push(packets[1])
    decoder.pull(8 * 320)
    assert decoder.statistics.packets_discarded == 0
    decoder.push(packets[1])  # an old one: its time is over
    assert decoder.statistics.packets_discarded == 1


def test_before_the_first_packet_there_is_silence(model: EncodecModel) -> None:
    decoder = VoiceDecoder(8000, model=model)
    assert not np.any(decoder.pull(160))
    assert decoder.statistics.concealed_samples == 0


def test_the_jitter_buffer_orders_what_the_network_mixed_up(model: EncodecModel) -> None:
    now = 0.0
    encoder = VoiceEncoder(RATE, model=model)
    decoder = VoiceDecoder(RATE, model=model, jitter_buffer=True, output="float32", clock=lambda: now)
    held: list[bytes] = []
    for number, chunk in enumerate(ticks(voice(2.0), TICK)):
        held += encoder.encode(chunk)
        if number % 3 == 2:  # they come three at a time, and backwards
            for packet in reversed(held):
                decoder.push(packet)
            held = []
        decoder.pull(TICK)
        now += 0.02
    share = decoder.statistics.concealed_samples / decoder.statistics.total_samples_received
    assert share < 0.1
    assert decoder.statistics.packets_lost == 0
    assert decoder.delay_ms > 30
    with pytest.raises(StreamError, match="finds losses by itself"):
        decoder.decode_lost(480)


def test_one_thread_pushes_while_another_pulls(model: EncodecModel) -> None:
    encoder = VoiceEncoder(RATE, model=model)
    packets = [p for chunk in ticks(voice(1.5), TICK) for p in encoder.encode(chunk)]
    decoder = VoiceDecoder(RATE, model=model, output="float32")

    def hand_over() -> None:
        for packet in packets:
            decoder.push(packet)

    thread = threading.Thread(target=hand_over)
    thread.start()
    heard = [decoder.pull(TICK) for _ in range(len(packets))]
    thread.join()
    assert {len(part) for part in heard} == {TICK}
    assert decoder.statistics.packets_received == len(packets)


def test_bandwidth_changes_in_mid_call_and_packets_hold_one_kind(model: EncodecModel) -> None:
    encoder = VoiceEncoder(RATE, model=model, bandwidth=6.0, frames_per_packet=4)
    packets = encoder.encode(voice(6 * 320 / RATE))  # a packet, and the half of one
    encoder.bandwidth = 1.5
    packets += encoder.encode(voice(7 * 320 / RATE))
    packets += encoder.flush()
    shapes = [parse_packet(p).codes.shape for p in packets]  # type: ignore[union-attr]
    assert shapes[:3] == [(8, 4), (2, 4), (2, 4)]
    assert {k for k, _ in shapes[1:]} == {2}
    assert sum(f for _, f in shapes) >= 8
    assert parse_packet(packets[-1]).end


def test_restart_is_heard_as_a_beginning_and_numbers_go_on(model: EncodecModel) -> None:
    encoder = VoiceEncoder(RATE, model=model, frames_per_packet=4)
    first = [parse_packet(p) for p in encoder.encode(voice(14 * 320 / RATE))]  # two frames' sound waits, and is dropped
    assert [p.start for p in first] == [True, False, False]
    encoder.restart()
    again = [parse_packet(p) for p in encoder.encode(voice(14 * 320 / RATE))]
    assert [p.start for p in again] == [True, False, False]
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.codes, other.codes)
        assert (other.sequence - one.sequence) % 2**16 == 3
        assert (other.timestamp - one.timestamp) % 2**32 == 12


def test_a_new_encoder_draws_its_numbers(model: EncodecModel) -> None:
    firsts = [
        parse_packet(voice_encoder.VoiceEncoder(RATE, model=model, engine="fused").encode(voice(0.02))[0]) for _ in "12"
    ]
    assert firsts[0].timestamp != firsts[1].timestamp


@pytest.mark.parametrize("jitter_buffer", [False, True])
@pytest.mark.parametrize("how", ["flush", "restart", "another encoder"])
@pytest.mark.parametrize("start_lost", [False, True])
def test_a_second_talk_is_heard_like_the_first(
    model: EncodecModel, jitter_buffer: bool, how: str, start_lost: bool
) -> None:
    now = 0.0
    encoder = VoiceEncoder(RATE, model=model)
    decoder = VoiceDecoder(RATE, model=model, jitter_buffer=jitter_buffer, clock=lambda: now)

    def talk(lost: int) -> None:
        nonlocal now
        for number in range(100):
            for packet in encoder.encode(voice(0.02)):
                if number >= lost:
                    decoder.push(packet)
            decoder.pull(TICK)
            now += 0.02

    talk(lost=0)
    if how == "restart":
        encoder.restart()
    else:
        for packet in encoder.flush():
            decoder.push(packet)
        for _ in range(10):
            decoder.pull(TICK)
            now += 0.02
    if how == "another encoder":  # it may have drawn numbers before the other's
        encoder = VoiceEncoder(RATE, model=model, first_sequence=40_000, first_timestamp=3 * 2**30)
    before = replace(decoder.statistics)
    talk(lost=start_lost)
    after = decoder.statistics
    played = after.total_samples_received - after.concealed_samples
    played -= before.total_samples_received - before.concealed_samples
    # Where numbers leap a jitter buffer waits for a second packet, and where they leap back without a word, for 25. The
    # one before the last of them is played after all.
    doubted = (25 if start_lost else 1) if jitter_buffer and how == "another encoder" else 0
    assert played > (1.95 - 0.1 * jitter_buffer - 0.02 * doubted) * RATE
    assert after.duplicate_packets == 0
    assert after.packets_discarded - before.packets_discarded == max(0, doubted - 1)


@pytest.mark.parametrize("ticks_said", [0, 4, 5])
def test_flush_says_that_nothing_follows(model: EncodecModel, ticks_said: int) -> None:
    """Also where no frame is owed, as after every second tick of 20 ms."""
    encoder, decoder = VoiceEncoder(RATE, model=model), VoiceDecoder(RATE, model=model, output="float32")
    packets = [p for chunk in ticks(voice(0.02 * ticks_said), TICK) for p in encoder.encode(chunk)] + encoder.flush()
    assert [parse_packet(p).end for p in packets] == [False] * (len(packets) - 1) + [True] * (ticks_said > 0)
    assert encoder.flush() == []  # nothing was sent since
    assert len(encoder.encode(voice(0.02))) == 1
    for packet in packets:
        decoder.push(packet)
    assert not decoder.pull(2 * RATE)[-RATE:].any()
    assert decoder.statistics.concealed_samples == 0


@pytest.mark.parametrize("pause", range(6))
def test_nothing_is_made_up_when_a_second_talk_begins(model: EncodecModel, pause: int) -> None:
    """Every pull finds its samples, wherever in a frame the pulls before have left off."""
    encoder, decoder = VoiceEncoder(RATE, model=model), VoiceDecoder(RATE, model=model, output="float32")
    call(encoder, decoder, voice(0.1))
    for packet in encoder.flush():
        decoder.push(packet)
    decoder.pull(pause * TICK)
    heard = call(encoder, decoder, voice(0.6))
    assert decoder.statistics.concealed_samples == 0
    if pause > 2:  # the first talk has died away: this one is as late as that was
        late, fade = 160, 72
        np.testing.assert_allclose(
            heard[late + fade :], offline(model, voice(0.6))[fade : len(heard) - late], atol=1e-4
        )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (b"abc", "odd number"),
        (np.zeros((2, 5), np.float32), "mono"),
        (np.zeros(5, np.int32), "int16 or floating"),
        (np.array([np.nan]), "NaN"),
        ([0.0, 1.0], "not list"),
    ],
)
def test_what_is_no_sound_is_refused_and_changes_nothing(model: EncodecModel, wrong: object, says: str) -> None:
    encoder, other = VoiceEncoder(RATE, model=model), VoiceEncoder(RATE, model=model)
    with pytest.raises(StreamError, match=says):
        encoder.encode(wrong)  # type: ignore[arg-type]
    assert encoder.encode(voice(0.1)) == other.encode(voice(0.1))


def test_settings_out_of_range_are_refused(model: EncodecModel) -> None:
    with pytest.raises(StreamError, match="1 to 6 frames"):
        VoiceEncoder(RATE, model=model, frames_per_packet=7)
    with pytest.raises(StreamError, match="redundancy has up to"):
        VoiceEncoder(RATE, model=model, redundant_frames=33)
    with pytest.raises(StreamError, match="output is one of"):
        VoiceDecoder(RATE, model=model, output="int24")  # type: ignore[arg-type]
    with pytest.raises(StreamError, match="frame_ms"):
        VoiceEncoder(RATE, 0, model=model)
    with pytest.raises(PacketError):
        VoiceDecoder(RATE, model=model).push(b"nonsense")


def test_the_names_are_at_the_top_of_the_package() -> None:
    assert streaming_encodec.VoiceEncoder is voice_encoder.VoiceEncoder
    assert streaming_encodec.VoiceDecoder is voice_decoder.VoiceDecoder
