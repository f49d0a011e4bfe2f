"""Sound cards: choosing, rates and channels, waiting, and counting what goes wrong."""

import threading
import time

import numpy as np
import pytest
from device_kit import Clock, FakeBackend

from streaming_encodec.audio.devices.card import Margin, SoundCard
from streaming_encodec.audio.devices.devices import Device, choose_shape, find_device
from streaming_encodec.audio.devices.ring import SampleRing
from streaming_encodec.errors import DeviceError


def tone(count: int, rate: int, channels: int = 1) -> np.ndarray:
    return np.sin(2 * np.pi * 440 * np.arange(count) / rate).astype(np.float32)[:, None].repeat(channels, 1)


def test_devices_are_found_by_default_number_and_name(backend: FakeBackend) -> None:
    assert find_device(backend.all, "input", None).index == 0
    assert find_device(backend.all, "output", None).index == 1
    assert find_device(backend.all, "output", "2").index == 2
    assert find_device(backend.all, "output", 2).index == 2
    assert find_device(backend.all, "output", "headset").index == 2


def test_a_wrong_name_says_what_there_is(backend: FakeBackend) -> None:
    with pytest.raises(DeviceError, match="'bluetooth'; there are 0: Built-in Microphone, 2: USB Headset"):
        find_device(backend.all, "input", "bluetooth")
    with pytest.raises(DeviceError, match="several audio output devices match 's'"):
        find_device(backend.all, "output", "s")
    with pytest.raises(DeviceError, match="there is no audio input device: plug in a microphone"):
        find_device(backend.all[1:2], "input", None)


@pytest.mark.parametrize("rates", [(24_000, 48_000), (48_000,), (44_100,), (16_000,)])
def test_the_models_rate_is_taken_if_it_can_be_had(backend: FakeBackend, rates: tuple[int, ...]) -> None:
    backend.rates = rates
    assert choose_shape(backend, backend.all[2], "output", 24_000)[0] == rates[0]


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_a_device_is_opened_with_as_few_channels_as_it_takes(backend: FakeBackend, channels: int) -> None:
    backend.all = [Device(0, "Interface", "Fake", 8, 8, 48_000)]
    backend.channels = channels
    assert choose_shape(backend, backend.all[0], "input", 24_000) == (24_000, channels)
    card = SoundCard(24_000, backend=backend, clock=Clock())
    block = np.zeros((240, channels), np.float32)
    block[:, :2] = 0.5
    backend.stream("input").turn(block)
    np.testing.assert_allclose(card.read(), 0.5)  # as loud as said, however many inputs are silent
    card.write(np.ones((1, 240), np.float32))
    backend.stream("output").turn(240)
    assert backend.stream("output").heard[0].all()


def test_a_device_that_refuses_every_rate_says_so(backend: FakeBackend) -> None:
    backend.rates = ()
    with pytest.raises(DeviceError, match=r"refuses 24000, 48000, .*Invalid sample rate.*close other programs"):
        SoundCard(24_000, backend=backend)


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
def test_sound_passes_at_any_rate(backend: FakeBackend, rate: int) -> None:
    """A tone into the microphone is that tone at 24 kHz; a tone for the speaker is it at the card's rate."""
    backend.rates = (rate,)
    card = SoundCard(24_000, backend=backend, clock=Clock())
    block = rate // 100
    sound = tone(50 * block, rate)
    for i in range(50):
        backend.stream("input").turn(sound[i * block : (i + 1) * block])
    heard = card.read()[0]
    assert len(heard) == pytest.approx(12_000, abs=2)
    delay = round(card._microphone.resampler.delay_ms * 24)  # type: ignore[union-attr]
    np.testing.assert_allclose(heard[delay + 100 :], tone(12_000, 24_000)[100 : len(heard) - delay, 0], atol=0.07)
    card.write(tone(4_800, 24_000).T)
    assert card.queued_s == pytest.approx(0.2, abs=0.001)
    speaker = backend.stream("output")
    speaker.turn(round(0.2 * rate) - 2)
    np.testing.assert_allclose(speaker.heard[0][:, 0].std(), 0.707, atol=0.02)
    assert (speaker.heard[0] == speaker.heard[0][:, :1]).all()
    assert card.counts.underruns == card.counts.overruns == 0


def test_what_is_missing_is_silence_counted_and_answered_with_a_longer_margin(backend: FakeBackend) -> None:
    card = SoundCard(24_000, backend=backend, clock=Clock())
    speaker = backend.stream("output")
    speaker.turn(256)  # before anything was written nothing is missing
    assert card.counts.underruns == 0
    assert not speaker.heard[0].any()
    before = card.target_s
    card.write(np.ones((1, 300), np.float32))
    speaker.turn(256)
    speaker.turn(256)
    card.maintain()
    assert card.counts.underruns == 1
    assert speaker.heard[2][:44].all()
    assert not speaker.heard[2][44:].any()
    assert card.target_s > before
    for _ in range(100):
        speaker.turn(256)
        card.maintain()
    assert card.target_s < 0.08


@pytest.mark.parametrize(
    ("block", "frame", "odd", "less"),
    [(256, 320, 0, 64), (240, 320, 0, 80), (320, 320, 0, 320), (512, 320, 0, 64), (256, 320, 100, 28)],
)
def test_a_frame_is_begun_as_late_as_whole_blocks_allow(
    backend: FakeBackend, block: int, frame: int, odd: int, less: int
) -> None:
    """Blocks and frames have a length in common; less than a block, less that length, is never waiting by halves.

    What is written besides, once, moves all that will wait by what it is more than multiples of that length.
    """
    clock = Clock()
    card = SoundCard(24_000, backend=backend, clock=clock)
    speaker = backend.stream("output")
    margin_s = Margin().seconds
    card.write(np.ones((1, frame), np.float32))
    card.write(np.ones((1, odd), np.float32), usual=False)
    speaker.turn(block)
    assert card.target_s == pytest.approx(margin_s + (block - less) / 24_000)
    # Made at the very last moment, without a margin, every block is whole all the same.
    before = card.counts.underruns
    for _ in range(200):
        clock.now += block / 24_000
        while card.ahead_s is not None and card.ahead_s <= card.target_s - margin_s + 1e-9:
            card.write(np.ones((1, frame), np.float32))
        speaker.turn(block)
    assert card.counts.underruns == before
    assert all(heard.all() for heard in speaker.heard[-200:])


def test_what_was_cut_by_chance_has_nothing_in_common(backend: FakeBackend) -> None:
    card = SoundCard(24_000, backend=backend, clock=Clock())
    for count in (320, 317):
        card.write(np.ones((1, count), np.float32))
        backend.stream("output").turn(256)
    assert card.target_s == pytest.approx(Margin().seconds + 255 / 24_000)


def test_a_minute_without_underruns_takes_a_millisecond_back() -> None:
    margin = Margin()
    first = margin.seconds
    margin.update(100.0, 1)
    taught = margin.seconds
    margin.update(159.0, 1)
    assert margin.seconds == taught > first
    for minute in range(1, 20):
        margin.update(100.0 + 61.0 * minute, 1)
    assert margin.seconds == first


def test_how_far_ahead_falls_with_the_clock_and_not_in_steps(backend: FakeBackend) -> None:
    clock = Clock()
    card = SoundCard(24_000, backend=backend, clock=clock)
    speaker = backend.stream("output")
    card.write(np.ones((1, 720), np.float32))
    speaker.turn(240)
    assert card.queued_s == pytest.approx(0.020)
    assert card.ahead_s == pytest.approx(0.030)  # the next block is taken in 10 ms
    clock.now += 0.004
    assert card.ahead_s == pytest.approx(0.026)
    clock.now += 0.050  # the card is late: what waits still waits
    assert card.ahead_s == pytest.approx(0.020)
    speaker.turn(240)
    assert card.ahead_s == pytest.approx(0.020)


def test_waiting_ends_when_what_is_waited_for_is_there(backend: FakeBackend) -> None:
    card = SoundCard(24_000, backend=backend, clock=Clock())

    def waits(seconds: float, samples: int) -> bool:
        begin = time.monotonic()
        card.wait(seconds, samples)
        return time.monotonic() - begin >= 0.9 * seconds

    def block() -> None:
        backend.stream("input").turn(np.zeros((240, 1), np.float32))

    for _ in range(5):  # nobody waits yet
        block()
    assert not waits(60.0, 1200)
    card.read()
    assert waits(0.05, 1)
    timer = threading.Timer(0.05, block)
    timer.start()
    assert waits(0.2, 320)  # one block is less than a frame
    timer = threading.Timer(0.05, block)
    timer.start()
    assert not waits(60.0, 320)
    assert card.has(480)
    assert not card.has(481)
    timer = threading.Timer(0.05, lambda: backend.stream("output").turn(240))
    timer.start()
    assert waits(0.2, 1000)  # the speaker wakes nobody


def test_the_two_threads_may_change_what_is_waited_for_at_any_moment(backend: FakeBackend) -> None:
    """The callback takes it away when it has rung, the waiting thread when it has waited long enough."""
    card = SoundCard(24_000, backend=backend, clock=Clock())
    side = card._microphone
    assert side is not None

    class Meddling(SampleRing):
        """While one thread looks how much there is, the other one acts."""

        def __len__(self) -> int:
            side.port.wake_at = None
            return super().__len__()

    side.port.ring = Meddling(12_000)
    begin = time.monotonic()
    card.wait(0.05, 320)
    assert time.monotonic() - begin >= 0.04
    side.port.wake_at = 320
    backend.stream("input").turn(np.zeros((400, 1), np.float32))
    assert card.has(400)


def test_the_wait_for_a_block_is_not_the_devices_latency(backend: FakeBackend) -> None:
    card = SoundCard(24_000, backend=backend, clock=Clock())
    backend.stream("input").turn(np.zeros((240, 1), np.float32), latency_s=0.015)
    assert card.input_latency_ms == pytest.approx(5.0)


def test_a_block_longer_than_all_others_is_forgotten(backend: FakeBackend) -> None:
    clock = Clock()
    card = SoundCard(24_000, backend=backend, clock=clock)

    def turn(block: int, times: int) -> None:
        for _ in range(times):
            clock.now += block / 24_000
            backend.stream("input").turn(np.zeros((block, 1), np.float32), latency_s=block / 24_000 + 0.005)
            backend.stream("output").turn(block)

    turn(240, 100)
    usual = card.target_s
    turn(2_400, 1)
    assert card.target_s == pytest.approx(usual + 0.090)
    turn(240, 500)  # for five seconds more it may come again
    assert card.target_s == pytest.approx(usual + 0.090)
    turn(240, 2_000)
    assert card.target_s == pytest.approx(usual)
    assert card.input_latency_ms == pytest.approx(5.0)


def test_what_finds_no_room_is_counted(backend: FakeBackend) -> None:
    card = SoundCard(24_000, backend=backend, clock=Clock())
    microphone = backend.stream("input")
    for _ in range(60):  # 0.6 s before anybody listens
        microphone.turn(np.zeros((240, 1), np.float32))
    assert card.counts.overruns == 0
    assert card.read().shape == (1, 12_000)
    for _ in range(60):  # 0.6 s that nobody reads
        microphone.turn(np.zeros((240, 1), np.float32))
    assert card.counts.overruns == 10
    microphone.turn(np.zeros((240, 1), np.float32), lost=True)
    assert card.counts.reported == 1
    assert card.read().shape == (1, 12_000)


def test_one_side_alone(backend: FakeBackend) -> None:
    card = SoundCard(24_000, backend=backend, use_input=False, clock=Clock())
    assert card.read().shape == (1, 0)
    assert list(card.names) == ["output"]
    card.close()
    assert not backend.stream("output").active


def test_a_device_that_cannot_be_had_leaves_none_open(backend: FakeBackend) -> None:
    with pytest.raises(DeviceError, match="no audio output device 'nowhere'"):
        SoundCard(24_000, backend=backend, output_device="nowhere")
    assert not any(stream.active for stream in backend.streams)
