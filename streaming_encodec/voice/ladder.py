"""The concealment ladder: what is played for one frame, and how it is counted.

From the best to the least: the frame's own codes, codes from redundancy, repeats of the last frame that grow softer,
comfort noise that fades, silence. Two receivers decide which frame is next, and ask this what to do about it:
`Receiver`, which has a jitter buffer, and `InOrderReceiver`, for hosts that have one of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from streaming_encodec.types import IntArray
from streaming_encodec.voice.buffer import BufferedFrame
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.packet import StreamFormat


class Kind(Enum):
    """What a frame of output is made from, in the order of the ladder."""

    DECODE = "decode"
    REPEAT = "repeat"
    NOISE = "noise"
    SILENCE = "silence"


class Pace(Enum):
    """Whether the frames of one pull become fewer or more samples: NetEq's accelerate and (preemptive) expand."""

    KEEP = "keep"
    SHORTEN = "shorten"
    SHORTEN_FAST = "shorten fast"
    STRETCH = "stretch"


@dataclass(frozen=True, slots=True)
class PlayoutInstruction:
    """One frame to make.

    kind: DECODE: decode ``codes``, int64 ``[K, 1]``. K may be less than usual: a relay cut it, or it is ``redundant``.
        REPEAT: the frame is lost, and the decoder steps on its last latent, decayed by ``lost_frames``.
        NOISE: comfort noise at the levels ``noise``: the sender's (DTX), or if None the receiver's own estimate.
        SILENCE: nothing has come yet, the stream has ended, or the noise for lost frames has faded.
    lost_frames: 1 for the first frame made up in a row, and so on; 0 for a frame that was not lost.
    noise_gain: of the noise, 0..1, at the end of this frame.
    reset: the decoder must reset before this frame.
    pace: the same for all frames of one pull.
    spare_samples: the most that SHORTEN may leave out, so that delay does not fall below its target.
    following: codes of the next frames that are here, in the order of playing. A decoder may take all in one step:
        later instructions name them again, unless a packet that arrives in between changes what is played.
    """

    kind: Kind
    frame: int = 0
    codes: IntArray | None = None
    noise: tuple[int, ...] | None = None
    lost_frames: int = 0
    noise_gain: float = 1.0
    redundant: bool = False
    reset: bool = False
    pace: Pace = Pace.KEEP
    spare_samples: int = 0
    following: tuple[IntArray, ...] = ()

    @property
    def concealed(self) -> bool:
        """Whether this stands for a lost frame."""
        return self.lost_frames > 0


class ConcealmentLadder:
    """Makes one stream's instructions and counts its samples.

    repeat_frames: repeats in a row before comfort noise takes over. noise_frames: how long that takes to fade.
    """

    def __init__(
        self, stream_format: StreamFormat, statistics: ReceiverStatistics, repeat_frames: int, noise_frames: int
    ) -> None:
        self._frame_samples = stream_format.frame_samples
        self._statistics = statistics
        self._repeat_frames, self._noise_frames = repeat_frames, noise_frames
        self._lost_frames = 0  # made up in a row
        self._pause: tuple[int, ...] | None = None  # the sender's noise levels, while it pauses

    def play(
        self,
        entry: BufferedFrame,
        frame: int = 0,
        *,
        pace: Pace = Pace.KEEP,
        spare_samples: int = 0,
        following: tuple[IntArray, ...] = (),
    ) -> PlayoutInstruction:
        """A frame of codes that is here."""
        self._lost_frames, self._pause = 0, None
        self._statistics.total_samples_received += self._frame_samples
        self._statistics.redundant_frames_used += entry.redundant
        return PlayoutInstruction(
            Kind.DECODE,
            frame,
            codes=entry.codes,
            redundant=entry.redundant,
            reset=entry.reset,
            pace=pace,
            spare_samples=spare_samples,
            following=following,
        )

    def pause(self, entry: BufferedFrame | None) -> None:
        """The sender pauses with this noise, or ends with it. None: it begins a new stream, and is silent till then."""
        self._lost_frames = 0
        self._pause = None if entry is None or entry.end else entry.noise

    def conceal(self, frame: int = 0) -> PlayoutInstruction:
        """A frame that is lost, or late: repeat, then comfort noise that fades, then silence."""
        self._lost_frames += 1
        noise = self._lost_frames - self._repeat_frames  # frames of it so far
        self._statistics.count_concealed(self._frame_samples, begins=self._lost_frames == 1, silent=noise > 0)
        if noise <= 0:
            return PlayoutInstruction(Kind.REPEAT, frame, lost_frames=self._lost_frames)
        if noise > self._noise_frames:
            return PlayoutInstruction(Kind.SILENCE, frame, lost_frames=self._lost_frames)
        gain = 1.0 - noise / self._noise_frames
        return PlayoutInstruction(Kind.NOISE, frame, lost_frames=self._lost_frames, noise_gain=gain)

    def take_back(self, frames: int | None = None) -> None:
        """Of the frames made up last in a row, so many stood for no voice (None: all): they do not count as concealed.

        The sender had paused, or left, and word of that came late.
        """
        frames = self._lost_frames if frames is None else min(frames, self._lost_frames)
        if frames > 0:
            silent = min(frames, max(0, self._lost_frames - self._repeat_frames))
            self._statistics.take_back_concealed(
                frames * self._frame_samples, silent * self._frame_samples, all_of_it=frames == self._lost_frames
            )
            self._lost_frames -= frames

    def rest(self) -> PlayoutInstruction:
        """Nothing is due: the noise of the sender's pause, or silence."""
        if self._pause is None:
            return PlayoutInstruction(Kind.SILENCE)
        self._statistics.comfort_noise_samples += self._frame_samples
        return PlayoutInstruction(Kind.NOISE, noise=self._pause)
