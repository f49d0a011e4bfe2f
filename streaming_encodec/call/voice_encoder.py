"""``VoiceEncoder``: sound in as a telephone hands it over, packets out."""

from __future__ import annotations

import secrets

import numpy as np

from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.audio.resample import mix_channels
from streaming_encodec.call.pcm import Samples, take_pcm
from streaming_encodec.call.stream_format import check_frame_ms, find_voice_model, stream_format
from streaming_encodec.errors import StreamError
from streaming_encodec.model.find import AnyModel
from streaming_encodec.samples import as_count, as_sample_rate, clip_amplitude
from streaming_encodec.stepping.engine import EngineOrName
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.voice.sender import Sender, SenderSettings
from streaming_encodec.wire.header import MAX_FRAMES, MAX_REDUNDANT_CODEBOOKS, MAX_REDUNDANT_FRAMES
from streaming_encodec.wire.packet import StreamFormat


class VoiceEncoder:
    """Encodes one voice for the wire. Use it from one thread; `encode` takes one codec step for each frame.

    A call of ``frame_ms`` gives the packets that became complete. With the 24 kHz model's frames of 13.3 ms and 20 ms a
    call, that is one packet, of one and two frames in turn.

    Args:
        sample_rate: of the sound handed over, in Hz: 8000, 16000, 44100, 48000 or any other.
        frame_ms: how much a call to `encode` usually hands over. It only sets `frame_samples`; other amounts are taken
            as well.
        model: a model or its name; None is the bundled voice model. Load one yourself to share it.
        bandwidth: kbps, one of the model's.
        frames_per_packet: 1 to 6 frames in each packet: more save headers and cost delay. None sends the whole frames
            that each call completes.
        redundant_frames: so many past frames go along with each packet, in case theirs is lost.
        redundant_codebooks: how many codebooks of each of them.
        engine: a name out of ``streaming_encodec.engines``, or an engine that several voices share.
        first_sequence: number of the first packet, of 16 bits. None draws one at random, so that receivers tell the
            stream of a new encoder from the one before it.
        first_timestamp: of the first frame, of 32 bits; None draws one.

    Raises:
        StreamError: a setting out of range.
        ConfigError: the model has no such bandwidth, or cannot stream.
        CheckpointError: there is no such model.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        frame_ms: float = 20.0,
        *,
        model: AnyModel | None = None,
        bandwidth: float | None = None,
        frames_per_packet: int | None = None,
        redundant_frames: int = 0,
        redundant_codebooks: int = 2,
        engine: EngineOrName = "auto",
        first_sequence: int | None = None,
        first_timestamp: int | None = None,
    ) -> None:
        sample_rate, frame_ms = as_sample_rate(sample_rate), check_frame_ms(frame_ms)
        if frames_per_packet is not None and not 1 <= (as_count(frames_per_packet) or 0) <= MAX_FRAMES:
            raise StreamError(f"a packet holds 1 to {MAX_FRAMES} frames, not {frames_per_packet}")
        frames, codebooks = as_count(redundant_frames), as_count(redundant_codebooks)
        if not (
            frames is not None
            and codebooks is not None
            and 0 <= frames <= MAX_REDUNDANT_FRAMES
            and 1 <= codebooks <= MAX_REDUNDANT_CODEBOOKS
        ):
            raise StreamError(
                f"redundancy has up to {MAX_REDUNDANT_FRAMES} frames of 1 to {MAX_REDUNDANT_CODEBOOKS} "
                f"codebooks, not {redundant_frames} of {redundant_codebooks}"
            )
        self.model = find_voice_model(model)
        self.sample_rate, self.frame_ms = sample_rate, frame_ms
        self.stream_format: StreamFormat = stream_format(self.model)
        self._resampler = LowDelayResampler(sample_rate, self.stream_format.sample_rate)
        # What goes into a packet together is computed together: the weights are read once.
        self._encoder = StreamingEncoder(self.model, bandwidth, frames_per_step=frames_per_packet or 1, engine=engine)
        self._encoder.warm_up()
        self._waits = frames_per_packet is not None
        self._sender = Sender(
            self.stream_format,
            SenderSettings(
                num_codebooks=self.stream_format.max_codebooks,
                frames_per_packet=as_count(frames_per_packet) or MAX_FRAMES,
                redundant_codebooks=codebooks,
                redundant_frames=frames,
            ),
            first_sequence=_first("first_sequence", first_sequence, 16),
            first_timestamp=_first("first_timestamp", first_timestamp, 32),
        )

    def restart(self) -> None:
        """Begin a new stream: the first packet says so, and the decoder resets with it. Numbers go on."""
        self._resampler.reset()
        self._encoder.reset()
        self._sender.restart()

    # -- sound in -------------------------------------------------------------------------------------------

    def encode(self, samples: Samples) -> list[bytes]:
        """Take mono sound, any amount; give the packets it completes.

        Args:
            samples: bytes are int16, little-endian; an array, tensor or typed buffer (``memoryview``, ``array.array``,
                ctypes) holds int16 of any byte order, or floating point whose full scale is 1.0.

        Raises:
            StreamError: no sound of these kinds, NaN, infinity, or a sample beyond ±100 (40 dB above full scale). The
                stream is then as it was before, the change of rate included.
        """
        # The last check: from here on samples are remembered, and what the resampler adds beyond the bound is cut.
        sound = clip_amplitude(self._resampler.push(take_pcm(samples)))
        packets = self._sender.push(self._encoder.push(mix_channels(sound, self.stream_format.channels)))
        return packets if self._waits else packets + self._sender.send_waiting()

    def flush(self) -> list[bytes]:
        """End the stream: give the packets still owed, the last of them with the end flag. Then a new stream begins.

        Where no frame is owed, a packet of silence bears the flag. Where nothing was sent, there is no packet.
        """
        self._encoder.push(np.zeros((self.stream_format.channels, 0), np.float32))  # so that the flush gives numpy too
        packets = self._sender.finish(self._encoder.flush())
        self.restart()
        return packets

    # -- settings and figures -------------------------------------------------------------------------------

    @property
    def frame_samples(self) -> int:
        """Samples in ``frame_ms``."""
        return round(self.sample_rate * self.frame_ms / 1000)

    @property
    def bandwidth(self) -> float:
        """Payload kbps; set it at any time, it takes effect at the next packet."""
        return self._encoder.bandwidth

    @bandwidth.setter
    def bandwidth(self, kbps: float) -> None:
        self._encoder.bandwidth = kbps

    @property
    def num_codebooks(self) -> int:
        """Codebooks that are sent of each frame."""
        return self._encoder.num_codebooks

    @property
    def delay_ms(self) -> float:
        """By how much the codes lag behind the sound, beyond waiting for whole frames and packets."""
        waiting = (self._encoder.frames_per_step - 1) * self.stream_format.frame_samples
        lookahead = self._encoder.delay_samples - waiting
        return self._resampler.delay_ms + 1000 * lookahead / self.stream_format.sample_rate


def _first(name: str, value: int | None, bits: int) -> int:
    if value is None:
        return secrets.randbelow(1 << bits)
    whole = as_count(value)
    if whole is None:
        raise StreamError(f"{name} must be a whole number of {bits} bits, got {value!r}")
    return whole & ((1 << bits) - 1)
