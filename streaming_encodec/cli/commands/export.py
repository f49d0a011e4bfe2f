"""`streaming-encodec export`: writes a model as ONNX step graphs, for programs without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streaming_encodec.audio.files.folder_lock import FolderLock
from streaming_encodec.cli.shared.console import print_facts, print_json
from streaming_encodec.cli.shared.loading import load_model
from streaming_encodec.cli.shared.options import JsonOption

MOST_FRAMES_PER_STEP = 750
"""Ten seconds: a graph unrolls its LSTM, so it grows with every frame."""


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A bundled model, a hub id, a folder, or a .th file.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
    frames_per_step: Annotated[
        int, typer.Option(min=1, max=MOST_FRAMES_PER_STEP, help="Frames in one step of the graphs.")
    ] = 1,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights in the large matrices.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write encoder, decoder and quantiser as ONNX graphs, with a JSON that says how to run them.

    `docs/export.md` describes the files; `streaming_encodec.engines.onnx.codec` runs them with ONNX Runtime
    and numpy alone.
    """
    from streaming_encodec.audio.files.targets import check_folder
    from streaming_encodec.engines.onnx.export import export
    from streaming_encodec.model.find import fingerprint

    check_folder(folder, [model])
    loaded = load_model(model)
    with FolderLock(folder):
        files = export(loaded.model, folder, frames_per_step, int8)
    sizes = {file.name: file.stat().st_size for file in files}
    facts = {
        "model": loaded.name,
        "fingerprint": fingerprint(loaded.model),
        "frames_per_step": frames_per_step,
        "weights": "int8" if int8 else "float32",
        "files": sizes,
    }
    if as_json:
        print_json(facts)
    else:
        shown = {name: f"{size / 1e6:.2f} MB" for name, size in sizes.items()}
        print_facts(f"{loaded.name} → {folder}", shown)
