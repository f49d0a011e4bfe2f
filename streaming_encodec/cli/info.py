"""`streaming-encodec info`: what a file holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.console import minutes, print_facts, print_json
from streaming_encodec.cli.options import JsonOption
from streaming_encodec.errors import FileFormatError

if TYPE_CHECKING:
    from streaming_encodec.model.config import EncodecConfig


def command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A sound file, an .ecdc file, a model's folder or a .th file."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Say what a sound file, an .ecdc file or a model holds, from its header alone."""
    if not file.exists():
        raise FileFormatError(f"{file}: cannot be read: no such file; check the name")
    if file.is_dir():
        facts = _model_folder(file)
    elif file.suffix == ".th":
        facts = _model_file(file)
    elif _begins_as_ecdc(file):
        facts = _ecdc(file)
    else:
        facts = _sound(file)
    if as_json:
        print_json({"file": str(file), **facts})
    else:
        print_facts(str(file), {name.replace("_", " "): _readable(name, value) for name, value in facts.items()})


def _begins_as_ecdc(file: Path) -> bool:
    if file.suffix == ".ecdc":
        return True
    try:
        with file.open("rb") as raw:
            return raw.read(4) == b"ECDC"
    except OSError as error:
        raise FileFormatError(f"{file}: cannot be read: {error.strerror}") from error


def _ecdc(file: Path) -> dict[str, Any]:
    from streaming_encodec.audio.ecdc_file import read_ecdc_header

    header = read_ecdc_header(file)
    facts: dict[str, Any] = {
        "kind": "ecdc",
        "model": header.model,
        "samples": header.samples,
        "num_codebooks": header.num_codebooks,
        "bytes": file.stat().st_size,
    }
    # The header names the model, not its rate; the published names carry it.
    if named := re.search(r"(\d+)khz$", header.model):
        facts["sample_rate"] = int(named[1]) * 1000
        facts["seconds"] = header.samples / facts["sample_rate"]
    return facts


def _sound(file: Path) -> dict[str, Any]:
    from streaming_encodec.audio.files import audio_info

    info = audio_info(file)
    return {
        "kind": "sound",
        "format": info.format,
        "encoding": info.encoding,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "samples": info.samples,
        "seconds": info.seconds,
    }


def _model_folder(folder: Path) -> dict[str, Any]:
    from streaming_encodec.model.config import EncodecConfig

    return _model_facts(EncodecConfig.from_json(folder / "config.json"))


def _model_file(file: Path) -> dict[str, Any]:
    from streaming_encodec.model.encodec import EncodecModel

    return _model_facts(EncodecModel.from_pretrained(file).config)


def _model_facts(config: EncodecConfig) -> dict[str, Any]:
    return {
        "kind": "model",
        "sample_rate": config.sampling_rate,
        "channels": config.audio_channels,
        "bandwidths_kbps": list(config.target_bandwidths),
        "hop_length": config.hop_length,
        "frame_ms": config.frame_ms,
        "num_codebooks": config.num_quantizers,
        "codebook_size": config.codebook_size,
        "streams_by": "samples" if config.streams_by_sample else "segments",
    }


def _readable(name: str, value: Any) -> str:
    if value is None:
        return "not stated"
    if name == "seconds":
        return minutes(value)
    if isinstance(value, list):
        return ", ".join(f"{item:g}" for item in value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)
