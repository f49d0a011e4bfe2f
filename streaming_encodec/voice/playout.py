"""From decisions to samples: the last stretch of the receiving end, driven by the sound card.

`PcmPlayout.read(n, now)` gives exactly n samples, always: it pulls the receiver for frames, has them
decoded by a callable that was handed in, repeats, fades, fills with comfort noise, shortens and stretches.
No torch in here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming_encodec.errors import StreamError
from streaming_encodec.voice.noise import BackgroundEstimator, ComfortNoise
from streaming_encodec.voice.receiver import Kind, Pace, PlayoutInstruction, Receiver
from streaming_encodec.voice.stretch import Stretcher
from streaming_encodec.wire.bits import IntArray

FloatArray = npt.NDArray[np.float32]
DecodeFrame = Callable[[IntArray | None], FloatArray]
"""codes int64 ``[K, 1]`` to sound ``[C, frame_samples]``. None is a lost frame: the decoder steps all the
same, on its last latent (decayed, as it was trained), so that its state keeps pace with the sender's."""


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One frame to decode, ``codes`` as in `DecodeFrame`; reset: the decoder begins afresh before it.

    following: see `PlayoutInstruction`.
    """

    codes: IntArray | None
    reset: bool = False
    following: tuple[IntArray, ...] = ()


DecodeSteps = Generator[DecodeRequest, FloatArray, FloatArray]
"""Yields what is to be decoded, is sent the sound of it, returns samples."""

_DECLICK_MS = 3.0
_BACKGROUND_EVERY = 3
"""Frames from one look at the background to the next: often enough for a room, a third of the work."""
_PATIENCE_S = 2.0
"""How long to wait for a quiet or periodic place before time is bent where it fits best."""


class PcmPlayout:
    """Pulls one `Receiver` and one decoder; ``read`` any number of samples.

    decode: see `DecodeFrame`; it may return fewer or more samples than a frame (a decoder with a start
    delay does). reset: called where the sender's encoder began anew, before the frame is decoded. observe:
    told each instruction and when it will be heard, for meters and diaries.
    """

    def __init__(
        self,
        receiver: Receiver,
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
        self._past: FloatArray = np.zeros((self._channels, self._stretcher.history_samples), dtype=np.float32)
        self._ready: FloatArray = np.zeros((self._channels, 0), dtype=np.float32)
        self._patience_spent = 0
        self._decoded = 0
        self._voice_gain = 0.0
        self._noise_gain = 0.0
        self._declick = max(1, round(_DECLICK_MS * self._rate / 1000))

    @property
    def queued_samples(self) -> int:
        """Samples made and not yet read."""
        return int(self._ready.shape[1])

    def is_certain(self, count: int, now: float) -> bool:
        """Whether `read` would decode nothing but frames that are here (see `Receiver.is_certain`)."""
        missing = count - self._ready.shape[1]
        frames = -(-missing // self._frame)
        return frames <= 0 or self.receiver.is_certain(frames, now, self._ready.shape[1] / self._rate)

    def read(self, count: int, now: float) -> FloatArray:
        """The next ``count`` samples ``[C, count]``; ``now`` is when the first of them will be heard."""
        steps = self.reading(count, now)
        try:
            request = next(steps)
            while True:
                if request.reset and self._reset is not None:
                    self._reset()
                request = steps.send(self._decode(request.codes))
        except StopIteration as done:
            sound: FloatArray = done.value
            return sound

    def reading(self, count: int, now: float) -> DecodeSteps:
        """`read` for who decodes several streams at once: asks for each frame's sound instead of calling."""
        if count < 0:
            raise StreamError("read a number of samples that is not negative")
        while self._ready.shape[1] < count:
            queued = self._ready.shape[1] / self._rate
            instructions = self.receiver.pull(now, queued)
            if self._observe is not None:
                for instruction in instructions:
                    self._observe(instruction, now + queued)
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
        sound: FloatArray = frames[0] if len(frames) == 1 else np.concatenate(frames, axis=1)
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
        self.receiver.note_stretch(sound.shape[1] - before)
        return sound

    def _frame_of(self, instruction: PlayoutInstruction) -> DecodeSteps:
        if instruction.kind is Kind.DECODE:
            pcm = self._checked((yield DecodeRequest(instruction.codes, instruction.reset, instruction.following)))
            self._decoded += 1
            if pcm.shape[1] == self._frame and self._decoded % _BACKGROUND_EVERY == 0:
                self._background.update(pcm)
            return self._mix(pcm, 1.0, 0.0, None, join=instruction.reset)
        if instruction.kind is Kind.REPEAT:
            # What the voice loses the room takes over, so that the level does not drop through the floor.
            gain = instruction.gain
            lost = self._checked((yield DecodeRequest(None)))
            return self._mix(lost, gain, (1 - gain**2) ** 0.5, None)
        noise_gain = 1.0 if instruction.kind is Kind.NOISE else 0.0
        ringing: FloatArray | None = None
        if self._voice_gain:
            # The voice stops within this frame, not before it: one step more gives what fades.
            ringing = self._checked((yield DecodeRequest(None)))
        return self._mix(ringing, 0.0, noise_gain, instruction.noise)

    def _mix(
        self,
        voice: FloatArray | None,
        voice_gain: float,
        noise_gain: float,
        levels: tuple[int, ...] | None,
        *,
        join: bool = False,
    ) -> FloatArray:
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
        """The decoder's own output as it is: it joins by itself, and after nothing at all it begins whole."""
        if voice_gain != 1.0 or noise_gain or self._noise_gain:
            return False
        return self._voice_gain in (0.0, 1.0)

    def _smooth(self, out: FloatArray) -> None:
        """Lead from the last sample played into this frame where nothing joins them by itself."""
        count = min(self._declick, out.shape[1])
        step = self._past[:, -1:] - out[:, :1]
        fade = 0.5 + 0.5 * np.cos(np.pi * np.arange(count, dtype=np.float32) / count)
        out[:, :count] += step * fade

    def _checked(self, pcm: FloatArray) -> FloatArray:
        if pcm.ndim != 2 or pcm.shape[0] != self._channels:
            raise StreamError(f"the decoder gives [{self._channels} channels, samples], not {list(pcm.shape)}")
        return pcm
