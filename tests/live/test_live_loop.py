"""The live loop on made-up sound cards and a made-up clock: delay, drift, a speaker that leaves, mute."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np
import pytest
from device_kit import FakeBackend

from streaming_encodec.audio.devices.card import Margin, SoundCard
from streaming_encodec.bench.simulated_call import made_up_voice, spell_number, spelled_number
from streaming_encodec.call.mixer import Mixer
from streaming_encodec.live.figures import BufferMeter, CallFigures, SpeakerTotals
from streaming_encodec.live.loop import LiveLoop
from streaming_encodec.live.meters import Delays, LevelMeter, percentile
from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.playout import DecodeRequest
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.packet import Packet, StreamFormat, serialize_packet

RATE, FRAME = 24_000, 320


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class SpellingDecoder:
    """A "codec" whose codes are frame numbers of a voice that is known."""

    def __init__(self, stream: StreamFormat) -> None:
        self.frames = made_up_voice(stream).reshape(-1, 1, FRAME)

    def open(self, speaker: int) -> None: ...

    def close(self, speaker: int) -> None: ...

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, np.ndarray]:
        number = {who: 0 if r.codes is None else spelled_number(r.codes) for who, r in requests.items()}
        return {who: self.frames[n % len(self.frames)] for who, n in number.items()}


class EchoLine:
    """Every frame that was said goes straight into the jitter buffer."""

    packet_samples = FRAME

    def __init__(self, clock: Clock, decode_s: float = 0.0) -> None:
        self.format = StreamFormat("0" * 32)
        delay = DelaySettings(minimum_frames=1, initial_frames=2, bins_per_frame=1, spare_frames=1)
        settings = ReceiverSettings(delay=delay, capacity_frames=40)
        self.mixer = Mixer(self.format, SpellingDecoder(self.format), settings)
        self._clock, self._meter, self._decode_s = clock, BufferMeter(), decode_s
        self.said = self.frames = 0
        self.loudest = 0.0
        self._observer: Callable[[bytes, float], object] = lambda packet, now_s: None

    def on_packet(self, observer: Callable[[bytes, float], object]) -> None:
        self._observer = observer

    def send(self, pcm: np.ndarray) -> None:
        self.said += pcm.shape[1]
        self.loudest = max(self.loudest, float(np.abs(pcm).max()))
        while self.said >= (self.frames + 1) * FRAME:
            packet = Packet(self.frames & 0xFFFF, self.frames, spell_number(self.frames, 8), start=self.frames == 0)
            self.mixer.receive(1, serialize_packet(packet), self._clock())
            self._observer(b"", self._clock())
            self.frames += 1

    def read_whole(self, count: int, now_s: float, *, certain: bool) -> np.ndarray | None:
        decoded = self.mixer.statistics[1].jitter_buffer_emitted_count if self.mixer.speakers else 0
        sound = self.mixer.read_whole(count, now_s, certain=certain)
        if self.mixer.speakers:
            decoded = self.mixer.statistics[1].jitter_buffer_emitted_count - decoded
            self._clock.now += self._decode_s * decoded / FRAME
        return sound

    def figures(self) -> CallFigures:
        every = list(self.mixer.statistics.values())
        return CallFigures(
            buffer_ms=self._meter.look(every),
            concealed_share=every[0].concealed_share if every else 0.0,
            skipped_frames=every[0].skipped_frames if every else 0,
        )


class Cards:
    """A microphone and a speaker with clocks of their own, called back in blocks of 256 samples."""

    def __init__(self, backend: FakeBackend, clock: Clock, microphone_ppm: float, speaker_ppm: float) -> None:
        self.backend, self.clock = backend, clock
        self.period = {
            "input": 256 / RATE / (1 + microphone_ppm * 1e-6),
            "output": 256 / RATE / (1 + speaker_ppm * 1e-6),
        }
        self.next = dict.fromkeys(self.period, clock.now)

    def until(self, now: float) -> None:
        for kind, period in self.period.items():
            while self.next[kind] <= now:
                self.next[kind] += period
                stream = self.backend.stream(kind)  # type: ignore[arg-type]
                if stream.active:
                    stream.turn(np.full((256, 1), 0.25, np.float32) if kind == "input" else 256)
                    stream.heard.clear()


AnyLine = TypeVar("AnyLine", bound=EchoLine)


def live_loop(card: SoundCard, line: EchoLine, clock: Clock) -> LiveLoop:
    return LiveLoop(card, line, line, line.figures, clock=clock)


def scene(
    make_line: Callable[[Clock], AnyLine], microphone_ppm: float = 0.0, speaker_ppm: float = 0.0
) -> tuple[Clock, FakeBackend, SoundCard, AnyLine, LiveLoop, Cards]:
    """A loop between cards that call back and a line, and all that it is made of."""
    clock, backend = Clock(), FakeBackend()
    card, line = SoundCard(RATE, backend=backend, clock=clock), make_line(clock)
    cards = Cards(backend, clock, microphone_ppm, speaker_ppm)
    return clock, backend, card, line, live_loop(card, line, clock), cards


def call(
    seconds: float, microphone_ppm: float = 0.0, speaker_ppm: float = 0.0
) -> tuple[LiveLoop, EchoLine, list[Delays]]:
    clock, _, _, line, loop, cards = scene(EchoLine, microphone_ppm, speaker_ppm)
    begin, delays, look = clock.now, [], 0.0
    while (passed := clock.now - begin) < seconds:
        clock.now += 0.004
        cards.until(clock.now)
        loop.step()
        if passed >= look:
            look += 0.5
            delays.append(loop.delays())
    return loop, line, delays


def test_on_good_cards_nothing_is_lost_and_the_delay_is_short() -> None:
    loop, line, delays = call(10.0)
    counts = loop.card.counts
    assert (counts.underruns, counts.overruns, counts.reported) == (0, 0, 0)
    assert line.figures().concealed_share < 0.01
    assert 30 < delays[-1].total_ms < 80
    assert loop.input_level.peak_db == pytest.approx(-12, abs=0.1)
    assert loop.output_level.peak_db > -30


@pytest.mark.parametrize("ppm", [3000.0, -3000.0])
def test_two_clocks_that_drift_apart_do_not_move_the_delay(ppm: float) -> None:
    """3000 ppm for half a minute is 100 ppm for a quarter of an hour: 90 ms, absorbed by the playout."""
    loop, line, delays = call(30.0, microphone_ppm=ppm / 2, speaker_ppm=-ppm / 2)
    early = np.mean([d.total_ms for d in delays[10:20]])
    late = np.mean([d.total_ms for d in delays[-10:]])
    assert abs(late - early) < 20
    assert loop.card.counts.overruns == 0
    assert loop.card.counts.underruns <= 2
    assert line.figures().concealed_share < 0.02
    statistics = line.mixer.statistics[1]
    stretched = statistics.inserted_samples_for_deceleration - statistics.removed_samples_for_acceleration
    assert stretched * np.sign(ppm) < -500  # a fast microphone is played faster


def test_bent_time_leaves_frames_and_blocks_their_common_length() -> None:
    """64 samples: what is written besides whole frames shifts what waits, and frames are not due earlier for good."""
    clock, _, card, line, loop, cards = scene(EchoLine, microphone_ppm=3000.0, speaker_ppm=-3000.0)
    usual = Margin().seconds + (256 - 64) / RATE
    while clock.now < 110:
        clock.now += 0.004
        cards.until(clock.now)
        loop.step()
    assert card.counts.underruns == 0
    assert line.mixer.statistics[1].removed_samples_for_acceleration % 64 != 0
    shift = round((card.queued_s or 0.0) * RATE) % 64
    assert shift > 0
    assert card.target_s == pytest.approx(usual + shift / RATE)


class Timed(SoundCard):
    """Notes how long each frame that is written will wait for the card to take it, blocks of 256 samples, and for its
    place in that block to be played, from when it was due: what was made before waits as long again."""

    cards: Cards | None = None
    waits_ms: list[float]

    def write(self, pcm: np.ndarray, *, usual: bool = True) -> None:
        if self.cards is not None:
            blocks, place = divmod(round((self.queued_s or 0.0) * RATE), 256)
            early = max(0.0, (self.ahead_s or 0.0) - self.target_s)
            taken_s = self.cards.next["output"] - self._clock() + blocks * self.cards.period["output"]
            self.waits_ms.append(1000 * (taken_s + place / RATE - early))
        super().write(pcm, usual=usual)


def test_one_long_block_does_not_show_as_delay_for_ever() -> None:
    """A block of ten, once: the card's hiccup, whose trace must not stay in what is shown."""
    clock, backend = Clock(), FakeBackend()
    card = Timed(RATE, backend=backend, clock=clock)
    loop = live_loop(card, EchoLine(clock), clock)
    cards = card.cards = Cards(backend, clock, 0, 0)

    def turn(seconds: float) -> tuple[Delays, float]:
        card.waits_ms, end = [], clock.now + seconds
        while clock.now < end:
            clock.now += 0.001
            cards.until(clock.now)
            loop.step()
        return loop.delays(), float(np.mean(card.waits_ms))

    before, waited = turn(10.0)
    backend.stream("output").turn(2560)
    backend.stream("input").turn(np.zeros((2560, 1), np.float32))
    after, waits = turn(60.0)
    assert after.speaker_ms - before.speaker_ms == pytest.approx(waits - waited, abs=1.0)
    assert after.speaker_ms - before.speaker_ms < 10  # an underrun has taught a longer margin
    assert after.microphone_ms == before.microphone_ms


def test_while_the_speaker_is_away_the_call_goes_on() -> None:
    clock, backend, card, line, loop, cards = scene(EchoLine)
    speaker = backend.all.pop(1)
    backend.all.pop(1)
    lost_at = clock.now + 1.0
    for _ in range(3000):
        clock.now += 0.004
        if clock.now > lost_at:
            backend.stream("output").active = backend.stream("output").active and speaker in backend.all
        if clock.now > lost_at + 5 and speaker not in backend.all:
            backend.all.append(speaker)
        cards.until(clock.now)
        loop.step()
    assert card.counts.lost_devices == 1
    assert card.counts.revived_devices == 1
    assert card.lost == ()
    assert line.mixer.statistics[1].concealed_share < 0.1
    assert line.figures().buffer_ms < 150  # what was said meanwhile is not played late


def test_on_a_machine_too_slow_what_is_far_behind_is_left_out_and_delay_stays_bounded() -> None:
    """Decoding a frame takes half as long again as it lasts."""
    clock, _, card, line, loop, cards = scene(partial(EchoLine, decode_s=0.020))
    begin, delays = clock.now, []
    while clock.now - begin < 40:
        clock.now += 0.004
        cards.until(clock.now)
        loop.step()
        delays.append(loop.delays().buffer_ms)
    assert line.figures().skipped_frames > 500
    assert card.counts.underruns > 100
    assert max(delays) < 700


class Resting(SoundCard):
    """Notes for how long the loop wants to sleep; its speaker takes nothing but the time that the test says."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(RATE, backend=FakeBackend(), clock=clock)
        self.rests: list[tuple[float, int]] = []
        self.passed_s = 0.0

    @property
    def ahead_s(self) -> float | None:
        ahead_s = super().ahead_s
        return None if ahead_s is None else ahead_s - self.passed_s

    def wait(self, seconds: float, samples: int = 1) -> None:
        self.rests.append((seconds, samples))


def test_the_loop_sleeps_until_a_frame_is_due_or_one_is_to_be_said() -> None:
    clock = Clock()
    card = Resting(clock)
    line = EchoLine(clock)
    read_whole = line.read_whole
    line.read_whole = lambda count, now_s, certain: (  # type: ignore[method-assign,assignment]  # as if all were late
        None if certain else read_whole(count, now_s, certain=False)
    )
    loop = live_loop(card, line, clock)
    loop.run(lambda: len(card.rests) == 1)
    made = card.queued_s or 0.0
    assert made >= card.target_s - 1e-9
    due_s = made - card.target_s
    assert due_s > 0.001
    assert card.rests[0] == (pytest.approx(due_s), FRAME)
    # When it is due and not here it is waited for, so long as the card's margin and the time that it takes allow.
    loop._slowest_s = 0.001
    card.passed_s += due_s + 0.0001
    loop.run(lambda: len(card.rests) == 2)
    assert (card.queued_s or 0.0) == made
    assert card.rests.pop()[0] == pytest.approx(0.005, abs=0.0002)
    card.passed_s += 0.005
    loop.run(lambda: len(card.rests) == 2)
    assert (card.queued_s or 0.0) > made  # then it is made up
    card.rests.pop()
    microphone = card._backend.stream("input")  # type: ignore[attr-defined]
    microphone.turn(np.zeros((200, 1), np.float32))
    loop.step()
    assert line.said == 0  # not a whole frame yet
    microphone.turn(np.zeros((200, 1), np.float32))
    loop.step()
    assert line.said == FRAME
    loop.run(lambda: len(card.rests) == 2)
    assert card.rests[1][1] == FRAME - 80  # the rest of the last block is a part of the next frame


class Counted(EchoLine):
    """Packets of two frames; counts how often it is read, and for how much."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.packet_samples = 2 * FRAME
        self.reads: list[int] = []

    def read_whole(self, count: int, now_s: float, *, certain: bool) -> np.ndarray | None:
        sound = super().read_whole(count, now_s, certain=certain)
        if sound is not None:
            self.reads.append(count)
        return sound


def test_frames_that_are_here_are_made_together_and_lose_nothing_by_it() -> None:
    """Half as many steps of the decoder, and nothing is concealed that would have come."""
    clock, _, card, line, loop, cards = scene(Counted)

    def sleep(seconds: float, samples: int = 1) -> None:
        end = clock.now + seconds
        while clock.now < end and not card.has(samples):
            clock.now += 0.0005
            cards.until(clock.now)

    card.wait = sleep  # type: ignore[method-assign]
    begin = clock.now
    loop.run(lambda: clock.now - begin > 2)  # the delay settles
    line.reads, begin = [], clock.now
    loop.run(lambda: clock.now - begin > 10)
    made = sum(line.reads) / FRAME
    assert made == pytest.approx(750, abs=3)
    assert line.reads.count(2 * FRAME) > 0.9 * len(line.reads)
    assert line.mixer.statistics[1].concealed_share < 0.01
    assert card.counts.underruns <= 1
    assert 40 < loop.delays().total_ms < 110


def test_a_packet_that_arrives_wakes_the_loop() -> None:
    """Its frames are made at once: then neither a stall nor a late waking can delay them any more."""
    _, _, card, line, loop, _ = scene(EchoLine)
    wakeup = card._backend.wakeup  # type: ignore[attr-defined]
    loop.run(lambda: True)
    assert not wakeup.wait(0.0)
    line.send(np.zeros((1, FRAME), np.float32))
    assert wakeup.wait(0.0)


def test_a_late_frame_that_comes_while_the_card_can_wait_is_played() -> None:
    """Up to some milliseconds after it was due: nothing is made up in its place."""
    clock, _, card, line, loop, cards = scene(EchoLine)
    held: list[tuple[float, bytes]] = []
    receive = line.mixer.receive
    late_s = 0.0

    def hold(sender: int, data: bytes, now: float) -> None:
        held.append((now + late_s, data))

    line.mixer.receive = hold  # type: ignore[method-assign]
    loop._slowest_s = 0.0

    def turn(seconds: float) -> None:
        end = clock.now + seconds
        while clock.now < end:
            clock.now += 0.0005
            cards.until(clock.now)
            while held and held[0][0] <= clock.now:
                receive(1, held.pop(0)[1], clock.now)
            loop.step()

    turn(3.0)
    before = line.mixer.statistics[1].concealed_samples
    # As long as frames stay in the buffer: those that a block of the microphone had kept come after they were due.
    late_s = loop.delays().buffer_ms / 1000 - 0.002  # the mean of a second, and the clock steps by half a millisecond
    turn(0.2)
    assert line.mixer.statistics[1].concealed_samples == before
    assert card.counts.underruns == 0


def test_what_is_left_when_time_was_bent_goes_along_with_its_frame() -> None:
    """Kept for the next time, it would have each frame after it wanted so much before it is played."""
    clock, _, _, line, loop, cards = scene(EchoLine)
    for _ in range(5000):
        clock.now += 0.004
        cards.until(clock.now)
        loop.step()
        assert not any(voice.queued_samples for voice in line.mixer._voices.values())
    assert line.mixer.statistics[1].removed_samples_for_acceleration > 0


def test_muted_the_stream_goes_on_in_silence() -> None:
    clock, backend = Clock(), FakeBackend()
    line = EchoLine(clock)
    loop = live_loop(SoundCard(RATE, backend=backend, clock=clock), line, clock)
    loop.muted = True
    backend.stream("input").turn(np.ones((480, 1), np.float32))
    loop.step()
    assert line.said == 320  # a whole frame, the rest with the next
    backend.stream("input").turn(np.ones((160, 1), np.float32))
    loop.step()
    assert line.said == 640
    assert line.loudest == 0.0
    assert loop.input_level.peak_db == 0.0


def test_the_loop_stops_when_told_and_gives_the_interpreter_back() -> None:
    import sys

    clock, before, turns = Clock(), sys.getswitchinterval(), []
    loop = live_loop(SoundCard(RATE, backend=FakeBackend(), clock=clock), EchoLine(clock), clock)
    loop.run(lambda: len(turns) == 3, lambda: turns.append(sys.getswitchinterval()))
    assert max(turns) <= 0.0011
    assert sys.getswitchinterval() == before


def test_meters() -> None:
    meter = LevelMeter(RATE)
    meter.add(np.full((1, 240), 0.1, np.float32))
    assert meter.peak_db == pytest.approx(-20)
    meter.add(np.zeros((1, RATE), np.float32))
    assert meter.peak_db == pytest.approx(-40)
    assert percentile([], 95) == 0
    assert percentile(list(range(101)), 95) == 95
    assert Delays(1, 2, 3, 4, 5, 6, 7, 8).total_ms == 36
    assert list(Delays(1, 2, 3, 4, 5, 6, 7, 8).parts()) == [
        "microphone", "echo", "packet", "encode", "network", "buffer", "decode", "speaker",
    ]  # fmt: skip
    buffer, totals = BufferMeter(), ReceiverStatistics()
    assert buffer.look([totals]) == 0
    totals.jitter_buffer_delay, totals.jitter_buffer_emitted_count = 9.6, 320
    assert buffer.look([totals]) == pytest.approx(30)
    assert buffer.look([]) == 0


def test_who_left_still_counts_in_the_totals() -> None:
    totals = SpeakerTotals()
    first = ReceiverStatistics(total_samples_received=900, concealed_samples=90, packets_lost=3, skipped_frames=2)
    second = ReceiverStatistics(total_samples_received=100, concealed_samples=10)
    assert totals.look([first]).packets_lost == 3
    first.packets_lost = 4  # what came after the last look
    for _ in range(2):
        both = totals.look([second])
        assert (both.packets_lost, both.skipped_frames, both.concealed_share) == (4, 2, 0.1)
    second.packets_lost = 1
    assert totals.look([second]).packets_lost == 5
    assert totals.look([]).packets_lost == 5
