"""The receiver with a jitter buffer, as a pure object: packets in, decisions out, the clock handed in.

`Receiver.receive(data, now_s)` takes a packet; `Receiver.pull(now_s, queued_s)` says what to play next.
The same calls give the same answers (law 8), so a recorded call replays. `PcmPlayout` makes samples of the answers.

A frame's delay is measured on the line of timestamps, ``clock - frame - base`` in frames, and compared with the target
of `DelayEstimator`. All decisions follow from it:

- The first frame is played once its delay has reached the target.
- A frame that is missing while later ones wait is concealed, and time goes on.
- When nothing waits, the next frame may be late or lost. A frame is made up and the place in the stream is kept.
  If the frame arrives after all, it is played, and delay has grown by what was made up. If later frames arrive
  instead, what was made up stands for the lost ones, and delay has not grown.
- Delay off its target asks for shortening or stretching; delay far above it, for shortening at once.
- After noise (DTX) any delay can be had at once, since noise may last as long as needed.
- Of a speaker who has left nothing more is expected: what waits is played, and nothing is made up after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streaming_encodec.types import IntArray
from streaming_encodec.voice.buffer import BufferedFrame, FrameBuffer
from streaming_encodec.voice.delay import DelayEstimator, DelaySettings, QueueMeter
from streaming_encodec.voice.ladder import ConcealmentLadder, Pace, PlayoutInstruction
from streaming_encodec.voice.statistics import ReceiverStatistics, ReportInterval
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.packet import StreamFormat, parse_packet


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """Settings of a receiver; frames are the stream's.

    repeat_frames: repeats of a lost frame before comfort noise takes over. Measured (docs/quality.md): 200 ms, when
        next to nothing is left of the decayed latent, is better than the 5 frames of old.
    noise_frames: how long the noise takes to fade to silence; 64 are 0.85 s at 75 frames a second. Nobody should listen
        for long to a noise that stands for nobody.
    capacity_frames: the most that the buffer holds; 2 s at 75 frames a second.
    hurry_frames: excess delay above which shortening does not wait for a quiet place.
    shorten_above_frames, stretch_below_frames: how far delay may be off its target before playout is shortened or
        stretched. A pitch period, which is what is left out or said twice, lasts up to a frame.
    together_frames: the most frames that an instruction names, its own and those following.
    """

    delay: DelaySettings = field(default_factory=DelaySettings)
    repeat_frames: int = 15
    noise_frames: int = 64
    capacity_frames: int = 150
    hurry_frames: float = 6.0
    shorten_above_frames: float = 0.75
    stretch_below_frames: float = 0.5
    together_frames: int = 1


class Receiver:
    """Jitter buffer of one sender's stream, on a concealment ladder."""

    def __init__(self, stream_format: StreamFormat, settings: ReceiverSettings | None = None) -> None:
        self.format = stream_format
        self.settings = settings or ReceiverSettings()
        self._frame_s = stream_format.frame_seconds
        self.statistics = ReceiverStatistics()
        self.delay = DelayEstimator(stream_format.frame_seconds, self.settings.delay)
        self._buffer = FrameBuffer(self.settings.capacity_frames)
        self._playing = False
        self._position = 0
        self._ladder = ConcealmentLadder(
            stream_format, self.statistics, self.settings.repeat_frames, self.settings.noise_frames
        )
        self._left = False
        self._owed = 0  # frames made up while nothing waited, not yet known to be lost
        self._most_codebooks = 0
        self._last_transit: float | None = None
        self._report = ReportInterval()
        self._queue = QueueMeter(stream_format.frame_seconds)

    @property
    def buffered_frames(self) -> int:
        """Frames that wait."""
        return len(self._buffer)

    @property
    def target_ms(self) -> float:
        """The delay aimed at, in milliseconds."""
        return 1000 * self.delay.target_frames * self._frame_s

    def receive(self, data: bytes, now_s: float) -> None:
        """Take one packet that arrived at ``now_s`` (any epoch, never going back).

        Raises PacketError for bytes that are no packet of this stream; the receiver is then as it was.
        """
        packet = parse_packet(data)
        self.format.check_packet(packet)
        stats = self.statistics
        result = self._buffer.insert(packet)
        stats.packets_lost = self._buffer.lost
        stats.holes, stats.missing_frames = self._buffer.holes, self._buffer.missing_frames
        if result.duplicate:
            stats.duplicate_packets += 1
            return
        stats.count_packet(packet, len(data), now_s)
        stats.restarts += result.restarted
        if result.restarted:
            self._queue.restart()
        if result.restarted or result.after_outage:
            self.delay.restart()
            self._playing, self._owed, self._last_transit = False, 0, None
            self._ladder.pause(None)
        stats.packets_discarded += result.late - result.recalled
        if result.timestamp is None:
            return
        if packet.start and not self._playing and not result.late:
            # Speech after a pause, in which timestamps stood still: that was no stall of the network.
            self.delay.restart()
            self._queue.restart()
            self._last_transit = None
        clock_frames = now_s / self._frame_s
        self.delay.on_packet(result.timestamp, clock_frames, packet.num_frames, noise=packet.noise is not None)
        # By its last frame: of a longer packet the first one has waited for longer at the sender.
        self._queue.on_packet(result.timestamp + packet.num_frames, clock_frames)
        if result.repaired is not None:
            self.delay.on_repair(result.repaired, clock_frames)
        self._update_jitter(clock_frames - result.timestamp)
        self._most_codebooks = max(self._most_codebooks, packet.num_codebooks)

    def pull(self, now_s: float, queued_s: float = 0.0) -> list[PlayoutInstruction]:
        """What to make next; call it when the output runs short of samples.

        queued_s: sound made earlier that will be heard before this.
        Returns one frame, or several to be treated together where the pace is not KEEP. Never an empty list.
        """
        clock_frames = (now_s + queued_s) / self._frame_s
        if self._left and not len(self._buffer):
            self._fall_silent()
        if self._playing:
            return self._play(clock_frames)
        return self._wait(clock_frames)

    def leave(self) -> None:
        """The speaker has left: what waits is still played, and nothing is made up after it.

        What was made up after the last frame stood for no voice: word of the leaving came late.
        """
        self._left = True
        if not len(self._buffer):
            self._fall_silent()

    def is_certain(self, frames: int, now_s: float, queued_s: float = 0.0) -> bool:
        """Whether that many pulls from now on decode one frame each that is here, at the sender's pace.

        Then they may be made before they are due: no packet that arrives in between could fill a gap.
        """
        if not self._playing or not self._have(frames):
            return False
        pace, _ = self._choose_pace((now_s + queued_s) / self._frame_s)
        return pace is Pace.KEEP

    @property
    def report_is_due(self) -> bool:
        """Whether there is news for the sender: a queue became much longer, or packets are lost as none was before."""
        return self._queue.has_grown or self._report.has_new_losses(self.statistics)

    def report(self, sender: int) -> Report:
        """How the stream arrived since the last report, for its sender."""
        queue_ms = 1000 * self._queue.close() * self._frame_s
        return self._report.close(self.statistics, sender, self.target_ms, queue_ms)

    def _delay_of(self, frame: int, clock_frames: float) -> float:
        return clock_frames - frame - self.delay.base

    def _wait(self, clock_frames: float) -> list[PlayoutInstruction]:
        """Before the first frame, and in a silence of the sender's: go on when the next frame is due."""
        frame = self._buffer.first()
        # In a silence the packet that says so is due at the same delay as the speech after it.
        while frame is not None and self._delay_of(frame, clock_frames) >= self.delay.target_frames - 1e-6:
            entry = self._buffer.peek(frame)
            if entry is not None and entry.noise is None:
                self._playing, self._position, self._owed = True, frame, 0
                return self._play(clock_frames)
            self._buffer.take(frame)
            if entry is not None:
                self._pause(entry)
            frame = self._buffer.first()
        return [self._ladder.rest()]

    def _play(self, clock_frames: float) -> list[PlayoutInstruction]:
        owed, place = self._owed, self._position
        entry = self._buffer.peek(place)
        if entry is None and self._leap(clock_frames):
            entry = self._buffer.peek(self._position)
        if entry is None:
            return [self._conceal()]
        if entry.noise is not None or entry.end:
            # More was made up than is missing: word that the sender pauses was late.
            self._ladder.take_back(owed - (self._position - place))
        if entry.noise is not None:
            self._buffer.take(self._position)
            self._pause(entry)
            return self._wait(clock_frames)
        pace, count = self._choose_pace(clock_frames)
        spare = self._spare_samples(clock_frames) if pace is Pace.SHORTEN else 0
        return [self._decode(clock_frames + place, pace, spare) for place in range(count)]  # played one after the other

    def _leap(self, clock_frames: float) -> bool:
        """The frame at the position is missing: move to a later one, if that costs nothing."""
        frame = self._buffer.first()
        if frame is None:
            return False
        delay, target = self._delay_of(frame, clock_frames), self.delay.target_frames
        if self._owed and delay < target / 2:
            return False  # after a dry spell, gather half the target before going on
        gap = frame - self._position
        free = min(self._owed, gap)
        self._owed = 0
        if delay > target + 1 or gap > self.settings.capacity_frames // 2:
            free = gap
        self.statistics.skipped_frames += free
        self._position += free
        self._buffer.drop_before(self._position)
        return self._position == frame

    def _conceal(self) -> PlayoutInstruction:
        if len(self._buffer):
            self._position += 1
            self._buffer.drop_before(self._position)
        else:
            self._owed += 1
        return self._ladder.conceal(self._position)

    def _decode(self, clock_frames: float, pace: Pace, spare_samples: int) -> PlayoutInstruction:
        frame = self._position
        entry = self._buffer.take(frame)
        if entry is None or entry.codes is None:  # `_choose_pace` counted frames of codes that are here
            return self._conceal()
        self._position += 1
        self._owed = 0
        self._count_played(entry, max(0.0, self._delay_of(frame, clock_frames)))
        self.statistics.last_played_frame = frame
        self.statistics.last_played_timestamp = clock_frames * self._frame_s
        if entry.end:
            self._playing = False
        following = () if entry.end else self._following(entry.codes.shape[0])
        return self._ladder.play(entry, frame, pace=pace, spare_samples=spare_samples, following=following)

    def _following(self, num_codebooks: int) -> tuple[IntArray, ...]:
        """Codes of the frames from the position on, while they are here and of the same kind."""
        found = []
        for frame in range(self._position, self._position + self.settings.together_frames - 1):
            entry = self._buffer.peek(frame)
            if entry is None or entry.codes is None or entry.reset or entry.codes.shape[0] != num_codebooks:
                break
            found.append(entry.codes)
            if entry.end:
                break
        return tuple(found)

    def _choose_pace(self, clock_frames: float) -> tuple[Pace, int]:
        """Which way to bend time, and over how many frames; only over whole runs of good frames."""
        excess = self._excess(clock_frames)
        if excess > self.settings.hurry_frames:
            return self._run_of(Pace.SHORTEN_FAST, 4)
        if excess > self.settings.shorten_above_frames:
            return self._run_of(Pace.SHORTEN, 2)
        if excess < -self.settings.stretch_below_frames:
            return self._run_of(Pace.STRETCH, 1)
        return Pace.KEEP, 1

    def _excess(self, clock_frames: float) -> float:
        """By how many frames delay is above its target."""
        return self._delay_of(self._position, clock_frames) - self.delay.target_frames

    def _spare_samples(self, clock_frames: float) -> int:
        """What may be left out: half way from the target to where delay would be stretched again."""
        least = self._excess(clock_frames) + self.settings.stretch_below_frames / 2
        return round(least * self.format.frame_samples)

    def _run_of(self, pace: Pace, count: int) -> tuple[Pace, int]:
        return (pace, count) if self._have(count) else (Pace.KEEP, 1)

    def _have(self, count: int) -> bool:
        """Whether the next so many frames are here, one run of sound."""
        for frame in range(self._position, self._position + count):
            entry = self._buffer.peek(frame)
            last = frame == self._position + count - 1
            if entry is None or entry.codes is None or (entry.end and not last):
                return False
            if entry.reset and frame > self._position:
                return False
        return True

    def _count_played(self, entry: BufferedFrame, delay_frames: float) -> None:
        stats, samples = self.statistics, self.format.frame_samples
        seconds = self._frame_s
        stats.jitter_buffer_emitted_count += samples
        stats.jitter_buffer_delay += delay_frames * seconds * samples
        stats.jitter_buffer_target_delay += self.delay.target_frames * seconds * samples
        stats.jitter_buffer_minimum_delay += self.settings.delay.minimum_frames * seconds * samples
        codebooks = 0 if entry.codes is None else entry.codes.shape[0]
        stats.reduced_frames += not entry.redundant and codebooks < self._most_codebooks

    def _fall_silent(self) -> None:
        """Nothing follows the last frame: what was made up since stood for nothing."""
        self._playing, self._owed = False, 0
        self._ladder.take_back()
        self._ladder.pause(None)

    def _pause(self, entry: BufferedFrame) -> None:
        self._playing, self._owed = False, 0
        self._ladder.pause(entry)

    def _update_jitter(self, transit_frames: float) -> None:
        if self._last_transit is not None:
            change = abs(transit_frames - self._last_transit) * self._frame_s
            self.statistics.jitter += (change - self.statistics.jitter) / 16  # RFC 3550, 6.4.1
        self._last_transit = transit_frames
