"""What commands share in talking to the user: results go to stdout, everything else to stderr.

Whatever others wrote (a relay's reasons, names in files, file names, error texts) is shown as it is, never acted upon:
see `PlainConsole`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from streaming_encodec.cli.printable import PlainConsole, is_foreign


def out() -> PlainConsole:
    """Console for results. Made anew each time, since tests and pipes exchange the streams."""
    return PlainConsole()


def err() -> PlainConsole:
    """Console for progress, notes and errors."""
    return PlainConsole(stderr=True)


def complain(message: str) -> None:
    """Print an error as one line."""
    err().print(Text.assemble(("error:", "bold red"), " ", " ".join(message.split())), soft_wrap=True)


def note(message: str) -> None:
    """Print something the user should know."""
    err().print(Text.assemble(("note:", "yellow"), " ", " ".join(message.split())), soft_wrap=True)


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object on one line, the whole output of a command run with `--json`."""
    # Not through rich: it would wrap and colour.
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    # JSON itself lets those controls stand that have no place in ASCII's first 32.
    print("".join(json_escape(character) if is_foreign(character) else character for character in text))


def json_escape(character: str) -> str:
    """A character as JSON escapes it, with the halves of a surrogate pair where it needs them."""
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def name_device(kind: str, name: str) -> None:
    """Print which microphone or speaker is used."""
    err().print(Text.assemble((f"{kind}:", "dim"), " ", name))


def print_facts(title: str, facts: Mapping[str, str]) -> None:
    """Print a title and a table of two columns."""
    table = Table(show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    out().print(Text(title, "bold"), soft_wrap=True)
    out().print(table)


@contextmanager
def progress(label: str, total_samples: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal; yields a function to be told how many more samples are done."""
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
        task = bar.add_task(label, total=total_samples)

        def advance(samples: int) -> None:
            bar.advance(task, samples)

        yield advance


def minutes(seconds: float) -> str:
    """12.34 s, 2 min 03 s or 1 h 02 min, whichever reads well."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
