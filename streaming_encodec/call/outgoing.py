"""One voice on its way out: samples to codes to packets, without silence, at a rate that listeners' reports choose.

Synchronous and without sockets: it runs in the thread that encodes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming_encodec.call.speech import find_speech_detector
from streaming_encodec.model.find import AnyModel
from streaming_encodec.stepping.engine import EngineOrName
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.types import IntArray
from streaming_encodec.voice.noise import NoiseMeter
from streaming_encodec.voice.rate import RateControl, RateSettings
from streaming_encodec.voice.sender import Sender, SenderSettings, StallMeter
from streaming_encodec.voice.vad import VoiceActivityDetector
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.header import NO_NOISE
from streaming_encodec.wire.hello import StreamFormat

FloatArray = npt.NDArray[np.float32]

_WAITING_REPORTS = 1024


class OutgoingVoice:
    """Encoder, sender, voice activity detection and rate control of one client.

    dtx: send little while nobody speaks.
    adapt: let listeners' reports choose frames per packet, codebooks and redundancy, no less redundancy than `settings`
    ask for, within the wire bitrate that they and the bandwidth ask for or twice that.
    first_sequence, first_timestamp: random, so that receivers tell a new call from the old one.
    """

    def __init__(
        self,
        model: AnyModel,
        stream_format: StreamFormat,
        bandwidth: float | None,
        engine: EngineOrName,
        settings: SenderSettings,
        *,
        dtx: bool,
        adapt: bool,
        first_sequence: int,
        first_timestamp: int,
    ) -> None:
        self._format, self._asked = stream_format, settings
        # What goes into a packet together is computed together: the weights are read once.
        frames = settings.frames_per_packet
        self._encoder = StreamingEncoder(model, bandwidth, frames_per_step=frames, engine=engine)
        self._sender = Sender(stream_format, settings, first_sequence=first_sequence, first_timestamp=first_timestamp)
        self._adapt = adapt
        config = self._encoder.config
        self._ladder = tuple(sorted({config.num_codebooks_for(b) for b in config.target_bandwidths}))
        self._vad = None
        if dtx:
            # One with two channels is rare, and asks for its level alone.
            mono = stream_format.channels == 1
            speech = find_speech_detector(stream_format.sample_rate) if mono else None
            self._vad = VoiceActivityDetector(stream_format.frame_seconds, speech=speech)
        self._meter = NoiseMeter(stream_format.sample_rate, stream_format.frame_samples)
        self._unjudged: FloatArray = np.zeros((stream_format.channels, 0), np.float32)
        self._rate = self._make_rate()
        self._stall = StallMeter(stream_format.sample_rate)
        self._reports: deque[tuple[Report, float, bool]] = deque(maxlen=_WAITING_REPORTS)
        self._ended = True

    @property
    def bandwidth(self) -> float:
        """Of the encoder, in kbps; the rate control may send less of it."""
        return self._encoder.bandwidth

    @bandwidth.setter
    def bandwidth(self, kbps: float) -> None:
        self._encoder.bandwidth = kbps
        self._rate = self._make_rate()

    @property
    def settings(self) -> SenderSettings:
        """What is sent at present."""
        return self._sender.settings

    def warm_up(self) -> None:
        """Encode a frame and forget it."""
        self._encoder.warm_up()

    @property
    def num_codebooks(self) -> int:
        """Codebooks the encoder gives."""
        return self._encoder.num_codebooks

    def push(self, pcm: npt.NDArray[Any], now_s: float) -> list[bytes]:
        """Samples [n] or [C, n] that end at `now_s`; gives the packets they complete.

        After a pause of the caller, they lie so much later in the stream: else listeners would hear the pause as delay.
        """
        self._apply_reports()
        codes: IntArray = self._encoder.push(pcm)
        packets = []
        gap_s = self._stall.gap_s(np.shape(pcm)[-1], now_s)
        if gap_s and not self._ended:
            packets += self._sender.skip(round(gap_s / self._format.frame_seconds))
        self._ended = False
        if self._vad is None:
            return packets + self._sender.push(codes)
        pcm = pcm[None] if pcm.ndim == 1 else pcm
        self._unjudged = np.concatenate([self._unjudged, pcm.astype(np.float32, copy=False)], axis=1)
        for at in range(codes.shape[1]):
            frame, self._unjudged = (part for part in np.split(self._unjudged, [self._format.frame_samples], axis=1))
            silent = self._vad.is_silent(frame)
            noise = self._meter.measure(frame) if silent else None
            packets += self._sender.push(codes[:, at : at + 1], noise=noise)
        return packets

    def finish(self) -> list[bytes]:
        """The packets still owed, the last with the end flag. What is pushed later begins a new stream."""
        if self._ended:
            return []
        self._ended = True
        self._stall.restart()
        rest: IntArray = self._encoder.flush()
        packets = self._sender.push(rest) if rest.shape[1] else []
        packets += self._sender.end(NO_NOISE)
        self._sender.restart()
        self._unjudged = self._unjudged[:, :0]
        return packets

    def on_report(self, report: Report, now_s: float, *, ordered: bool = True) -> None:
        """A listener's report on this voice; it takes effect with the next push. Thread-safe.

        ordered: packets leave over a transport that keeps order.
        """
        if self._adapt:
            self._reports.append((report, now_s, ordered))

    def _apply_reports(self) -> None:
        while self._reports:
            report, now_s, ordered = self._reports.popleft()
            self._sender.configure(self._rate.on_report(report, now_s, ordered=ordered))

    def _make_rate(self) -> RateControl:
        settings = replace(self._asked, num_codebooks=self._encoder.num_codebooks)
        self._sender.configure(settings)
        rate = RateSettings(ladder=self._ladder)
        budget_kbps = 2 * settings.wire_kbps(self._format, rate.overhead_bytes)
        return RateControl(self._format, settings, replace(rate, budget_kbps=budget_kbps))
