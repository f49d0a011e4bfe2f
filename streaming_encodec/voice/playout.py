"""From a receiver's instructions to samples, driven by the sound card.

`PcmPlayout.read(n, now_s)` always gives exactly n samples. It pulls the receiver for frames, has them decoded by a
callable that was handed in, fills with comfort noise, shortens and stretches.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from streaming_encodec.errors import StreamError
from streaming_encodec.types import IntArray, Pcm
from streaming_encodec.voice.ladder import Kind, Pace, PlayoutInstruction
from streaming_encodec.voice.noise import BackgroundEstimator, ComfortNoise
from streaming_encodec.voice.receiver import Receiver
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.voice.stretch import Stretcher
from streaming_encodec.wire.packet import StreamFormat

DecodeFrame = Callable[[IntArray | None], Pcm]
"""codes int64 ``[K, 1]`` to sound ``[C, frame_samples]``. None is a lost frame: the decoder steps on its last latent,
decayed as in training, so that its state keeps pace with the sender's."""


class FrameSource(Protocol):
    """A receiver, as far as playout asks it: `Receiver` or `InOrderReceiver`."""

    format: StreamFormat
    statistics: ReceiverStatistics

    def pull(self, now_s: float, queued_s: float = 0.0) -> list[PlayoutInstruction]:
        """What to make next."""
        ...


Source = TypeVar("Source", bound=FrameSource)


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One frame to decode, ``codes`` as in `DecodeFrame`. reset, following: see `PlayoutInstruction`."""

    codes: IntArray | None
    reset: bool = False
    following: tuple[IntArray, ...] = ()


DecodeSteps = Generator[DecodeRequest, Pcm, Pcm]
"""Yields what is to be decoded, is sent its sound, returns samples."""

_DECLICK_MS = 3.0
_BACKGROUND_EVERY = 3
"""Frames from one look at the background to the next: often enough for a room, a third of the work."""
_PATIENCE_S = 2.0
"""How long to wait for a quiet or periodic place before the pace changes at the best place there is."""


class PcmPlayout(Generic[Source]):
    """Pulls one receiver and one decoder; ``read`` any number of samples.

    decode: see `DecodeFrame`; it may return fewer or more samples than a frame (a decoder with a start delay does).
    reset: called where the sender's encoder was reset, before the frame is decoded.
    observe: called with each instruction and the time when it will be heard.
    """

    def __init__(
        self,
        receiver: Source,
        decode: DecodeFrame,
        reset: Callable[[], None] | None = None,
        *,
        seed: int = 0,
        observe: Callable[[PlayoutInstruction, float], None] | None = None,
    ) -> None:
        self.receiver = receiver
        self._observe = observe
        self._decode = decode
        self._reset = reset
        shape = receiver.format
        self._channels, self._frame, self._rate = shape.channels, shape.frame_samples, shape.sample_rate
        self._stretcher = Stretcher(self._rate)
        self._noise = ComfortNoise(self._rate, 2 * self._frame, seed)
        self._background = BackgroundEstimator(self._rate, self._frame)
        self._past: Pcm = np.zeros((self._channels, self._stretcher.history_samples), dtype=np.float32)
        self._ready: Pcm = np.zeros((self._channels, 0), dtype=np.float32)
        self._patience_spent = 0
        self._decoded = 0
        self._voice_gain = 0.0
        self._noise_gain = 0.0
        self._declick = max(1, round(_DECLICK_MS * self._rate / 1000))

    @property
    def queued_samples(self) -> int:
        """Samples made and not yet read."""
        return int(self._ready.shape[1])

    @property
    def is_silent(self) -> bool:
        """Whether nothing is to be heard any more unless another frame comes."""
        return not self._voice_gain and not self._noise_gain and not self._ready.any()

    def is_certain(self: PcmPlayout[Receiver], count: int, now_s: float) -> bool:
        """Whether `read` would decode nothing but frames that are here (see `Receiver.is_certain`)."""
        missing = count - self._ready.shape[1]
        frames = -(-missing // self._frame)
        return frames <= 0 or self.receiver.is_certain(frames, now_s, self._ready.shape[1] / self._rate)

    def read(self, count: int, now_s: float) -> Pcm:
        """The next ``count`` samples ``[C, count]``; ``now_s`` is when the first of them will be heard."""
        steps = self.reading(count, now_s)
        try:
            request = next(steps)
            while True:
                if request.reset and self._reset is not None:
                    self._reset()
                request = steps.send(self._decode(request.codes))
        except StopIteration as done:
            sound: Pcm = done.value
            return sound

    def reading(self, count: int, now_s: float) -> DecodeSteps:
        """`read` for a caller that decodes several streams at once: yields requests instead of calling ``decode``."""
        if count < 0:
            raise StreamError("read a number of samples that is not negative")
        while self._ready.shape[1] < count:
            queued_s = self._ready.shape[1] / self._rate
            instructions = self.receiver.pull(now_s, queued_s)
            if self._observe is not None:
                for instruction in instructions:
                    self._observe(instruction, now_s + queued_s)
            made = yield from self._make(instructions)
            kept = self._past.shape[1]
            joined = made if made.shape[1] >= kept else np.concatenate([self._past, made], axis=1)
            self._past = joined[:, joined.shape[1] - kept :]
            self._ready = np.concatenate([self._ready, made], axis=1) if self._ready.shape[1] else made
        out, self._ready = self._ready[:, :count], self._ready[:, count:]
        return out

    def _make(self, instructions: list[PlayoutInstruction]) -> DecodeSteps:
        frames = []
        for instruction in instructions:
            frames.append((yield from self._frame_of(instruction)))
        sound: Pcm = frames[0] if len(frames) == 1 else np.concatenate(frames, axis=1)
        pace = instructions[0].pace
        if pace is Pace.KEEP:
            self._patience_spent = 0
            return sound
        before = sound.shape[1]
        impatient = self._patience_spent > _PATIENCE_S * self._rate
        if pace is Pace.SHORTEN:
            sound = self._stretcher.shorten(sound, force=impatient, most=instructions[0].spare_samples)
        elif pace is Pace.SHORTEN_FAST:
            sound = self._stretcher.shorten(sound, force=True, times=3)
        else:
            sound = self._stretcher.stretch(self._past, sound, force=impatient)
        self._patience_spent = 0 if sound.shape[1] != before else self._patience_spent + before
        self.receiver.statistics.count_stretch(sound.shape[1] - before)
        return sound

    def _frame_of(self, instruction: PlayoutInstruction) -> DecodeSteps:
        if instruction.kind is Kind.DECODE:
            pcm = self._checked((yield DecodeRequest(instruction.codes, instruction.reset, instruction.following)))
            self._decoded += 1
            if pcm.shape[1] == self._frame and self._decoded % _BACKGROUND_EVERY == 0:
                self._background.update(pcm)
            return self._mix(pcm, 1.0, 0.0, None, join=instruction.reset)
        if instruction.kind is Kind.REPEAT:
            # The latent decays, and the sound with it: measured, a fade of the sound on top is no better.
            return self._mix(self._checked((yield DecodeRequest(None))), 1.0, 0.0, None)
        noise_gain = instruction.noise_gain if instruction.kind is Kind.NOISE else 0.0
        ringing: Pcm | None = None
        if self._voice_gain:
            # The voice fades within this frame, not before it: one more step gives the sound that fades.
            ringing = self._checked((yield DecodeRequest(None)))
        return self._mix(ringing, 0.0, noise_gain, instruction.noise)

    def _mix(
        self,
        voice: Pcm | None,
        voice_gain: float,
        noise_gain: float,
        levels: tuple[int, ...] | None,
        *,
        join: bool = False,
    ) -> Pcm:
        """One frame, gliding from the gains of the frame before to these."""
        if voice is not None and not join and self._is_plain(voice_gain, noise_gain):
            self._voice_gain = voice_gain
            return voice
        count = self._frame if voice is None else voice.shape[1]
        glide = np.linspace(0, 1, count + 1, dtype=np.float32)[1:]
        out = np.zeros((self._channels, count), dtype=np.float32)
        if voice is not None:
            begin = voice_gain if join else self._voice_gain
            out += voice * (begin + (voice_gain - begin) * glide)
        if self._noise_gain or noise_gain:
            gains = self._noise_gain + (np.float32(noise_gain) - self._noise_gain) * glide
            out += self._noise.make(count, levels or self._background.levels()) * gains
        if count and (join or (voice is None and self._voice_gain)):
            self._smooth(out)
        self._voice_gain, self._noise_gain = voice_gain, noise_gain
        return out

    def _is_plain(self, voice_gain: float, noise_gain: float) -> bool:
        """Whether the decoder's output needs no gain: it joins the frame before, and begins whole where none was."""
        if voice_gain != 1.0 or noise_gain or self._noise_gain:
            return False
        return self._voice_gain in (0.0, 1.0)

    def _smooth(self, out: Pcm) -> None:
        """Fade from the last sample played into this frame, where the two do not join by themselves."""
        count = min(self._declick, out.shape[1])
        step = self._past[:, -1:] - out[:, :1]
        # In float64: a cosine of float32 is another one on each machine.
        fade = (0.5 + 0.5 * np.cos(np.pi * np.arange(count) / count)).astype(np.float32)
        out[:, :count] += step * fade

    def _checked(self, pcm: Pcm) -> Pcm:
        if pcm.ndim != 2 or pcm.shape[0] != self._channels:
            raise StreamError(f"the decoder gives [{self._channels} channels, samples], not {list(pcm.shape)}")
        return pcm
