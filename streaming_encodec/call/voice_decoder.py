"""``VoiceDecoder``: packets in, any number of samples out, whatever was lost on the way."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.audio.resample import mix_channels
from streaming_encodec.call.decoders import make_decoders
from streaming_encodec.call.in_order import InOrderReceiver
from streaming_encodec.call.pcm import OUTPUT_FORMS, OutputForm, give_pcm
from streaming_encodec.call.stream_format import check_frame_ms, find_voice_model, stream_format
from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.model.find import AnyModel
from streaming_encodec.samples import as_count, as_sample_rate
from streaming_encodec.stepping.engine import EngineOrName
from streaming_encodec.types import IntArray, Pcm
from streaming_encodec.voice.playout import DecodeRequest, PcmPlayout
from streaming_encodec.voice.receiver import Receiver
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.packet import StreamFormat

_VOICE = 1  # this decoder's only speaker


class VoiceDecoder:
    """Decodes one voice. One thread may `push` packets while another `pull`s sound.

    `push` never computes. `pull` takes one codec step for each frame that it needs, and always gives the number of
    samples asked for: what has not arrived is made up (repeats of the last frame, then the room's noise).

    Args:
        sample_rate: of the sound wanted, in Hz.
        frame_ms: how much is usually pulled at a time. Where that is no whole number of the codec's frames, the output
            starts up to a frame late after every silence, so that every pull finds its samples.
        model: the sender's model or its name; None is the bundled voice model.
        output: what `pull` gives: ``"int16"``, ``"float32"`` or ``"bytes"`` of int16.
        jitter_buffer: False for a host that orders packets itself and says what is lost (`decode_lost`). True to hand
            packets over as they come from the network: an adaptive buffer orders them and finds losses.
        engine: a name out of ``streaming_encodec.engines``, or an engine that several voices share.
        clock: seconds, for the jitter buffer.

    Raises:
        StreamError: a setting out of range.
        ConfigError: the model cannot stream.
        CheckpointError: there is no such model.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        frame_ms: float = 20.0,
        *,
        model: AnyModel | None = None,
        output: OutputForm = "int16",
        jitter_buffer: bool = False,
        engine: EngineOrName = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if output not in OUTPUT_FORMS:
            raise StreamError(f"output is one of {', '.join(OUTPUT_FORMS)}, not {output!r}")
        sample_rate, frame_ms = as_sample_rate(sample_rate), check_frame_ms(frame_ms)
        self.model = find_voice_model(model)
        self.sample_rate, self.frame_ms, self.output = sample_rate, frame_ms, output
        self.stream_format: StreamFormat = stream_format(self.model)
        self._clock = clock
        self._resampler = LowDelayResampler(self.stream_format.sample_rate, sample_rate)
        self._decoder = make_decoders(self.model, engine)
        self._decoder.warm_up(self.model.config.num_quantizers)
        self._decoder.open(_VOICE)
        self._lock = threading.Lock()  # held for moments, never while decoding
        self._in_order = None if jitter_buffer else InOrderReceiver(self.stream_format)
        self._receiver = self._in_order or Receiver(self.stream_format)
        self._playout = PcmPlayout(self._receiver, self._decode_one)
        self._late_samples = 0 if jitter_buffer else _late_samples(self.stream_format, sample_rate, self.frame_samples)
        self._started = jitter_buffer  # whether a voice is on, late as it must be
        self._ready: Pcm = np.zeros(0, np.float32)  # [n] at `sample_rate`

    # -- packets in -----------------------------------------------------------------------------------------

    def push(self, packet: bytes | bytearray | memoryview) -> None:
        """Hand a packet over; it is decoded when its sound is pulled.

        Raises:
            PacketError: no packet of this stream; count it as lost.
        """
        if not isinstance(packet, bytes):
            packet = _whole_packet(packet)
        with self._lock:
            self._receiver.receive(packet, self._clock())

    # -- sound out ------------------------------------------------------------------------------------------

    def pull(self, count: int) -> bytes | NDArray[np.int16] | NDArray[np.float32]:
        """The next ``count`` samples, mono, in the form of ``output``. Silence before the first packet.

        Raises:
            StreamError: no whole number, or a negative one.
        """
        return give_pcm(self._take(_whole(count)), self.output)

    def decode_lost(self, count: int) -> bytes | NDArray[np.int16] | NDArray[np.float32]:
        """The next ``count`` samples in place of a packet that is known to be lost.

        ``count`` is what the packet would have held, ``frame_samples`` as a rule. Packets already pushed and not yet
        pulled come first.

        Raises:
            StreamError: no whole count, a negative one, or a decoder with a jitter buffer, which finds losses itself.
        """
        if self._in_order is None:
            raise StreamError("a decoder with jitter_buffer=True finds losses by itself: just pull")
        count = _whole(count)
        started = self._start()
        with self._lock:
            short = self._resampler.inputs_for(count - len(self._ready)) if started else 0
            waiting = self._playout.queued_samples + self._in_order.buffered_frames * self._hop
            self._in_order.lose(max(0, -(-(short - waiting) // self._hop)))
        return self.pull(count)

    # -- figures --------------------------------------------------------------------------------------------

    @property
    def frame_samples(self) -> int:
        """Samples in ``frame_ms``."""
        return round(self.sample_rate * self.frame_ms / 1000)

    @property
    def delay_ms(self) -> float:
        """By how much the sound lags behind the packets, the present target of a jitter buffer included."""
        with self._lock:
            buffer_ms = self._receiver.target_ms if isinstance(self._receiver, Receiver) else 0.0
        return self._resampler.delay_ms + 1000 * self._late_samples / self.stream_format.sample_rate + buffer_ms

    @property
    def statistics(self) -> ReceiverStatistics:
        """What came, what was lost, what was made up."""
        return self._receiver.statistics

    def __reduce__(self) -> NoReturn:
        raise StreamError(
            "a VoiceDecoder cannot be pickled or copied, it is tied to a clock and a thread: make one where it is used,"
            " packets are all that it needs"
        )

    # -- inside ---------------------------------------------------------------------------------------------

    @property
    def _hop(self) -> int:
        return self.stream_format.frame_samples

    def _take(self, count: int) -> Pcm:
        while (missing := count - len(self._ready)) > 0:
            if not self._started:
                if not self._start():
                    self._ready = np.concatenate([self._ready, np.zeros(missing, np.float32)])
                continue
            self._add(self._read(self._resampler.inputs_for(missing), len(self._ready) / self.sample_rate))
            if self._in_order is not None and self._in_order.silent:
                # What is left is silence: out of the way, so that the next voice begins as late as the first did.
                self._add(self._playout.read(self._playout.queued_samples, 0.0))
                self._started = False
        out, self._ready = self._ready[:count], self._ready[count:]
        return out

    def _start(self) -> bool:
        """Whether a voice is on. Where one begins, as much silence comes before it as pulls may get ahead."""
        if not self._started and self._in_order is not None and self._in_order.buffered_frames:
            self._started = True
            queued = len(self._ready) * self.stream_format.sample_rate // self.sample_rate
            self._add(np.zeros((1, max(0, self._late_samples - queued)), np.float32))
        return self._started

    def _add(self, sound: Pcm) -> None:
        """Sound [C, n] at the model's rate, ready to be pulled."""
        self._ready = np.concatenate([self._ready, self._resampler.push(mix_channels(sound, 1))[0]])

    def _read(self, count: int, queued_s: float) -> Pcm:
        """``PcmPlayout.read``, with the lock let go while a frame is decoded."""
        with self._lock:
            steps = self._playout.reading(count, self._clock() + queued_s)
        sound: Pcm | None = None
        try:
            while True:
                with self._lock:
                    request = next(steps) if sound is None else steps.send(sound)
                sound = self._decoder.decode({_VOICE: request})[_VOICE]
        except StopIteration as done:
            heard: Pcm = done.value
            return heard

    def _decode_one(self, codes: IntArray | None) -> Pcm:
        return self._decoder.decode({_VOICE: DecodeRequest(codes)})[_VOICE]


def _whole_packet(packet: object) -> bytes:
    try:
        return memoryview(packet).tobytes()  # type: ignore[arg-type]
    except TypeError:
        raise PacketError(f"a packet is bytes, not {type(packet).__name__}") from None


def _whole(count: object) -> int:
    whole = as_count(count)
    if whole is None or whole < 0:
        raise StreamError(f"ask for a whole number of samples that is not negative, not {count!r}")
    return whole


def _late_samples(stream: StreamFormat, sample_rate: int, count: int) -> int:
    """The most by which pulls of ``count`` samples at ``sample_rate`` get ahead of whole frames."""
    pulled, rest = divmod(stream.sample_rate * count, sample_rate)
    if rest:
        return stream.frame_samples - 1
    return stream.frame_samples - math.gcd(stream.frame_samples, pulled)
