"""`.ecdc` files read with one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from streaming_encodec.audio.files.ecdc import EcdcReader
from streaming_encodec.wire.ecdc import EcdcBlock, EcdcHeader, EcdcLayout


def read_ecdc_header(path: str | os.PathLike[str]) -> EcdcHeader:
    """The header alone."""
    with EcdcReader(path) as reader:
        return reader.header


def read_ecdc(path: str | os.PathLike[str], layout_of: Callable[[EcdcHeader], EcdcLayout]) -> Iterator[EcdcBlock]:
    """The blocks, in constant memory."""
    with EcdcReader(path) as reader:
        yield from reader.blocks(layout_of(reader.header))
