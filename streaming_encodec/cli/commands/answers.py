"""`streaming-encodec answers`: what the listeners of a blind test answered."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from streaming_encodec.cli.shared.console import out, print_json
from streaming_encodec.cli.shared.options import JsonOption


def command(
    key: Annotated[Path, typer.Argument(metavar="KEY", help="The .key.json beside the page of `evaluate --listen`.")],
    answers: Annotated[list[Path], typer.Argument(metavar="ANSWERS...", help="Files that listeners saved.")],
    as_json: JsonOption = False,
) -> None:
    """Count the answers of listeners to a page of `evaluate --listen`.

    The chance is that of a split at least so uneven if both are alike: a two-sided sign test.
    """
    from streaming_encodec.evaluation.pairs import count_answers, read_answers

    counts = count_answers(read_answers(key), [read_answers(path) for path in answers])
    if as_json:
        rows = [{"pair": pair, **asdict(count), "chance": count.chance} for pair, count in counts.items()]
        print_json({"comparisons": rows})
        return
    table = Table("first", "second", "first closer", "second closer", "no difference", "chance if alike")
    for (first, second), count in counts.items():
        table.add_row(first, second, str(count.first), str(count.second), str(count.same), f"{count.chance:.1%}")
    out().print(table)
