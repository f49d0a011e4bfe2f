"""Models that have a name of their own."""

import re
from pathlib import Path

DEFAULT_MODEL = "voice-24khz"
"""The bundled one."""

PUBLISHED = {
    "encodec_24khz": "facebook/encodec_24khz",
    "encodec_48khz": "facebook/encodec_48khz",
    "encodec_32khz": "facebook/encodec_32khz",
}
"""What the original package calls its models in `.ecdc` files, and their names on the hub."""


def short_name(name: str) -> str:
    """What a model is called in `.ecdc` files.

    `facebook/encodec_24khz` and `encodec_24khz-d7cc33bc.th` both become `encodec_24khz`, the name that the original
    package knows.
    """
    last = Path(name).name
    match = re.fullmatch(r"(.+?)(-[0-9a-f]{8})?\.th", last)
    return match[1] if match else last


def weights_of(name: str) -> str:
    """How far the weights of a model of this name can be relied on: ``preview`` or ``trained``."""
    return "preview" if name == DEFAULT_MODEL else "trained"
