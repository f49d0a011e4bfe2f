"""Opus as the baseline: libopus in its voice mode, with its own loss concealment.

libopus is called through ctypes, because bindings to FFmpeg lack loss concealment (decoding "nothing"). The library
is the system's, or else the one inside PyAV's wheel.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass

import numpy as np

from streaming_encodec.errors import MissingExtraError, StreamError
from streaming_encodec.evaluation.extras import EXTRA, package_folder
from streaming_encodec.evaluation.packet_loss import Lost
from streaming_encodec.types import Pcm

# From opus_defines.h of libopus 1.3 … 1.6.
_APPLICATION_VOIP = 2048
_SET_BITRATE, _SET_VBR, _SET_COMPLEXITY, _SET_SIGNAL, _GET_LOOKAHEAD = 4002, 4006, 4010, 4024, 4027
_SIGNAL_VOICE = 3001
_MAX_PACKET_BYTES = 1275
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)

PACKET_MS = 20
"""Opus's usual packet in calls."""

LONG_PACKET_MS = 60
"""Below 6 kbps: Opus reaches such rates only with longer packets."""


def packet_ms(kbps: float) -> int:
    """Length of a packet at ``kbps``."""
    return PACKET_MS if kbps >= 6 else LONG_PACKET_MS


@dataclass(frozen=True)
class OpusStream:
    """A clip's packets; ``kbps`` is the payload's real rate."""

    packets: tuple[bytes, ...]
    packet_samples: int
    sample_rate: int
    delay_samples: int
    length: int

    @property
    def kbps(self) -> float:
        seconds = len(self.packets) * self.packet_samples / self.sample_rate
        return sum(len(p) for p in self.packets) * 8 / seconds / 1000


class Opus:
    """Encodes and decodes whole clips, packet by packet, mono.

    Raises:
        MissingExtraError: no libopus on this machine.
    """

    def __init__(self) -> None:
        self._lib = _library()
        self._lib.opus_get_version_string.restype = ctypes.c_char_p
        self.version: str = self._lib.opus_get_version_string().decode()
        for create in (self._lib.opus_encoder_create, self._lib.opus_decoder_create):
            create.restype = ctypes.c_void_p

    def encode(self, samples: Pcm, sample_rate: int, kbps: float, vbr: bool = True) -> OpusStream:
        """[T] in −1 … 1 → packets at about ``kbps``; voice mode, highest complexity."""
        if sample_rate not in OPUS_RATES:
            raise StreamError(f"Opus takes {', '.join(map(str, OPUS_RATES))} Hz, not {sample_rate}: resample first")
        size = sample_rate * packet_ms(kbps) // 1000
        error = ctypes.c_int()
        encoder = ctypes.c_void_p(self._lib.opus_encoder_create(sample_rate, 1, _APPLICATION_VOIP, ctypes.byref(error)))
        _check(error.value, "opus_encoder_create")
        try:
            for request, value in (
                (_SET_BITRATE, round(kbps * 1000)),
                (_SET_VBR, int(vbr)),
                (_SET_COMPLEXITY, 10),
                (_SET_SIGNAL, _SIGNAL_VOICE),
            ):
                _check(self._lib.opus_encoder_ctl(encoder, request, ctypes.c_int(value)), "opus_encoder_ctl")
            delay = ctypes.c_int()
            _check(self._lib.opus_encoder_ctl(encoder, _GET_LOOKAHEAD, ctypes.byref(delay)), "opus_encoder_ctl")
            count = -(-(len(samples) + delay.value) // size)
            padded = np.zeros(count * size, np.float32)
            padded[: len(samples)] = samples
            buffer = ctypes.create_string_buffer(_MAX_PACKET_BYTES)
            packets = []
            for frame in padded.reshape(count, size):
                data = np.ascontiguousarray(frame).ctypes.data_as(ctypes.POINTER(ctypes.c_float))
                written = self._lib.opus_encode_float(encoder, data, size, buffer, _MAX_PACKET_BYTES)
                _check(written, "opus_encode_float")
                packets.append(buffer.raw[:written])
        finally:
            self._lib.opus_encoder_destroy(encoder)
        return OpusStream(tuple(packets), size, sample_rate, delay.value, len(samples))

    def decode(self, stream: OpusStream, lost: Lost | None = None) -> Pcm:
        """Packets → [T], delay removed. If ``lost`` [packets] is true, the decoder conceals."""
        error = ctypes.c_int()
        decoder = ctypes.c_void_p(self._lib.opus_decoder_create(stream.sample_rate, 1, ctypes.byref(error)))
        _check(error.value, "opus_decoder_create")
        out = np.zeros((len(stream.packets), stream.packet_samples), np.float32)
        try:
            for number, packet in enumerate(stream.packets):
                missing = lost is not None and bool(lost[number])
                written = self._lib.opus_decode_float(
                    decoder,
                    None if missing else packet,
                    0 if missing else len(packet),
                    out[number].ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
                    stream.packet_samples,
                    0,
                )
                _check(written, "opus_decode_float")
        finally:
            self._lib.opus_decoder_destroy(decoder)
        return out.reshape(-1)[stream.delay_samples :][: stream.length]


def _library() -> ctypes.CDLL:
    name = ctypes.util.find_library("opus")
    if name is None:
        package = package_folder("av", "the Opus baseline", f"install libopus, or {EXTRA}")
        # Wheels on Linux keep shared libraries in av.libs, on macOS in av/.dylibs, on Windows in av.libs.
        found = [
            path
            for folder in (package.parent / "av.libs", package / ".dylibs")
            for path in sorted(folder.glob("*opus*"))
        ]
        if not found:
            raise MissingExtraError("the Opus baseline needs libopus: install it (Debian: apt install libopus0)")
        name = str(found[0])
    return ctypes.CDLL(name)


def _check(code: int, call: str) -> None:
    if code < 0:
        raise StreamError(f"libopus: {call} failed with code {code} (see opus_defines.h)")
