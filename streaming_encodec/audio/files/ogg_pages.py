"""Ogg and FLAC: joined and cut-off streams (RFC 3533, RFC 9639)."""

from typing import BinaryIO

from streaming_encodec.audio.files.parts import Findings, Part, read_at
from streaming_encodec.errors import FileFormatError

_BEGINS, _ENDS = 0x02, 0x04
_BLOCK_BYTES = 1 << 20
_FLAC_BEGINS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")


def find_ogg(file: BinaryIO, end: int) -> Findings:
    """Find the parts of an Ogg file: each chained stream is one.

    Raises:
        FileFormatError: it is cut off within a page, pages are missing, or it holds several streams at once.
    """
    found = Findings()
    start = at = 0
    serial: bytes | None = None
    number = 0
    ended = False
    while at < end:
        head = read_at(file, at, 27 + 255)
        if head[:4] != b"OggS":
            if head[:3] in (b"TAG", b"ID3", b"APE") or not head.strip(b"\0"):
                break  # what taggers for MP3 leave, or padding
            raise FileFormatError(f"damaged: no Ogg page at byte {at}; copy or record it again")
        if len(head) < 27 or len(head) < 27 + head[26]:
            raise _cut(at)
        size = 27 + head[26] + sum(head[27 : 27 + head[26]])
        if at + size > end:
            raise _cut(at)
        flags, this, this_number = head[5], head[14:18], int.from_bytes(head[18:22], "little")
        if flags & _BEGINS:
            if serial is not None:
                if number == 1:
                    raise FileFormatError("holds several streams at once (a film?); take the sound out of it first")
                _close(found, Part(start, at), ended)
            start, serial, ended = at, this, False
        elif this != serial:
            raise FileFormatError(f"damaged: a page of another stream at byte {at}; copy or record it again")
        elif this_number != number:
            raise FileFormatError(f"damaged: Ogg pages are missing before byte {at}; copy or record it again")
        number = this_number + 1
        ended = bool(flags & _ENDS)
        at += size
    _close(found, Part(start, at), ended)
    return found


def find_flac(file: BinaryIO, end: int) -> Findings:
    """Find the FLAC streams in a file: several, if files were joined."""
    starts = [0]
    held = b""
    file.seek(0)
    at = 0
    while block := file.read(_BLOCK_BYTES):
        data = held + block
        for mark in _FLAC_BEGINS:
            place = data.find(mark)
            while place >= 0:
                if at - len(held) + place > 0:
                    starts.append(at - len(held) + place)
                place = data.find(mark, place + 1)
        at += len(block)
        held = data[-(len(_FLAC_BEGINS[0]) - 1) :]
    starts = sorted(set(starts))
    return Findings([Part(start, stop) for start, stop in zip(starts, [*starts[1:], end], strict=True)])


def _close(found: Findings, part: Part, ended: bool) -> None:
    if not ended:
        found.notes.append("an Ogg stream in it has no end mark: what was written of it up to there was read")
    found.parts.append(part)


def _cut(at: int) -> FileFormatError:
    return FileFormatError(f"cut off within its last Ogg page, at byte {at}; copy or record it again")
