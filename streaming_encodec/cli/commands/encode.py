"""`streaming-encodec encode`: a sound file to `.ecdc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming_encodec.cli.shared.inputs import (
    FileWork,
    SourceArgument,
    file_facts,
    input_facts,
    print_file,
    told_of_input,
)
from streaming_encodec.cli.shared.loading import ModelOption, note_preview
from streaming_encodec.cli.shared.options import (
    BandwidthOption,
    EngineOption,
    JsonOption,
    ThreadsOption,
    file_engine,
    use_threads,
)
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL, weights_of


def command(
    source: SourceArgument,
    target: Annotated[Path, typer.Argument(metavar="OUT.ecdc", help="The file to write; - for stdout.")],
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Compress a sound file to .ecdc, version 0 without a language model.

    With the published 24 and 48 kHz models the file is the one that the original `encodec` package reads and
    writes.
    """
    from streaming_encodec.corpus.transcode import encode_file

    use_threads(threads)
    with FileWork("encoding") as work:
        done = encode_file(
            source,
            target,
            model,
            bandwidth=bandwidth,
            engine=file_engine(engine, threads),
            progress=work.progress,
            stop=work.stop,
        )
    note_preview(model)
    facts = {
        **file_facts(source, target, done, weights_of(model)),
        "arithmetic": done.arithmetic or "layers",
        "bytes": done.size_bytes,
        **input_facts(source, done.source),
        "interrupted": work.stop(),
    }
    print_file(facts, {"size": f"{done.size_bytes} bytes", **told_of_input(facts)}, as_json)
    work.end(target, done)
