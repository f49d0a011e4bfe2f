"""`streaming-encodec info`: what a file or a model holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from streaming_encodec.audio.files.source import ByteSource
from streaming_encodec.audio.files.standard import is_standard
from streaming_encodec.cli.shared.console import minutes, print_facts, print_json
from streaming_encodec.cli.shared.options import JsonOption
from streaming_encodec.errors import FileFormatError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL, PUBLISHED

_EXPORT_CONFIG = "codec.json"


def command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A sound file, an .ecdc file, a model's folder, a .th file, an exported codec's folder, or the name "
            "of a model, see `models`; - for standard input.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Say what a sound file, an .ecdc file or a model holds.

    Of a model also its fingerprint, by which the two ends of a call know that they have the same one.
    """
    if not is_standard(file) and not file.exists():
        name = file.as_posix()
        if name not in (DEFAULT_MODEL, *PUBLISHED, *PUBLISHED.values()):
            raise FileFormatError(f"{file}: cannot be read: no such file, and no name that `models` lists; check it")
        facts = _model(PUBLISHED.get(name, name))
    elif (file / _EXPORT_CONFIG).is_file():
        facts = _export(file)
    elif file.is_dir() or file.suffix == ".th":
        facts = _model(file)
    else:
        with ByteSource(file) as source:
            is_ecdc = file.suffix == ".ecdc" or source.begins_with(b"ECDC")
            facts = _ecdc(source) if is_ecdc else _sound(source)
    if as_json:
        print_json({"file": str(file), **facts})
    else:
        print_facts(str(file), {name.replace("_", " "): _readable(name, value) for name, value in facts.items()})


def _ecdc(source: ByteSource) -> dict[str, Any]:
    from streaming_encodec.audio.files.ecdc import EcdcReader

    reader = EcdcReader(source)
    header = reader.header
    facts: dict[str, Any] = {
        "kind": "ecdc",
        "model": header.model,
        "samples": header.samples,
        "num_codebooks": header.num_codebooks,
        "arithmetic": header.arithmetic or "layers, or not said",
        "bytes": reader.size(),
    }
    # The header names the model, not its rate; the published names carry it.
    if named := re.search(r"(\d+)khz$", header.model):
        facts["sample_rate"] = int(named[1]) * 1000
        facts["seconds"] = header.samples / facts["sample_rate"]
    return facts


def _sound(source: ByteSource) -> dict[str, Any]:
    from streaming_encodec.audio.files.sound import AudioReader

    with AudioReader(source) as reader:
        info = reader.info
    return {
        "kind": "sound",
        "format": info.format,
        "encoding": info.encoding,
        "sample_rate": info.sample_rate,
        "channels": info.channels,
        "samples": info.samples,
        "seconds": info.seconds,
        "notes": reader.notes,
    }


def _model(name: str | Path) -> dict[str, Any]:
    from streaming_encodec.model.checkpoints.pretrained import is_original
    from streaming_encodec.model.find import find_model, fingerprint
    from streaming_encodec.model.folder import ModelFolder

    model = find_model(name) if is_original(name) else ModelFolder.from_pretrained(name)
    config = model.config
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
        "fingerprint": fingerprint(model),
    }


def _export(folder: Path) -> dict[str, Any]:
    from streaming_encodec.engines.onnx.exported import ExportedFolder

    config = ExportedFolder.load(folder).config
    return {
        "kind": "exported codec",
        "sample_rate": config["sampling_rate"],
        "channels": config["channels"],
        "bandwidths_kbps": [entry["kbps"] for entry in config["bandwidths"]],
        "hop_length": config["hop_length"],
        "frame_ms": 1000 * config["hop_length"] / config["sampling_rate"],
        "num_codebooks": config["num_codebooks"],
        "codebook_size": config["codebook_size"],
        "weights": config["weights"],
        "fingerprint": config["model"],
    }


def _readable(name: str, value: Any) -> str:
    if value is None:
        return "not stated"
    if name == "notes":
        return "; ".join(value) or "–"
    if name == "seconds":
        return minutes(value)
    if isinstance(value, list):
        return ", ".join(f"{item:g}" for item in value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)
