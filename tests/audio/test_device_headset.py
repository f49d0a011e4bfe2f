"""What is at the ear, and what is in the room."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from streaming_encodec.audio.devices import headset
from streaming_encodec.audio.devices.devices import Device


def device(name: str, host: str = "Core Audio") -> Device:
    return Device(1, name, host, 0, 2, 48_000)


@pytest.mark.parametrize(
    ("name", "at_the_ear"),
    [
        ("MacBook Pro Speakers", False),
        ("External Headphones", True),
        ("AirPods Pro", True),
        ("Headset Earphone (Jabra Evolve 20)", True),
        ("Speakers (Realtek(R) Audio)", False),
        ("Galaxy Buds2 (FC12)", True),
        ("Rear Output 3/4", False),
        ("Clear Sound Bar", False),
        ("system", False),
        ("Car Hands-Free", True),
    ],
)
def test_the_name_tells(name: str, at_the_ear: bool) -> None:
    judged = headset.judge_output(device(name), lambda: pytest.fail("nobody asks ALSA there"))
    assert judged.at_the_ear == at_the_ear
    assert name in judged.why


SINKS: list[dict[str, Any]] = [
    {
        "name": "analog",
        "active_port": "analog-output-headphones",
        "properties": {"alsa.card_name": "HDA Intel PCH", "device.form_factor": "internal"},
    },
    {"name": "hdmi", "active_port": "hdmi-output-0", "properties": {"alsa.card_name": "HDA NVidia"}},
    {"name": "usb", "active_port": None, "properties": {"alsa.card_name": "Logi", "device.form_factor": "headset"}},
]


@pytest.mark.parametrize(
    ("name", "at_the_ear"),
    [
        ("default", True),
        ("pulse", True),
        ("HDA Intel PCH: ALC257 Analog (hw:0,0)", True),
        ("HDA NVidia: HDMI 0 (hw:1,3)", False),
        ("Logi: USB Audio (hw:2,0)", True),
        ("Something else (hw:3,0)", False),
    ],
)
def test_on_linux_the_sound_server_knows_what_is_plugged_in(name: str, at_the_ear: bool) -> None:
    assert headset.judge_output(device(name, "ALSA"), lambda: SINKS).at_the_ear == at_the_ear


def test_the_default_output_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"get-default-sink": "b\n", "--format=json": '[{"name": "a"}, {"name": "b"}]'}
    monkeypatch.setattr(headset, "_pactl", lambda *arguments: said[arguments[0]])
    assert [sink["name"] for sink in headset.sinks()] == ["b", "a"]


@pytest.mark.parametrize("problem", ["missing", "late", "nonsense"])
def test_without_a_sound_server_the_name_decides(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*arguments: str) -> str:
        if problem == "missing":
            raise FileNotFoundError("pactl")
        if problem == "late":
            raise subprocess.TimeoutExpired("pactl", 1.0)
        return "{not json"

    monkeypatch.setattr(headset, "_pactl", answer)
    assert headset.sinks() == []
    assert not headset.judge_output(device("default", "ALSA")).at_the_ear
