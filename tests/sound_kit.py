"""Sound files as the world has them: joined, cut off, never completed, tagged."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import soundfile

RATE = 24_000
# An encoder's name and what a tagger adds.
ID3V2 = b"ID3\x04\x00\x00\x00\x00\x02\x01" + b"TIT2" + bytes(253)
ID3V1 = b"TAG" + b"a song".ljust(125, b"\0")
APE_END = b"APETAGEX" + struct.pack("<IIII", 2000, 40 + 32, 1, 0x8000_0000) + bytes(8)
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 40 + 32, 1, 0xA000_0000) + bytes(8) + b"x" * 40 + APE_END


def sound(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise [n, C], coloured, so that coders can do something with it."""
    noise = np.random.default_rng(seed).standard_normal((samples + 50, channels))
    smooth = np.stack([np.convolve(noise[:, c], np.hanning(51), "valid") for c in range(channels)], axis=1)
    return (0.02 * smooth[:samples]).astype(np.float32)


def encoded(pcm: np.ndarray, kind: str, subtype: str | None = None, rate: int = RATE) -> bytes:
    """A whole file, as libsndfile writes it."""
    data = io.BytesIO()
    soundfile.write(data, pcm, rate, format=kind, subtype=subtype)
    return data.getvalue()


def mp3_of(pcm: np.ndarray, folder: Path, xing: bool, rate: int = RATE) -> bytes:
    """A variable-bitrate MP3, of which a live recorder does not say the length."""
    import av

    path = folder / "made.mp3"
    with av.open(str(path), "w", options={"write_xing": str(int(xing)), "id3v2_version": "0"}) as out:
        stream = out.add_stream("libmp3lame", rate=rate, layout="mono")
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 4 * 118
        for start in range(0, len(pcm), 1152):
            frame = av.AudioFrame.from_ndarray(pcm[None, start : start + 1152, 0], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    data = path.read_bytes()
    path.unlink()
    return data


def patched(data: bytes, mark: bytes, offset: int, new: bytes) -> bytes:
    """The bytes with others at a distance from where `mark` begins."""
    at = data.index(mark) + offset
    return data[:at] + new + data[at + len(new) :]


def unfinished(kind: str, data: bytes, length: int = 0) -> bytes:
    """A file whose recorder was killed before it wrote the lengths: all of them are `length`, or -1."""
    if kind == "WAV":
        return patched(patched(data, b"data", 4, struct.pack("<i", length)), b"RIFF", 4, struct.pack("<i", length))
    if kind == "RF64":
        data = patched(data, b"ds64", 8, struct.pack("<qqq", length, length, length))
        return patched(data, b"data", 4, b"\xff\xff\xff\xff")
    if kind == "AIFF":
        data = patched(data, b"SSND", 4, struct.pack(">i", length))
        return patched(patched(data, b"COMM", 10, struct.pack(">i", length)), b"FORM", 4, struct.pack(">i", length))
    if kind == "AU":
        return patched(data, b".snd", 8, struct.pack(">i", length))
    if kind == "W64":
        data = patched(data, b"data\xf3", 16, struct.pack("<q", length))
        return patched(data, b"riff", 16, struct.pack("<q", length))
    if kind == "CAF":
        return patched(data, b"data", 4, struct.pack(">q", length))
    raise ValueError(kind)


def joined_by_walk(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WAV of these chunks in this order."""
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body
