"""`streaming-encodec models`: what `--model` takes by name."""

from __future__ import annotations

from rich.table import Table

from streaming_encodec.cli.shared.console import out, print_json
from streaming_encodec.cli.shared.options import JsonOption
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL, PUBLISHED

_ABOUT = {
    DEFAULT_MODEL: "speech, 24 kHz mono, 1.5 to 12 kbps, streams by samples; the default",
    "facebook/encodec_24khz": "any sound, 24 kHz mono, 1.5 to 24 kbps, streams by samples",
    "facebook/encodec_48khz": "music, 48 kHz stereo, 3 to 24 kbps, streams by segments of one second",
    "facebook/encodec_32khz": "music, 32 kHz mono, 2.2 kbps, streams by samples with lookahead",
}


def command(as_json: JsonOption = False) -> None:
    """List the models that --model takes by name. A folder or an original .th file is as good."""
    models = [{"name": DEFAULT_MODEL, "where": "bundled (preview)", "about": _ABOUT[DEFAULT_MODEL]}]
    for name in PUBLISHED.values():
        models.append({"name": name, "where": _where_hub(name), "about": _ABOUT[name]})
    if as_json:
        print_json({"models": models})
        return
    table = Table()
    for column in ("name", "where", "about"):
        table.add_column(column, overflow="fold")
    for model in models:
        table.add_row(model["name"], model["where"], model["about"])
    out().print(table)


def _where_hub(name: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(name, "model.safetensors"), str)
    return "downloaded" if cached else "downloaded on first use"
