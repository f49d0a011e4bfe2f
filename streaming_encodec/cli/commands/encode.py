"""`streaming-encodec encode`: a sound file to `.ecdc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming_encodec.cli.shared.console import minutes, print_facts, print_json
from streaming_encodec.cli.shared.inputs import FileWork, SourceArgument, input_facts, told_of_input
from streaming_encodec.cli.shared.loading import ModelOption, caveat, note_preview
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
    from streaming_encodec.audio.files.standard import is_standard
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
        "input": str(source),
        "output": str(target),
        "model": done.model,
        "weights": weights_of(model),
        "sample_rate": done.sample_rate,
        "samples": done.samples,
        "seconds": done.seconds,
        "num_codebooks": done.num_codebooks,
        "bandwidth_kbps": done.bandwidth_kbps,
        "arithmetic": done.arithmetic or "layers",
        "bytes": done.size_bytes,
        **input_facts(source, done.source),
        "interrupted": work.stop(),
    }
    if as_json:
        print_json(facts, aside=is_standard(target))
    else:
        print_facts(
            f"{source} → {target}",
            {
                "model": done.model + caveat(weights_of(model)),
                "sound": f"{minutes(done.seconds)} at {done.sample_rate} Hz",
                "bitrate": f"{done.bandwidth_kbps:g} kbps ({done.num_codebooks} codebooks)",
                "size": f"{done.size_bytes} bytes",
                **told_of_input(facts),
            },
            aside=is_standard(target),
        )
    work.end(target, done)
