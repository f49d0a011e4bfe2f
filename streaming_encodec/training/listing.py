"""The manifest of a folder of recordings, and the list of held-out speakers.

A ``manifest.jsonl`` has one JSON object a line: ``file`` (relative to the manifest's folder), and if known
``speaker`` or ``voice``, ``source``, ``licence``, ``bandwidth_hz`` and ``split``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from streaming_encodec.errors import FileFormatError
from streaming_encodec.text_files import decode_text

Split = Literal["train", "valid", "eval"]
Decision = Literal["train", "valid", "eval", "exclude"]

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Listed:
    """One line of a folder's manifest; empty or None: not stated."""

    speaker: str = ""
    source: str = ""
    licence: str = ""
    bandwidth_hz: int | None = None
    split: Split | None = None


def read_listing(folder: Path) -> dict[Path, Listed]:
    """Resolved path -> entry of the file, from the manifests in ``folder`` and below, else from the one beside it.

    Raises :class:`FileFormatError` for a manifest that can't be understood.
    """
    own = sorted(folder.rglob(MANIFEST))
    beside = folder.resolve().parent / MANIFEST
    listed: dict[Path, Listed] = {}
    for path in own or [beside] * beside.is_file():
        listed |= {path.parent.resolve() / file: row for file, row in _read(path).items()}
    return listed


def _read(path: Path) -> dict[str, Listed]:
    try:
        rows = [json.loads(line) for line in decode_text(path.read_bytes()).splitlines() if line.strip()]
        return {str(row["file"]): _listed(row) for row in rows}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise FileFormatError(
            f"{path}: each line must be a JSON object with a 'file', and may have 'speaker' (or 'voice'), 'source', "
            f"'licence', 'bandwidth_hz' and 'split' ({error!r}); correct it or remove it"
        ) from error


def _listed(row: Mapping[str, object]) -> Listed:
    split, bandwidth = row.get("split"), row.get("bandwidth_hz")
    if split is not None and split not in ("train", "valid", "eval"):
        raise ValueError(f"split is {split!r}: it must be train, valid or eval")
    if bandwidth is not None and not isinstance(bandwidth, int | float):
        raise ValueError(f"bandwidth_hz is {bandwidth!r}: it must be a number")
    return Listed(
        str(row.get("voice", row.get("speaker", ""))),
        str(row.get("source", "")),
        str(row.get("licence", "")),
        None if bandwidth is None else round(bandwidth),
        split,
    )


class HeldOut:
    """The speakers that are not trained on: ``(source, speaker)`` -> their split."""

    def __init__(self, decisions: Mapping[tuple[str, str], Decision] | None = None) -> None:
        self._decisions = dict(decisions or {})

    @classmethod
    def read(cls, path: Path) -> HeldOut:
        """Read lines of ``source speaker split``; ``exclude`` leaves a speaker out; ``#`` starts a comment.

        ``*`` as source means every source. Raises :class:`FileFormatError`.
        """
        decisions: dict[tuple[str, str], Decision] = {}
        try:
            lines = decode_text(path.read_bytes()).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FileFormatError(f"{path} can't be read as a list of speakers ({error})") from error
        for number, line in enumerate(lines, 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            if len(words) != 3 or words[2] not in ("valid", "eval", "exclude"):
                raise FileFormatError(
                    f"{path}, line {number}: {line.strip()!r} is not `source speaker split` with a split of "
                    "valid, eval or exclude; a speaker's name has no spaces"
                )
            decisions[words[0], words[1]] = cast(Decision, words[2])
        return cls(decisions)

    def decide(self, source: str, speaker: str, default: Split) -> Decision:
        """The split of a clip of this speaker."""
        found = self._decisions.get((source, speaker)) or self._decisions.get(("*", speaker))
        return found or default
