"""How far a corpus is: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from streaming_encodec.cli.shared.console import err, minutes, note

if TYPE_CHECKING:
    from streaming_encodec.corpus.encode import Progress as CorpusProgress

_LOG_S = 60.0


@contextmanager
def corpus_progress(clock: Callable[[], float]) -> Iterator[Callable[[CorpusProgress], None]]:
    """Yields the function that `encode_corpus` calls with its progress. `clock`: seconds."""
    begin_s, logged_s = clock(), clock()
    console = err()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("encoding", total=None, text="")

        def show(now: CorpusProgress) -> None:
            nonlocal logged_s
            text = progress_text(now, clock() - begin_s)
            bar.update(task, completed=now.recordings, total=now.of_recordings, text=text)
            if not console.is_terminal and clock() - logged_s >= _LOG_S:
                logged_s = clock()
                note(f"{now.recordings} of {now.of_recordings} recordings; {text}")

        yield show


def progress_text(now: CorpusProgress, elapsed_s: float) -> str:
    """Hours of sound done, hours of sound an hour, and what is left."""
    if not now.recordings or elapsed_s <= 0:
        return ""
    share = now.recordings / now.of_recordings
    if now.of_seconds and now.seconds:
        share = min(1.0, now.seconds / now.of_seconds)
    total_s = now.of_seconds or now.seconds / share
    about = "" if now.of_seconds else "about "
    return (
        f"{now.seconds / 3600:.1f} of {about}{total_s / 3600:.1f} h of sound, {now.seconds / elapsed_s:.0f} h an hour, "
        f"{minutes(elapsed_s * (1 - share) / share)} left"
    )
