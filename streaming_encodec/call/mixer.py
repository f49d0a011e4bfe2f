"""What a listener hears: every speaker's jitter buffer and concealment, decoded together and added up.

Decoder and time are handed in: no torch, no sockets and no clock are used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import numpy as np

from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.types import IntArray, Pcm
from streaming_encodec.voice.ladder import PlayoutInstruction
from streaming_encodec.voice.playout import DecodeRequest, DecodeSteps, PcmPlayout
from streaming_encodec.voice.receiver import Receiver, ReceiverSettings
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.hello import MAX_SPEAKERS
from streaming_encodec.wire.packet import StreamFormat

_RELEASE_S = 0.5
"""After a peak the gain comes back in about so long."""


class SpeakerDecoder(Protocol):
    """Decodes a frame of each of several speakers at once, see `make_decoders`."""

    def open(self, speaker: int) -> None:
        """Take a new speaker in."""

    def close(self, speaker: int) -> None:
        """Forget a speaker."""

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, Pcm]:
        """The sound [C, n] of each request."""


class Mixer:
    """Speakers by number. `receive` their packets, `read` the sum of their voices.

    bad_packets counts bytes that are no packet of this stream. Speakers beyond `max_speakers` are not heard.
    observe: called with each speaker's instructions and the time when they will be heard.
    """

    def __init__(
        self,
        stream_format: StreamFormat,
        decoder: SpeakerDecoder,
        settings: ReceiverSettings | None = None,
        max_speakers: int = MAX_SPEAKERS,
        *,
        observe: Callable[[int, PlayoutInstruction, float], None] | None = None,
    ) -> None:
        self._format = stream_format
        self._decoder = decoder
        self._observe = observe
        self._settings = settings
        self._max_speakers = max_speakers
        self._voices: dict[int, PcmPlayout[Receiver]] = {}
        self._leaving: set[int] = set()
        self._limiter = Limiter(_RELEASE_S * stream_format.sample_rate)
        self.bad_packets = 0

    @property
    def speakers(self) -> tuple[int, ...]:
        """Who is being heard: until the last frame of a speaker who left is played."""
        return tuple(self._voices)

    def receive(self, sender: int, data: bytes, now_s: float) -> None:
        """Take a packet of `sender` that arrived at `now_s`. Bad packets are counted; they raise nothing."""
        voice = self._voices.get(sender)
        if voice is None and len(self._voices) >= self._max_speakers:
            return
        receiver = Receiver(self._format, self._settings) if voice is None else voice.receiver
        try:
            receiver.receive(data, now_s)
        except PacketError:
            self.bad_packets += 1
            return
        if voice is None:
            self._decoder.open(sender)
            observe = None if self._observe is None else partial(self._observe, sender)
            self._voices[sender] = PcmPlayout(receiver, _never, seed=sender, observe=observe)

    def leave(self, sender: int) -> None:
        """A speaker has left: the frames that wait are played, then the speaker is forgotten."""
        if sender in self._voices:
            self._leaving.add(sender)
            self._voices[sender].receiver.leave()

    def forget(self, sender: int) -> None:
        """Drop a speaker at once."""
        self._leaving.discard(sender)
        if self._voices.pop(sender, None) is not None:
            self._decoder.close(sender)

    def read(self, count: int, now_s: float) -> Pcm:
        """The next `count` samples [C, count] of everybody; `now_s` is when the first will be heard.

        One speaker alone comes through bit for bit; a sum beyond full scale is turned down.
        """
        parts = self._read_all(count, now_s)
        for sender in list(self._leaving):
            voice = self._voices[sender]
            if not voice.receiver.buffered_frames and voice.is_silent:  # a voice fades, it is not cut off
                self.forget(sender)
        if not parts:
            return np.zeros((self._format.channels, count), np.float32)
        if len(parts) == 1:
            self._limiter.reset()
            return parts[0]
        return self._limiter.process(np.sum(parts, axis=0, dtype=np.float32))

    def read_whole(self, count: int, now_s: float, *, certain: bool) -> Pcm | None:
        """`read`, plus the samples that every voice has left over after a change of pace.

        If they stayed, the next frame would be needed earlier by as much.
        certain: give None if a later packet could change any of it. Otherwise the caller may read before `now_s`.
        """
        voices = self._voices.values()
        if certain and not all(voice.is_certain(count, now_s) for voice in voices):
            return None
        pcm = self.read(count, now_s)
        more = min((voice.queued_samples for voice in voices), default=0)
        return np.concatenate((pcm, self.read(more, now_s)), axis=1) if more else pcm

    def _read_all(self, count: int, now_s: float) -> list[Pcm]:
        """All voices advance together, so that frames needed at the same time are decoded in one step."""
        steps = {sender: voice.reading(count, now_s) for sender, voice in self._voices.items()}
        done: dict[int, Pcm] = {}
        wanted: dict[int, DecodeRequest] = {}
        for sender, step in steps.items():
            _advance(sender, step, None, wanted, done)
        while wanted:
            sounds = self._decoder.decode(wanted)
            wanted = {}
            for sender, sound in sounds.items():
                _advance(sender, steps[sender], sound, wanted, done)
        return [done[sender] for sender in steps]

    # -- figures --------------------------------------------------------------------------------------------

    @property
    def reports_are_due(self) -> bool:
        """Whether there is news that should not wait."""
        return any(voice.receiver.report_is_due for voice in self._voices.values())

    def reports(self) -> list[Report]:
        """How each speaker's packets arrived since the last call."""
        return [voice.receiver.report(sender) for sender, voice in self._voices.items()]

    @property
    def statistics(self) -> dict[int, ReceiverStatistics]:
        """By speaker."""
        return {sender: voice.receiver.statistics for sender, voice in self._voices.items()}

    @property
    def target_ms(self) -> dict[int, float]:
        """The delay each speaker's buffer aims at."""
        return {sender: voice.receiver.target_ms for sender, voice in self._voices.items()}


class Limiter:
    """Turns a sum of voices down where it would clip, within one block, and up again slowly."""

    def __init__(self, release_samples: float) -> None:
        self._release = release_samples
        self._gain = 1.0

    def reset(self) -> None:
        """Full gain at once."""
        self._gain = 1.0

    def process(self, pcm: Pcm) -> Pcm:
        """[C, n] → [C, n], within -1 … 1."""
        count = pcm.shape[1]
        if not count:
            return pcm
        peak = float(np.max(np.abs(pcm)))
        least = min(1.0, 1.0 / peak) if peak > 0 else 1.0
        end = min(least, self._gain + count / self._release)
        # A ramp downwards would still clip at its beginning; the jump is no louder than the clipping.
        begin = min(self._gain, end) if end < self._gain else self._gain
        ramp = np.linspace(begin, end, count, dtype=np.float32)
        self._gain = end
        limited: Pcm = np.clip(pcm * ramp, -1.0, 1.0, dtype=np.float32)
        return limited


def _advance(
    sender: int,
    step: DecodeSteps,
    sound: Pcm | None,
    wanted: dict[int, DecodeRequest],
    done: dict[int, Pcm],
) -> None:
    try:
        wanted[sender] = next(step) if sound is None else step.send(sound)
    except StopIteration as end:
        done[sender] = end.value


def _never(codes: IntArray | None) -> Pcm:
    raise StreamError("the mixer decodes all voices at once")
