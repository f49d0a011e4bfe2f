"""Whether a speaker is at the ear or in the room, where the microphone hears it: by what the system says of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

from streaming_encodec.audio.devices.devices import Device

_AT_THE_EAR = re.compile(r"head ?(set|phone)|earphone|ear ?bud|earpiece|airpod|\bbuds ?\d*\b|hands-?free|\bhfp\b")
_SERVERS = ("default", "sysdefault", "pulse", "pipewire")
"""ALSA's names for whatever the sound server's default is."""
_ANSWER_S = 1.0
_FORM_FACTORS = ("headset", "headphone", "hands-free", "handset")


class Judgement(NamedTuple):
    """at_the_ear: a headset or headphones. why: in words, with the name of the device."""

    at_the_ear: bool
    why: str


def sinks() -> list[dict[str, Any]]:
    """What PulseAudio or PipeWire reports about its outputs, the default one first; nothing where `pactl` is missing.

    Only it knows whether headphones are plugged into a laptop's jack: the device's name stays the same.
    """
    try:
        default = _pactl("get-default-sink").strip()
        found = json.loads(_pactl("--format=json", "list", "sinks"))
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    every = [sink for sink in found if isinstance(sink, dict)] if isinstance(found, list) else []
    return sorted(every, key=lambda sink: sink.get("name") != default)


def _pactl(*arguments: str) -> str:
    done = subprocess.run(
        ["pactl", *arguments], capture_output=True, text=True, timeout=_ANSWER_S, check=True, stdin=subprocess.DEVNULL
    )
    return done.stdout


def judge_output(device: Device, ask: Callable[[], list[dict[str, Any]]] = sinks) -> Judgement:
    """By the name, which macOS and Windows give each output of its own, and on Linux by the sound server.

    What is not known to be at the ear is taken for a loudspeaker: an echo is worse than a canceller without work.
    """
    if _AT_THE_EAR.search(device.name.casefold()):
        return Judgement(True, f"{device.name} is at the ear by its name")
    if device.host in ("ALSA", "PulseAudio"):
        for sink in ask():
            if device.name.casefold() in _SERVERS or _is_card(sink, device):
                port = str(sink.get("active_port") or "")
                form = str((sink.get("properties") or {}).get("device.form_factor", ""))
                if _AT_THE_EAR.search(port.casefold()) or form in _FORM_FACTORS:
                    return Judgement(True, f"{device.name} plays through {port or form}, says the sound server")
                return Judgement(False, f"{device.name} plays through {port or form or 'no headset'}")
    return Judgement(False, f"{device.name} is no headset by its name")


def _is_card(sink: dict[str, Any], device: Device) -> bool:
    card = str((sink.get("properties") or {}).get("alsa.card_name", ""))
    return bool(card) and card.casefold() in device.name.casefold()
