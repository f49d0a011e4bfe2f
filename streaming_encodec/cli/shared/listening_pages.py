"""`evaluate --gallery` and `evaluate --listen`: pages to hear a model, instead of figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streaming_encodec.audio.files.atomic import check_writable, write_text
from streaming_encodec.cli.shared.console import note, out
from streaming_encodec.cli.shared.loading import LoadedModel, load_model

if TYPE_CHECKING:
    from streaming_encodec.evaluation.clips import Clip


def check_pages(gallery: Path | None, listen: Path | None, against: str | None) -> None:
    """Options that make pages exclude each other."""
    if gallery is not None and listen is not None:
        raise typer.BadParameter("makes other pages than --gallery: give one of the two", param_hint="--listen")
    if against is not None and listen is None:
        raise typer.BadParameter("is for --listen, the page with pairs: give both", param_hint="--against")
    if listen is not None and listen.suffix != ".html":
        raise typer.BadParameter(
            f"writes a page: its name must end in .html, not {listen.name!r}", param_hint="--listen"
        )


def write_gallery(
    loaded: LoadedModel, clips: list[Clip], folder: Path, gallery: Path, seed: int, burst_ms: float
) -> None:
    """The sound files and pages of ``make_gallery``."""
    from streaming_encodec.evaluation.gallery import make_gallery

    page = make_gallery(
        loaded.in_torch(), loaded.name, clips, folder, gallery, seed=seed, burst_ms=burst_ms,
        on_take=lambda title: note(f"made {title}"),
    )  # fmt: skip
    out().print(f"gallery: {page} and {gallery / 'index.html'}", soft_wrap=True)


def write_pairs(
    loaded: LoadedModel, clips: list[Clip], page: Path, against: str | None, rates: tuple[float, ...], seed: int
) -> None:
    """The page of a blind test at ``rates`` kbps, and its key beside it."""
    from streaming_encodec.evaluation.pairs import make_pairs
    from streaming_encodec.evaluation.rivals import against_model, against_opus

    key = page.with_suffix(".key.json")
    for file in (page, key):
        check_writable(file)
    if against is None:
        comparisons = against_opus(loaded.in_torch(), loaded.name, clips, rates)
    else:
        other = load_model(against)
        name = f"{other.name} ({against})" if other.name == loaded.name else other.name
        comparisons = against_model(loaded.in_torch(), loaded.name, other.in_torch(), name, clips, rates)
    test = make_pairs(clips, comparisons, seed)
    write_text(page, test.page)
    write_text(key, json.dumps(test.key, indent=1, ensure_ascii=False) + "\n")
    out().print(f"{len(test.key['pairs'])} pairs: {page}; what they are: {key}", soft_wrap=True)
