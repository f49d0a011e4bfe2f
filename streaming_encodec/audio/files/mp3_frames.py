"""MPEG audio, frame by frame: the real length of an MP3, the tags around it, and where files were joined.

The header of a frame is four bytes (ISO 11172-3, 2.4.2.3). Encoders that know the length store it in the first
frame, which holds no sound ("Xing" or "Info", "VBRI"); without it all frames must be counted.
"""

from dataclasses import dataclass
from typing import BinaryIO

from streaming_encodec.audio.files.parts import Findings, Part, cut_off, read_at
from streaming_encodec.errors import FileFormatError

_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}
_SEARCH_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class _Frame:
    size: int
    samples: int
    kind: tuple[int, int, int, bool]  # version, layer, rate, mono: equal in all frames of a stream
    xing_at: int


def frame_of(head: bytes) -> _Frame | None:
    """The frame that begins with these four bytes, or None; free bitrates are not supported."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer_bits = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate_index, kbps_index, pad = head[2] >> 2 & 3, head[2] >> 4, head[2] >> 1 & 1
    if version == 1 or not layer_bits or rate_index == 3 or kbps_index in (0, 15):
        return None
    layer, first = 4 - layer_bits, version == 3
    rate = _RATES[version][rate_index]
    bits = 1000 * _KBPS[1 if first else 2, layer][kbps_index - 1]
    mono = head[3] >> 6 == 3
    if layer == 1:
        size, samples = (12 * bits // rate + pad) * 4, 384
    else:
        samples = 576 if layer == 3 and not first else 1152
        size = samples // 8 * bits // rate + pad
    side = 4 + ((17 if mono else 32) if first else (9 if mono else 17))
    return _Frame(size, samples, (version, layer, rate, mono), side)


def find_mp3(file: BinaryIO, end: int, begin: int = 0) -> Findings | None:
    """Find the parts in the frames from `begin` to `end`.

    Returns None if this is not MPEG audio, or if its frames do not state their size.

    Raises:
        FileFormatError: it has fewer frames than it states.
    """
    walk = _Walk(file, end)
    at = skip_tags(file, begin, end)
    first = frame_of(read_at(file, at, 4))
    # Four bytes look like a frame by chance; two frames in a row do not.
    if first is None or not (at + first.size >= end or _continues(file, at + first.size, end, first)):
        return None
    while at < end:
        at = walk.step(at)
    walk.close(min(at, end))
    if not walk.found.parts:
        raise FileFormatError("has no whole MP3 frame in it; copy or record it again")
    return walk.found


class _Walk:
    """Collects frames into parts: a new one begins at each frame that states a length, and after each gap."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.found = Findings()
        self._file = file
        self._end = end
        self._start: int | None = None
        self._frames = 0
        self._samples = 0  # of a frame
        self._kind: tuple[int, int, int, bool] | None = None
        self._stated: int | None = None
        self._stating: int | None = None  # size of the frame that states it

    def step(self, at: int) -> int:
        """Take the frame or gap at an offset, and return the offset after it."""
        frame = frame_of(read_at(self._file, at, 4))
        if frame is None or (self._kind is not None and frame.kind[:3] != self._kind[:3]):
            return self._gap(at)
        if at + frame.size > self._end:
            if self._stated is None:
                self.found.notes.append(f"its last MP3 frame is cut off: {self._end - at} of {frame.size} bytes")
            self.close(at)
            return self._end
        stated = _stated_frames(read_at(self._file, at, min(frame.size, 200)), frame)
        if stated is not None or self._start is None:
            self.close(at)
            self._start, self._samples, self._kind = at, frame.samples, frame.kind
            if stated is not None:
                self._stated, self._stating = stated, frame.size
                return at + frame.size
        self._frames += 1
        return at + frame.size

    def _gap(self, at: int) -> int:
        self.close(at)
        behind = skip_tags(self._file, at, self._end)
        if behind > at:
            return behind
        data = read_at(self._file, at, _SEARCH_BYTES)
        for place in range(1, len(data) - 4):
            frame = frame_of(data[place : place + 4])
            if frame is not None and _continues(self._file, at + place + frame.size, self._end, frame):
                self.found.notes.append(f"{place} bytes at byte {at} are no MP3 frame and were left out")
                return at + place
        if data.strip(b"\0"):
            self.found.notes.append(f"the last {self._end - at} bytes are no MP3 frame and were left out")
        return self._end

    def close(self, at: int) -> None:
        """End the current part. Raises FileFormatError if it has fewer frames than it states."""
        start, frames, stated = self._start, self._frames, self._stated
        stating = self._stating or 0
        self._start = self._stated = self._stating = self._kind = None
        self._frames = 0
        if start is None or not frames:
            return
        # Some encoders count the frame that states the number too.
        if stated is not None and stated > frames + 1:
            raise cut_off(frames, stated, "MP3 frames")
        if stated in (frames, frames + 1):
            self.found.parts.append(Part(start, at))  # and its delay and padding are cut as it says
        else:
            samples = frames * self._samples
            self.found.parts.append(Part(start + stating, at, samples=samples, endless=True))


def _continues(file: BinaryIO, at: int, end: int, frame: _Frame) -> bool:
    """Whether a frame of the same stream, a tag or the end is at an offset."""
    if at >= end:
        return at == end
    following = frame_of(read_at(file, at, 4))
    if following is not None:
        return following.kind[:3] == frame.kind[:3]
    return skip_tags(file, at, end) > at


def _stated_frames(data: bytes, frame: _Frame) -> int | None:
    """The number of frames that a Xing, Info or VBRI frame states; 0 if it states none; None for other frames."""
    if data[frame.xing_at : frame.xing_at + 4] in (b"Xing", b"Info"):
        given = data[frame.xing_at + 7 : frame.xing_at + 8]
        number = data[frame.xing_at + 8 : frame.xing_at + 12]
        return int.from_bytes(number, "big") if given and given[0] & 1 and len(number) == 4 else 0
    if data[36:40] == b"VBRI":
        return int.from_bytes(data[50:54], "big")
    return None


def before_tags(file: BinaryIO, end: int) -> int:
    """The end of a file without the ID3v1 and APE tags at its end."""
    while True:
        if read_at(file, end - 128, 3) == b"TAG" and end >= 128:
            end -= 128
            continue
        foot = read_at(file, end - 32, 32) if end >= 32 else b""
        if foot[:8] != b"APETAGEX":
            return end
        size = int.from_bytes(foot[12:16], "little") + (32 if foot[23] & 0x80 else 0)
        if not 32 <= size <= end:
            return end
        end -= size


def skip_tags(file: BinaryIO, at: int, end: int) -> int:
    """The offset after the ID3 (1 and 2), APE and Lyrics3 tags that begin at `at`."""
    while at < end:
        head = read_at(file, at, 32)
        if head[:3] == b"ID3" and len(head) >= 10 and not any(byte & 0x80 for byte in head[6:10]):
            size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
            at += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            # The size counts the items and the footer, but not a header.
            size = int.from_bytes(head[12:16], "little")
            is_header = head[23] & 0x20
            at += 32 + size if is_header else 32
        elif head[:3] == b"TAG" and end - at >= 128:
            at += 128
        elif head[:11] == b"LYRICSBEGIN":
            rest = read_at(file, at, _SEARCH_BYTES)
            stop = max(rest.find(b"LYRICS200"), rest.find(b"LYRICSEND"))
            if stop < 0:
                return at
            at += stop + 9
        else:
            break
    return min(at, end)
