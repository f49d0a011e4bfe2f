"""Makes foreign text safe for a terminal: characters that move the cursor, colour or reorder are escaped."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# Controls, formats (right-to-left overrides, tags, …), halves of surrogate pairs (file names that are not UTF-8), and
# separators that some terminals treat as line ends.
_FOREIGN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
"""Part of words in Persian and Hindi, and of emoji."""


def printable(text: str) -> str:
    r"""The text with each character that controls a terminal escaped as in Python (``\x1b``); line ends stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _spelled(character) if is_foreign(character) and character != "\n" else character for character in text
    )


def is_foreign(character: str) -> bool:
    """Whether a terminal interprets this character instead of showing it."""
    return unicodedata.category(character) in _FOREIGN and character not in _JOINERS


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class PrintableFormatter(logging.Formatter):
    """Formats logs of libraries, which quote data from the network."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        return printable(super().format(record))


class PlainConsole(Console):
    """A console that shows all text literally: no markup, no emoji names, no foreign control characters.

    Style is given by `rich.text.Text`, never in the text itself, so nothing has to be escaped anywhere.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a string printable here, so that it is measured as it is shown."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Make all segments printable, except rich's own control codes."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
