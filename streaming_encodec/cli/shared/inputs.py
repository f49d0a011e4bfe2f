"""What the commands that read sound say of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streaming_encodec.cli.shared.console import note

if TYPE_CHECKING:
    from streaming_encodec.audio.files.sound import AudioReader

SourceHelp = "Any sound file that libsndfile reads; - for standard input."


def input_facts(reader: AudioReader) -> dict[str, Any]:
    """How much of the file was read of how much its header promises, for `--json`; its notes go to stderr."""
    for text in reader.notes:
        note(f"{reader.info.path}: {text}")
    return {
        "input_samples": reader.samples_read,
        "input_samples_promised": reader.info.samples,
        "input_notes": reader.notes,
    }


def told_of_input(facts: Mapping[str, Any]) -> dict[str, str]:
    """The row of a table that says so, where what was read is not simply what was promised."""
    read, promised = facts["input_samples"], facts["input_samples_promised"]
    if facts.get("interrupted") or (read == promised and not facts["input_notes"]):
        return {}
    if promised is None:
        return {"read": f"{read} samples; the header promises no number"}
    return {"read": f"{read} samples of {promised} that the header promises"}
