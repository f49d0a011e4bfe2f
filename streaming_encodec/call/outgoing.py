"""One voice on its way out: samples to codes to packets, without silence, at a rate that listeners' reports choose.

Synchronous and without sockets: it runs in the thread that encodes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming_encodec.call.resting_encoder import RestingEncoder
from streaming_encodec.call.speech import find_speech_detector
from streaming_encodec.model.find import AnyModel
from streaming_encodec.stepping.arrays import NumpyArrays
from streaming_encodec.stepping.engine import EngineOrName
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.streaming.io import take_samples
from streaming_encodec.types import IntArray, Pcm
from streaming_encodec.voice.noise import NoiseMeter
from streaming_encodec.voice.rate import RateControl, RateSettings
from streaming_encodec.voice.sender import Sender, SenderSettings, StallMeter
from streaming_encodec.voice.vad import VoiceActivityDetector
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.header import NO_NOISE
from streaming_encodec.wire.packet import StreamFormat

_WAITING_REPORTS = 1024


class OutgoingVoice:
    """Encoder, sender, voice activity detection and rate control of one client.

    dtx: send little while nobody speaks, and encode nothing of it.
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
        self._resting = RestingEncoder(self._encoder)
        self._unjudged: Pcm = np.zeros((stream_format.channels, 0), np.float32)  # from the next step on
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
        if self._vad is None:
            codes: IntArray = self._encoder.push(pcm)
            return self._go_on(np.shape(pcm)[-1], now_s) + self._sender.push(codes)
        sound = take_samples(pcm, 1, self._encoder.config, NumpyArrays())[0][0]
        packets = self._go_on(sound.shape[1], now_s)
        self._unjudged = np.concatenate([self._unjudged, sound], axis=1)
        step, ahead = self._resting.step_samples, self._resting.ahead_samples
        while self._unjudged.shape[1] >= step + ahead:
            packets += self._speak_or_rest(self._unjudged[:, : step + ahead], self._vad)
            self._unjudged = self._unjudged[:, step:]
        return packets

    def _go_on(self, samples: int, now_s: float) -> list[bytes]:
        """So many samples came; the packets that a pause of the caller's before them gives."""
        gap_s, ended = self._stall.gap_s(samples, now_s), self._ended
        self._ended = False
        return self._sender.skip(round(gap_s / self._format.frame_seconds)) if gap_s and not ended else []

    def _speak_or_rest(self, sound: Pcm, vad: VoiceActivityDetector) -> list[bytes]:
        """A step of sound, and what the encoder needs of the next one."""
        size = self._format.frame_samples
        frames = [sound[:, at : at + size] for at in range(0, self._resting.step_samples, size)]
        silent = [vad.is_silent(frame) for frame in frames]
        packets: list[bytes] = []
        if all(silent):
            self._resting.rest(sound)
            for frame in frames:
                packets += self._sender.rest(self._noise(frame))
            return packets
        before, codes = self._resting.encode(sound)
        self._sender.recall(before)
        for at, frame in enumerate(frames):
            packets += self._sender.push(codes[:, at : at + 1], noise=self._noise(frame) if silent[at] else None)
        return packets

    def _noise(self, frame: Pcm) -> tuple[int, ...]:
        """What a noise packet says; it is measured where there will be one."""
        return self._meter.measure(frame) if self._sender.noise_is_due else NO_NOISE

    def finish(self) -> list[bytes]:
        """The packets still owed, the last with the end flag. What is pushed later begins a new stream."""
        if self._ended:
            return []
        self._ended = True
        self._stall.restart()
        rest: IntArray = self._encoder.flush() if self._vad is None else self._resting.finish(self._unjudged)
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
