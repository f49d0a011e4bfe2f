"""Containers of chunks: WAV, RF64, Wave64, AIFF, CAF, and AU, whose one chunk has no name.

A chunk's length is 0 or impossible if a recorder was killed before it could write it: then the sound extends to the
end of the file.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from streaming_encodec.audio.files.mp3_frames import find_mp3
from streaming_encodec.audio.files.parts import Findings, Part, RawFormat, cut_off, read_at
from streaming_encodec.errors import FileFormatError

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_LONGEST_FORMAT = 4096
_MP3_TAGS = (b"\x55\x00", b"\x50\x00")  # WAVE_FORMAT_MPEGLAYER3, WAVE_FORMAT_MPEG
_UNKNOWN_BYTES = 0x7FFF_0000
"""A recorder that cannot seek writes 0xFFFFFFFF as a chunk's length, or a value near it or near its half."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a container stores its chunks."""

    name: str
    order: str  # "<" or ">"
    header: int  # bytes before the first chunk
    sound: bytes  # name of the chunk with the samples
    format: bytes  # name of the chunk that describes them
    wide: bool = False  # 64-bit lengths
    pad: int = 2

    def chunk(self, data: bytes) -> tuple[bytes, int, int] | None:
        """Name, length of the content and size of the header of the chunk that begins with these bytes."""
        if self.name == "W64":
            if len(data) < 24:
                return None
            return data[:16], struct.unpack_from("<Q", data, 16)[0] - 24, 24
        if self.wide:
            return (data[:4], struct.unpack_from(">q", data, 4)[0], 12) if len(data) >= 12 else None
        return (data[:4], struct.unpack_from(self.order + "I", data, 4)[0], 8) if len(data) >= 8 else None


_RIFF = _Kind("WAV", "<", 12, b"data", b"fmt ")
_RIFX = _Kind("WAV", ">", 12, b"data", b"fmt ")
_RF64 = _Kind("RF64", "<", 12, b"data", b"fmt ")
_AIFF = _Kind("AIFF", ">", 12, b"SSND", b"COMM")
_W64 = _Kind("W64", "<", 40, b"data" + _W64_TAIL, b"fmt " + _W64_TAIL, True, 8)
_CAF = _Kind("CAF", ">", 8, b"data", b"desc", True, 1)


def kind_of(head: bytes) -> _Kind | None:
    """The container that begins with these 40 bytes, if it is one of these kinds; not AU."""
    if head[8:12] == b"WAVE":
        return {b"RIFF": _RIFF, b"RIFX": _RIFX, b"RF64": _RF64}.get(head[:4])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _AIFF
    if head[:16] == _W64_RIFF and head[24:28] == b"wave":
        return _W64
    return _CAF if head[:4] == b"caff" else None


def find_chunks(file: BinaryIO, kind: _Kind, end: int) -> Findings:
    """Find the parts of a file of this kind, and of files that are joined to it.

    Raises:
        FileFormatError: the sound is cut off, or its length is unknown and does not follow from its coding.
    """
    found = Findings()
    start: int | None = 0
    while start is not None:
        start = _one(file, kind, start, end, found)
    return found


def _one(file: BinaryIO, kind: _Kind, start: int, end: int, found: Findings) -> int | None:
    """Find the parts of one container; returns the start of the next one, if there is one."""
    raw: RawFormat | None = None
    wide_bytes: int | None = None
    sound: tuple[int, int] | None = None
    is_mp3 = False
    for name, at, size in _walk(file, kind, start + kind.header, end):
        if name == kind.format:
            content = read_at(file, at, min(size, _LONGEST_FORMAT))
            raw = _format_of(kind, content, read_at(file, start + 8, 4))
            is_mp3 = kind in (_RIFF, _RF64, _W64) and content[:2] in _MP3_TAGS
        elif name == b"ds64" and kind is _RF64:
            wide_bytes = struct.unpack("<Q", read_at(file, at + 8, 8).ljust(8, b"\0"))[0]
        elif name == kind.sound:
            sound = at, size
            if kind is not _AIFF or raw is not None:
                break  # an AIFF may describe its sound behind it
    if sound is None:
        raise FileFormatError(f"not an audio file that can be read: a {kind.name} without sound in it")
    at, size = sound
    offset = {_AIFF: 8, _CAF: 4}.get(kind, 0)  # numbers before the samples
    if kind is _RF64 and size == 0xFFFF_FFFF and wide_bytes is not None:
        size = wide_bytes
    length = _length_of(file, kind, at, size, end, offset)
    mp3 = find_mp3(file, end if length is None else min(end, at + length), at) if is_mp3 else None
    if mp3 is not None:
        found.parts += mp3.parts
        found.notes += mp3.notes
        return None if length is None else _joined(file, kind, at + length, start, end, found)
    if length is None:  # to the end
        found.parts.append(_raw_part(kind, raw, at + offset, end, found))
        return None
    if length > size:  # of which the header has the last 32 bits
        found.parts.append(_raw_part(kind, raw, at + offset, at + length, found))
        return _joined(file, kind, at + length, start, end, found)
    following = _joined(file, kind, at + length, start, end, found)
    # libsndfile reads everything that follows in a Wave64 as sound.
    found.parts.append(Part(start, at + length if kind is _W64 else end if following is None else following))
    return following


def _walk(file: BinaryIO, kind: _Kind, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, offset and length of each chunk."""
    begin = at
    while at < end and (head := kind.chunk(read_at(file, at, 24))) is not None:
        name, size, header = head
        yield name, at + header, size
        if size < 0 or at + header + size > end:
            return
        at += header + size
        at += -(at - begin) % kind.pad


def _length_of(file: BinaryIO, kind: _Kind, at: int, size: int, end: int, offset: int) -> int | None:
    """Length of the sound chunk's content; None for "to the end of the file".

    Raises FileFormatError if it is cut off.
    """
    there = end - at
    limit = 2**62 if kind.wide or kind is _RF64 else _UNKNOWN_BYTES
    if size <= offset:  # nothing, or never written; at a length of -1 CAF means the end itself
        return size if size >= 0 and _are_chunks(file, kind, at + max(0, size), end) else None
    if size > there:
        if size >= limit:
            return None
        raise cut_off(max(0, there - offset), size - offset)
    wrapped = (there - size) // 2**32 * 2**32
    if wrapped and not kind.wide and not _are_chunks(file, kind, at + size, end):
        return size + wrapped
    return size


def _are_chunks(file: BinaryIO, kind: _Kind, at: int, end: int) -> bool:
    """Whether whole chunks follow up to the end, or nothing."""
    at += at % 2 if kind.pad == 2 else 0
    last = at
    for name, place, size in _walk(file, kind, at, end):
        if size < 0 or place + size > end or not all(0x20 <= letter < 0x7F for letter in name[:4]):
            return False
        last = place + size
    return end - last < kind.pad


def _joined(file: BinaryIO, kind: _Kind, at: int, start: int, end: int, found: Findings) -> int | None:
    """Where another container begins after the sound, which ends at `at`; None if there is none."""
    if kind_of(read_at(file, at, 40)) is kind:  # not every writer fills up an odd length
        return at
    at = min(at + -(at - start) % kind.pad, end)
    while at < end:
        head = read_at(file, at, 40)
        if kind_of(head) is not None:
            if kind_of(head) is not kind:
                raise FileFormatError(f"two files were joined that are of two kinds, at byte {at}; take them apart")
            return at
        chunk = kind.chunk(head)
        if chunk is None or not all(0x20 <= letter < 0x7F for letter in chunk[0][:4]):
            break
        name, size, header = chunk
        if name == kind.sound:
            raise FileFormatError(f"has more than one piece of sound ({kind.name}); convert it with another program")
        if name[:3] in (b"TAG", b"ID3", b"APE") or size < 0 or at + header + size > end:
            break
        at += header + size
        at += at % kind.pad if kind.pad == 2 else 0
    rest = read_at(file, at, 16)
    if end - at >= kind.pad and rest.strip(b"\0") and rest[:3] not in (b"TAG", b"ID3", b"APE"):
        found.notes.append(f"{end - at} bytes behind the sound are no part of a {kind.name} file and were left out")
    return None


def _raw_part(kind: _Kind, raw: RawFormat | None, start: int, end: int, found: Findings) -> Part:
    if raw is None:
        raise FileFormatError(
            f"its header was never completed, and the length of its sound is unknown ({kind.name}); repair or record "
            "it again"
        )
    samples = (end - start) // raw.sample_bytes
    found.notes.append(f"its header does not say how long it is; the {samples} samples up to the end of the file count")
    return Part(start, start + samples * raw.sample_bytes, raw, samples)


# -- what the samples are ------------------------------------------------------------------------------------


def _format_of(kind: _Kind, data: bytes, form: bytes) -> RawFormat | None:
    """The layout of the samples, or None for a coding other than plain samples."""
    try:
        if kind is _AIFF:
            return _of_aiff(data, form)
        if kind is _CAF:
            return _of_caf(data)
        return wav_format(data, kind.order, kind.name)
    except struct.error:
        return None


def wav_format(data: bytes, order: str, container: str = "WAV") -> RawFormat | None:
    """The layout of the samples that the content of a WAV's `fmt ` chunk describes."""
    tag, channels, rate, _, block, bits = struct.unpack_from(order + "HHIIHH", data)
    if tag == 0xFFFE:
        tag = struct.unpack_from(order + "H", data, 24)[0]
    if not channels or not rate or block % channels:
        return None
    width = block // channels
    subtype = {
        (1, 1): "PCM_U8",
        (1, 2): "PCM_16",
        (1, 3): "PCM_24",
        (1, 4): "PCM_32",
        (3, 4): "FLOAT",
        (3, 8): "DOUBLE",
        (6, 1): "ALAW",
        (7, 1): "ULAW",
    }.get((tag, width))
    if subtype is None or bits > 8 * width:
        return None
    return RawFormat(container, subtype, "BIG" if order == ">" else "LITTLE", rate, channels)


def _of_aiff(data: bytes, form: bytes) -> RawFormat | None:
    channels, _, bits, exponent, mantissa = struct.unpack_from(">HIHHQ", data)
    if not 16383 <= exponent < 16383 + 31:
        return None
    rate = round(mantissa * 2.0 ** (exponent - 16383 - 63))
    coding = data[18:22] if form == b"AIFC" else b"NONE"
    endian = "LITTLE" if coding == b"sowt" else "BIG"
    signed = {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}.get(-(-bits // 8))
    subtype = {
        b"NONE": signed,
        b"twos": signed,
        b"sowt": signed,
        b"raw ": "PCM_U8",
        b"fl32": "FLOAT",
        b"FL32": "FLOAT",
        b"fl64": "DOUBLE",
        b"FL64": "DOUBLE",
        b"ulaw": "ULAW",
        b"ULAW": "ULAW",
        b"alaw": "ALAW",
        b"ALAW": "ALAW",
    }.get(coding)
    if subtype is None or not channels or not 0 < rate < 2**31:
        return None
    return RawFormat("AIFF", subtype, endian, rate, channels)


def _of_caf(data: bytes) -> RawFormat | None:
    rate, coding, flags, packet, frames, channels, bits = struct.unpack_from(">d4sIIIII", data)
    if not 1 <= rate < 2**31 or not channels or frames != 1 or packet % channels:
        return None
    width = packet // channels
    subtype = {
        (b"lpcm", 1): "PCM_S8",
        (b"lpcm", 2): "PCM_16",
        (b"lpcm", 3): "PCM_24",
        (b"lpcm", 4): "FLOAT" if flags & 1 else "PCM_32",
        (b"lpcm", 8): "DOUBLE" if flags & 1 else None,
        (b"ulaw", 1): "ULAW",
        (b"alaw", 1): "ALAW",
    }.get((coding, width))
    if subtype is None or bits > 8 * width:
        return None
    return RawFormat("CAF", subtype, "LITTLE" if flags & 2 else "BIG", round(rate), channels)


# -- AU ------------------------------------------------------------------------------------------------------

_AU_SUBTYPES = {1: "ULAW", 2: "PCM_S8", 3: "PCM_16", 4: "PCM_24", 5: "PCM_32", 6: "FLOAT", 7: "DOUBLE", 27: "ALAW"}


def au_format(head: bytes) -> tuple[int, int | None, RawFormat | None] | None:
    """From an AU's first 24 bytes: offset and length of its sound (None: not stated), and the samples' layout."""
    order = {b".snd": ">", b"dns.": "<"}.get(head[:4])
    if order is None or len(head) < 24:
        return None
    offset, size, coding, rate, channels = struct.unpack_from(order + "IIIII", head, 4)
    raw = None
    if coding in _AU_SUBTYPES and 0 < rate < 2**31 and channels:
        raw = RawFormat("AU", _AU_SUBTYPES[coding], "BIG" if order == ">" else "LITTLE", rate, channels)
    return offset, None if size in (0, 0xFFFF_FFFF) else size, raw


def find_au(file: BinaryIO, end: int) -> Findings:
    """Find the parts of an AU file. Raises FileFormatError if it is cut off."""
    found = Findings()
    layout = au_format(read_at(file, 0, 24))
    if layout is None:
        raise FileFormatError("not an audio file that can be read: an AU cut off in its header")
    offset, size, raw = layout
    there = max(0, end - offset)
    if size is not None and size > there:
        raise cut_off(there, size)
    if size is None and there and raw is not None:
        found.parts.append(_raw_part(_Kind("AU", ">", 24, b"", b""), raw, offset, end, found))
        return found
    if size is not None and size < there:
        found.notes.append(f"{there - size} bytes behind the sound are no part of an AU file and were left out")
    found.parts.append(Part(0, end))
    return found
