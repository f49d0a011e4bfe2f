"""`streaming-encodec decode`: `.ecdc` to a sound file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming_encodec.cli.shared.console import note
from streaming_encodec.cli.shared.inputs import FileWork, SoundArgument, file_facts, print_file
from streaming_encodec.cli.shared.loading import note_preview
from streaming_encodec.cli.shared.options import EngineOption, JsonOption, ThreadsOption, file_engine, use_threads
from streaming_encodec.model.checkpoints.named import weights_of


def command(
    source: Annotated[Path, typer.Argument(metavar="IN.ecdc", help="The file to read; - for standard input.")],
    target: SoundArgument,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="A bundled model, a hub id, a folder, or an original .th file.",
            show_default="the one the file names",
        ),
    ] = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Make a sound file of an .ecdc file, also of one that the original `encodec` wrote without --lm."""
    from streaming_encodec.corpus.transcode import decode_file

    use_threads(threads)
    with FileWork("decoding") as work:
        done = decode_file(
            source, target, model, engine=file_engine(engine, threads), progress=work.progress, stop=work.stop
        )
    if done.model != done.named_model:
        note(f"{source} says it was made with {done.named_model}; it was decoded with {done.model}")
    used = model or done.named_model
    note_preview(used)
    facts = {**file_facts(source, target, done, weights_of(used)), "interrupted": work.stop()}
    print_file(facts, {}, as_json)
    work.end(target, done)
