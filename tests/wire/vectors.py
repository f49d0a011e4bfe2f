"""The golden vectors of the protocol, as they lie in the package."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

DATA = files("streaming_encodec").joinpath("wire/data")
DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def vectors(name: str) -> dict[str, Any]:
    """The content of one file, such as "packets.json"."""
    found: dict[str, Any] = json.loads(DATA.joinpath(name).read_text(encoding="utf-8"))
    return found


PACKETS = vectors("packets.json")
CONTROL = vectors("control.json")
FINGERPRINT = vectors("fingerprint.json")
SCHEMA = vectors("control.schema.json")
