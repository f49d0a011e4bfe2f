"""The receiving end as a pure object: packets in, decisions out, one clock handed in.

`Receiver.receive(data, now)` takes a packet; `Receiver.pull(now, queued_seconds)` says what to play next.
The same calls give the same answers (law 8), so a recorded call replays. Samples are `PcmPlayout`'s business.

A frame's delay is measured on the line of timestamps, ``clock - frame - base``, and compared with the
target of `DelayEstimator`. All decisions follow from it:

- the first frame is played once its delay has reached the target;
- a frame that is missing while later ones wait is concealed, and time goes on;
- when nothing waits (late? lost? nobody knows yet) a frame is made up and the place in the stream is kept:
if the
  frame comes after all it is played, delay having grown by what was made up; if later ones come instead,
  what was made up stands for the lost ones, and delay has not grown;
- delay off its target asks for shortening or stretching, and far off its target for both to hurry;
- after noise (DTX) any delay can be had at once, since noise may last as long as one likes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from streaming_encodec.errors import PacketError
from streaming_encodec.voice.buffer import BufferedFrame, FrameBuffer
from streaming_encodec.voice.delay import DelayEstimator, DelaySettings
from streaming_encodec.voice.statistics import ReceiverStatistics, ReportInterval
from streaming_encodec.wire.bits import IntArray
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.header import HEADER_BYTES
from streaming_encodec.wire.hello import StreamFormat
from streaming_encodec.wire.packet import parse_packet


class Kind(Enum):
    """What a frame of output is made from; in the order of the concealment ladder."""

    DECODE = "decode"
    REPEAT = "repeat"
    NOISE = "noise"
    SILENCE = "silence"


class Pace(Enum):
    """Whether the frames of one pull should become fewer or more samples."""

    KEEP = "keep"
    SHORTEN = "shorten"
    SHORTEN_FAST = "shorten fast"
    STRETCH = "stretch"


@dataclass(frozen=True, slots=True)
class PlayoutInstruction:
    """One frame to make.

    DECODE: ``codes`` int64 ``[K, 1]``; K may be less than usual (a relay cut it, or it is ``redundant``).
    REPEAT: the frame is lost; the decoder steps on its last latent. ``lost_frames`` counts from 1,
    ``gain`` is what is
        left of the loudness.
    NOISE: comfort noise; ``noise`` are the sender's levels (DTX), or None: the receiver's own estimate
    (``concealed``). SILENCE: nothing has come yet, or the stream has ended.
    reset: the decoder must begin afresh before this frame. pace: the same for all frames of one pull.
    spare_samples: how many may be left out (SHORTEN), so that delay does not fall below its target.
    following: codes of the next frames, as far as they are here and would be decoded after this one if nothing
    changes: a decoder may go through all in one step. The instructions to come will name them again, or not.
    """

    kind: Kind
    frame: int = 0
    codes: IntArray | None = None
    scale: float | None = None
    noise: tuple[int, ...] | None = None
    lost_frames: int = 0
    gain: float = 1.0
    concealed: bool = False
    redundant: bool = False
    reset: bool = False
    pace: Pace = Pace.KEEP
    spare_samples: int = 0
    following: tuple[IntArray, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """Habits of a receiver; frames are the stream's.

    repeat_frames: repeats before comfort noise takes over. repeat_decay: loudness kept from one repeat to
    the next. capacity_frames: the buffer's bound: 2 s at 75 frames a second.
    hurry_frames: excess delay above which shortening does not wait for quiet.
    shorten_above_frames, stretch_below_frames: how far delay may be off its target before time is bent. A pitch period,
    which is what is cut out, lasts up to a frame. together_frames: an instruction names so many frames at most, its own
    and those following.
    """

    delay: DelaySettings = field(default_factory=DelaySettings)
    repeat_frames: int = 5
    repeat_decay: float = 0.8
    capacity_frames: int = 150
    hurry_frames: float = 6.0
    shorten_above_frames: float = 0.75
    stretch_below_frames: float = 0.5
    together_frames: int = 1


class _State(Enum):
    WAITING = "waiting"
    PLAYING = "playing"
    QUIET = "quiet"


class Receiver:
    """Jitter buffer, concealment ladder and statistics of one sender's stream."""

    def __init__(self, stream_format: StreamFormat, settings: ReceiverSettings | None = None) -> None:
        self.format = stream_format
        self.settings = settings or ReceiverSettings()
        self.statistics = ReceiverStatistics()
        self.delay = DelayEstimator(stream_format.frame_seconds, self.settings.delay)
        self._buffer = FrameBuffer(self.settings.capacity_frames)
        self._state = _State.WAITING
        self._position = 0
        self._lost_frames = 0
        self._owed = 0  # frames made up while nothing waited, not yet known to be lost
        self._noise: tuple[int, ...] | None = None
        self._most_codebooks = 0
        self._last_transit: float | None = None
        self._report = ReportInterval()

    @property
    def buffered_frames(self) -> int:
        """Frames in waiting."""
        return len(self._buffer)

    @property
    def target_ms(self) -> float:
        """The delay aimed at, in milliseconds."""
        return 1000 * self.delay.target_frames * self.format.frame_seconds

    def receive(self, data: bytes, now: float) -> None:
        """Take one packet that came at ``now`` (seconds, any epoch, never going back).

        Raises PacketError for bytes that are no packet of this stream; the receiver is then as it was.
        """
        packet = parse_packet(data)
        self.format.check_packet(packet)
        stats = self.statistics
        result = self._buffer.insert(packet)
        stats.packets_lost = self._buffer.lost
        if result.duplicate:
            stats.duplicate_packets += 1
            return
        stats.packets_received += 1
        stats.bytes_received += len(data) - HEADER_BYTES
        stats.header_bytes_received += HEADER_BYTES
        stats.last_packet_received_timestamp = now
        stats.fec_packets_received += packet.redundancy is not None
        stats.restarts += result.restarted
        if result.restarted or result.after_outage:
            self.delay.restart()
            self._state, self._owed, self._last_transit = _State.WAITING, 0, None
        stats.packets_discarded += result.late - result.recalled
        if result.timestamp is None:
            return
        if packet.start and self._state is not _State.PLAYING and not result.late:
            # Speech after a pause, in which timestamps stood still: that was no stall of the network.
            self.delay.restart()
            self._last_transit = None
        clock = now / self.format.frame_seconds
        self.delay.arrived(result.timestamp, clock)
        if result.repaired is not None:
            # Redundancy helps only if playout waits for it, so what it repaired counts as having come now.
            self.delay.arrived(result.repaired, clock)
        self._update_jitter(clock - result.timestamp)
        self._most_codebooks = max(self._most_codebooks, packet.num_codebooks)

    def pull(self, now: float, queued_seconds: float = 0.0) -> list[PlayoutInstruction]:
        """What to make next; call it when the output runs short of samples.

        queued_seconds: sound made earlier that will be heard before this. Returns one frame, or several to
        be treated together where the pace is not KEEP. Never an empty list.
        """
        clock = (now + queued_seconds) / self.format.frame_seconds
        if self._state is _State.PLAYING:
            return self._play(clock)
        return self._wait(clock)

    def is_certain(self, frames: int, now: float, queued_seconds: float = 0.0) -> bool:
        """Whether that many pulls from now on decode one frame each that is here, at the pace of its sender.

        Who asks for them before they are due loses nothing by it: no packet to come could fill a gap.
        """
        if self._state is not _State.PLAYING or not self._have(frames):
            return False
        pace, _ = self._choose_pace((now + queued_seconds) / self.format.frame_seconds)
        return pace is Pace.KEEP

    def report(self, sender: int, now: float) -> Report:
        """How the stream arrived since the last report, for its sender."""
        return self._report.close(self.statistics, sender, now, self.target_ms)

    def note_stretch(self, samples: int) -> None:
        """`PcmPlayout` tells how many samples a pace added (positive) or took away (negative)."""
        if samples > 0:
            self.statistics.inserted_samples_for_deceleration += samples
        else:
            self.statistics.removed_samples_for_acceleration -= samples

    def _delay_of(self, frame: int, clock: float) -> float:
        return clock - frame - self.delay.base

    def _wait(self, clock: float) -> list[PlayoutInstruction]:
        """Before the first frame, and in a silence of the sender's: go on when the next frame is due."""
        frame = self._buffer.first()
        # In a silence the packet that says so is due at the same delay as the speech after it.
        while frame is not None and self._delay_of(frame, clock) >= self.delay.target_frames - 1e-6:
            entry = self._buffer.peek(frame)
            if entry is not None and entry.noise is None:
                self._state, self._position, self._owed = _State.PLAYING, frame, 0
                return self._play(clock)
            self._buffer.take(frame)
            if entry is not None:
                self._fall_quiet(entry)
            frame = self._buffer.first()
        if self._state is _State.QUIET:
            self.statistics.comfort_noise_samples += self.format.frame_samples
            return [PlayoutInstruction(Kind.NOISE, noise=self._noise)]
        return [PlayoutInstruction(Kind.SILENCE)]

    def _play(self, clock: float) -> list[PlayoutInstruction]:
        entry = self._buffer.peek(self._position)
        if entry is None and not self._leap(clock):
            return [self._conceal()]
        entry = self._buffer.peek(self._position)
        if entry is None:
            return [self._conceal()]
        if entry.noise is not None:
            self._buffer.take(self._position)
            self._fall_quiet(entry)
            return self._wait(clock)
        pace, count = self._choose_pace(clock)
        spare = self._spare_samples(clock) if pace is Pace.SHORTEN else 0
        return [self._decode(clock, pace, spare) for _ in range(count)]

    def _leap(self, clock: float) -> bool:
        """The frame at the position is missing: move to a later one, if that costs nothing."""
        frame = self._buffer.first()
        if frame is None:
            return False
        delay, target = self._delay_of(frame, clock), self.delay.target_frames
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
        stats, settings = self.statistics, self.settings
        self._lost_frames += 1
        stats.concealment_events += self._lost_frames == 1
        self._report.missing(self._lost_frames == 1)
        samples = self.format.frame_samples
        stats.concealed_samples += samples
        stats.total_samples_received += samples
        if len(self._buffer):
            self._position += 1
            self._buffer.drop_before(self._position)
        else:
            self._owed += 1
        if self._lost_frames <= settings.repeat_frames:
            gain = settings.repeat_decay**self._lost_frames
            return PlayoutInstruction(
                Kind.REPEAT, self._position, lost_frames=self._lost_frames, gain=gain, concealed=True
            )
        stats.silent_concealed_samples += samples
        return PlayoutInstruction(Kind.NOISE, self._position, lost_frames=self._lost_frames, concealed=True)

    def _decode(self, clock: float, pace: Pace, spare_samples: int) -> PlayoutInstruction:
        frame = self._position
        entry = self._buffer.take(frame)
        if entry is None or entry.codes is None:  # `_choose_pace` counted frames of codes that are here
            return self._conceal()
        self._position += 1
        self._lost_frames = 0
        self._owed = 0
        self._count_played(entry, max(0.0, self._delay_of(frame, clock)))
        if entry.end:
            self._state = _State.WAITING
        return PlayoutInstruction(
            Kind.DECODE,
            frame,
            codes=entry.codes,
            scale=entry.scale,
            redundant=entry.redundant,
            reset=entry.reset,
            pace=pace,
            spare_samples=spare_samples,
            following=() if entry.end else self._following(entry.codes.shape[0]),
        )

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

    def _choose_pace(self, clock: float) -> tuple[Pace, int]:
        """Which way to bend time, and over how many frames; only over whole runs of good frames."""
        excess = self._excess(clock)
        if excess > self.settings.hurry_frames:
            return self._run_of(Pace.SHORTEN_FAST, 4)
        if excess > self.settings.shorten_above_frames:
            return self._run_of(Pace.SHORTEN, 2)
        if excess < -self.settings.stretch_below_frames:
            return self._run_of(Pace.STRETCH, 1)
        return Pace.KEEP, 1

    def _excess(self, clock: float) -> float:
        """By how many frames delay is above its target."""
        return self._delay_of(self._position, clock) - self.delay.target_frames

    def _spare_samples(self, clock: float) -> int:
        """What may be left out: half way from the target to where delay would be stretched again."""
        least = self._excess(clock) + self.settings.stretch_below_frames / 2
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
        seconds = self.format.frame_seconds
        stats.total_samples_received += samples
        stats.jitter_buffer_emitted_count += samples
        stats.jitter_buffer_delay += delay_frames * seconds * samples
        stats.jitter_buffer_target_delay += self.delay.target_frames * seconds * samples
        stats.jitter_buffer_minimum_delay += self.settings.delay.minimum_frames * seconds * samples
        stats.redundant_frames_used += entry.redundant
        codebooks = 0 if entry.codes is None else entry.codes.shape[0]
        stats.reduced_frames += not entry.redundant and codebooks < self._most_codebooks

    def _fall_quiet(self, entry: BufferedFrame) -> None:
        self._state = _State.WAITING if entry.end else _State.QUIET
        self._noise = entry.noise
        self._lost_frames = 0
        self._owed = 0

    def _update_jitter(self, transit_frames: float) -> None:
        if self._last_transit is not None:
            change = abs(transit_frames - self._last_transit) * self.format.frame_seconds
            self.statistics.jitter += (change - self.statistics.jitter) / 16  # RFC 3550, 6.4.1
        self._last_transit = transit_frames


__all__ = ["Kind", "Pace", "PacketError", "PlayoutInstruction", "Receiver", "ReceiverSettings"]
