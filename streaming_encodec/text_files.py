"""Text that other programs wrote: editors and shells of Windows put a byte-order mark before it, or write UTF-16."""

from __future__ import annotations

import codecs

_MARKS = (
    # The marks of UTF-32 first: that of UTF-16 is the beginning of one of them.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(data: bytes) -> str:
    """The encoding that a byte-order mark names, or UTF-8."""
    return next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")


def decode_text(data: bytes) -> str:
    """A text file's contents without its byte-order mark. Raises UnicodeDecodeError."""
    return data.decode(encoding_of(data))
