"""Output of commands: results go to stdout, everything else to stderr.

Foreign text (a relay's reasons, names in files, file names, error texts) is shown literally and cannot control the
terminal: see `PlainConsole`.
"""

import codecs
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from streaming_encodec.cli.shared.printable import PlainConsole, is_foreign

_SPELLED = "streaming-encodec.spelled"
_PLAIN = {"→": "->", "–": "-", "…": "...", "×": "x", "≥": ">=", "≤": "<="}


def out() -> PlainConsole:
    """Console for results. A new one at each call, since tests and pipes replace the streams."""
    return PlainConsole()


def err() -> PlainConsole:
    """Console for progress, notes and errors."""
    return PlainConsole(stderr=True)


def prepare_streams() -> None:
    """Let stdout and stderr accept every character: those outside their encoding are escaped."""
    codecs.register_error(_SPELLED, _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SPELLED)


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(letter, letter.encode("ascii", "backslashreplace").decode()) for letter in letters)
    return plain, error.end


def complain(message: str) -> None:
    """Print an error as one line."""
    err().print(Text.assemble(("error:", "bold red"), " ", " ".join(message.split())), soft_wrap=True)


def note(message: str) -> None:
    """Print something the user should know."""
    err().print(Text.assemble(("note:", "yellow"), " ", " ".join(message.split())), soft_wrap=True)


def print_json(values: Mapping[str, Any], *, aside: bool = False) -> None:
    """Print one JSON object on one line, the whole output of a command run with `--json`.

    `aside` prints it to stderr, for a command that writes sound to stdout.
    """
    file = sys.stderr if aside else sys.stdout
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(file.encoding or "utf-8")
    except UnicodeEncodeError:  # a file name that is not text, or characters outside the stream's encoding
        text = json.dumps(values, allow_nan=False)
    # Not through rich, which wraps and colours.
    # JSON does not escape control characters above U+001F.
    print("".join(json_escape(character) if is_foreign(character) else character for character in text), file=file)


def json_escape(character: str) -> str:
    """A character as a JSON escape, as a surrogate pair if needed."""
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def name_device(kind: str, name: str) -> None:
    """Print which microphone or speaker is used."""
    err().print(Text.assemble((f"{kind}:", "dim"), " ", name))


def print_facts(title: str, facts: Mapping[str, str], *, aside: bool = False) -> None:
    """Print a title and a table of two columns; `aside` to stderr, for a command that writes sound to stdout."""
    console = err() if aside else out()
    table = Table(show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    console.print(Text(title, "bold"), soft_wrap=True)
    console.print(table)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on the terminal; yields a function that takes what is done and how much there is (None: not known)."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=err(),
        transient=True,
        disable=not err().is_terminal,
    )
    with bar:
        task = bar.add_task(label, total=None)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def minutes(seconds: float) -> str:
    """12.34 s, 2 min 03 s or 1 h 02 min."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
