"""The members of a plain tar, in constant memory, whatever its bytes are.

Python's `tarfile` keeps all members, and reads a header's extension of any size into memory. A corpus may hold
millions of members, and comes from others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streaming_encodec.corpus.recordings import Member
from streaming_encodec.errors import FileFormatError

_BLOCK = 512
_MOST_EXTENSION = 1 << 20
_REGULAR = b"0\x007"
_NOT_FILES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A member, and why its content cannot be used (empty where it can)."""

    member: Member
    problem: str = ""


def tar_entries(path: Path) -> Iterator[Entry]:
    """All members that are no folders. Nothing is unpacked, and no link is followed.

    Raises:
        OSError: the file cannot be read.
        FileFormatError: it is no tar, or compressed, or damaged or cut off from here on.
    """
    with path.open("rb") as file:
        end, at, long_name, pax = file.seek(0, 2), 0, None, dict[str, str]()
        while at < end:
            file.seek(at)
            head = file.read(_BLOCK)
            if len(head) < _BLOCK:
                raise FileFormatError(f"{path}: cut off at byte {at}; copy it again")
            if not head.strip(b"\0"):
                return
            size = _size_of(path, head, at)
            kind, begin = head[156:157], at + _BLOCK
            if kind == b"x" and "size" in pax:
                raise FileFormatError(f"{path}: damaged at byte {at}: a header for a header")
            if kind not in b"xgLK" and "size" in pax:
                size = _number(path, pax["size"], at)
            if begin + size > end:
                name = _name_of(head, long_name, pax)
                raise FileFormatError(
                    f"{path}: cut off at byte {end}: {name!r:.200} should have {size} bytes; copy it again"
                )
            at = begin + -(-size // _BLOCK) * _BLOCK
            if kind in (b"x", b"g", b"L", b"K"):
                if size > _MOST_EXTENSION:
                    raise FileFormatError(f"{path}: damaged at byte {begin}: a header of {size} bytes")
                content = file.read(size)
                if kind == b"x":
                    pax = _pax(path, content, begin)
                elif kind == b"L":
                    long_name = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
                continue
            name = _name_of(head, long_name, pax)
            sparse = any(key.startswith("GNU.sparse") for key in pax)
            long_name, pax = None, {}
            if kind == b"5":
                continue
            problem = "a sparse file" if sparse else "" if kind in _REGULAR else _NOT_FILES.get(kind, "of unknown kind")
            yield Entry(Member(name, begin, size), problem)


def _size_of(path: Path, head: bytes, at: int) -> int:
    """The size that a header says. Raises FileFormatError for one that is none."""
    if (at == 0 and head[:2] in (b"\x1f\x8b", b"BZ")) or head[:4] in (b"\x28\xb5\x2f\xfd", b"\xfd7zX"):
        raise FileFormatError(f"{path}: is compressed: unpack it to a plain .tar first")
    said = head[148:156].strip(b" \0")
    total = sum(head) - sum(head[148:156]) + 8 * 32
    if not said or any(digit not in b"01234567" for digit in said) or int(said, 8) != total:
        raise FileFormatError(f"{path}: {'is no tar' if at == 0 else f'damaged at byte {at}: no header of a tar'}")
    field = head[124:136]
    if field[0] == 0x80:  # GNU: binary
        return int.from_bytes(field[1:], "big")
    return _number(path, field.strip(b" \0").decode("ascii", "replace") or "0", at, 8)


def _number(path: Path, text: str, at: int, base: int = 10) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 25 or (base == 8 and set(text) & {"8", "9"}):
        raise FileFormatError(f"{path}: damaged at byte {at}: {text!r} is no size")
    return int(text, base)


def _name_of(head: bytes, long_name: str | None, pax: dict[str, str]) -> str:
    if "path" in pax:
        return pax["path"]
    if long_name is not None:
        return long_name
    name, prefix = head[:100].split(b"\0")[0], head[345:500].split(b"\0")[0]
    if head[257:262] == b"ustar" and head[262:264] != b" \0" and prefix:
        name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _pax(path: Path, content: bytes, at: int) -> dict[str, str]:
    """Records `LENGTH KEY=VALUE\\n`."""
    found: dict[str, str] = {}
    while content:
        length, space, _ = content[:20].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(content):
            raise FileFormatError(f"{path}: damaged at byte {at}: no extended header")
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = content[int(length) :]
    return found
