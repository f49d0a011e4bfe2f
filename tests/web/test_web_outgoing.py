"""The sender in JavaScript makes Python's packets, byte by byte: VAD, noise, redundancy, rate control, pauses, ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from web.node_kit import run
from web.traces_kit import ASSETS, RATE, call_format, model

from streaming_encodec.call import outgoing
from streaming_encodec.call.outgoing import OutgoingVoice
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.control import Report
from streaming_encodec.wire.packet import parse_packet

pytestmark = pytest.mark.node

SECONDS = 24


def sound() -> np.ndarray:
    """Speech, with a quiet room between 5 and 8 s and digital silence from 12 to 13 s."""
    clip, _ = soundfile.read(ASSETS / "speech.flac", dtype="float32")
    pcm = np.resize(clip, SECONDS * RATE).astype(np.float32)
    rng = np.random.default_rng(1)
    pcm[5 * RATE : 8 * RATE] = rng.normal(0, 10 ** (-60 / 20), 3 * RATE)
    pcm[12 * RATE : 13 * RATE] = 0
    return pcm


def steps(seed: int) -> list[dict[str, Any]]:
    """Blocks of any size; two listeners' reports each second, of a line that fills, drains and loses; a caller who
    pauses, ends, and goes on with another bandwidth."""
    rng = np.random.default_rng(seed)
    made: list[dict[str, Any]] = []
    pushed, paused, reported, ended = 0, 0.0, 1.0, False
    while pushed < SECONDS * RATE:
        count = min(int(rng.choice([320, 480, 960, 17, 1000])), SECONDS * RATE - pushed)
        pushed += count
        paused += 1.3 if abs(pushed - 9 * RATE) < count / 2 else 0.0
        now = pushed / RATE + paused
        made.append({"push": count, "at": now})
        if now >= reported:
            reported += 1
            for listener in (7, 9):
                full = 30.0 * (now - 3) if 3 <= now < 8 else 0.0
                if listener == 7 and 16 <= now < 24:
                    full = 200.0 if now < 22.5 else 480.0  # as others' queue, which then grows
                loss = float(rng.uniform(0.03, 0.2)) if 10 <= now < 16 else 0.0
                report = Report(1, loss, loss, float(rng.uniform(1, 8)), 5.0, 40.0, listener, full, listener == 9)
                made.append({"report": report.to_dict(), "at": now, "ordered": now >= 14})
        if not ended and pushed > 18 * RATE:
            ended = True
            made += [{"finish": True}, {"kbps": 12.0}]
    return [*made, {"finish": True}, {"finish": True}]


@pytest.fixture(autouse=True)
def level_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser has no detector of speech: its silence is decided by the level."""
    monkeypatch.setattr("streaming_encodec.call.outgoing.find_speech_detector", lambda sample_rate: None)


def from_python(script: dict[str, Any], pcm: np.ndarray) -> list[str]:
    voice = OutgoingVoice(
        model(),
        call_format(),
        script["kbps"],
        "kernel",
        SenderSettings(**script["python_settings"]),
        dtx=script["dtx"],
        adapt=True,
        first_sequence=script["first"][0],
        first_timestamp=script["first"][1],
    )
    lines, at = [], 0
    for step in script["steps"]:
        packets: list[bytes] = []
        if "push" in step:
            packets = voice.push(pcm[at : at + step["push"]], step["at"])
            at += step["push"]
        elif "report" in step:
            voice.on_report(Report(**step["report"]), step["at"], ordered=step["ordered"])
        elif "kbps" in step:
            voice.bandwidth = step["kbps"]
        else:
            packets = voice.finish()
        lines += [*(data.hex() for data in packets), "."]
    return lines


@pytest.mark.parametrize(
    ("dtx", "python_settings", "settings"),
    [
        (False, {}, {}),
        (
            True,
            {"frames_per_packet": 1, "redundant_codebooks": 2, "redundant_frames": 4},
            {"framesPerPacket": 1, "redundantCodebooks": 2, "redundantFrames": 4},
        ),
        (True, {"frames_per_packet": 2, "noise_every_frames": 11}, {"framesPerPacket": 2, "noiseEveryFrames": 11}),
    ],
    ids=["plain", "redundant", "silences"],
)
def test_packets_are_equal(
    dtx: bool,
    python_settings: dict[str, int],
    settings: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # JavaScript decides by the level alone, as Python does where WebRTC's network is missing.
    monkeypatch.setattr(outgoing, "find_speech_detector", lambda sample_rate: None)
    pcm, path = sound(), tmp_path / "script.json"
    script = {"dtx": dtx, "kbps": 6.0, "python_settings": python_settings, "settings": settings}
    script |= {"first": [65_400, 2**32 - 300], "steps": steps(len(settings))}
    path.write_text(json.dumps(script))
    found = from_python(script, pcm)
    assert run("outgoing.mjs", path, content=pcm.tobytes()).decode().split() == found
    packets = [parse_packet(bytes.fromhex(line)) for line in found if line != "."]
    frames = {packet.num_frames for packet in packets}
    assert len(frames) > 1 or dtx  # the rate control did something
    assert any(packet.noise for packet in packets)
    assert dtx == (sum(packet.noise is not None for packet in packets) > 3)
    assert any(packet.redundancy is not None for packet in packets)
    assert {packet.num_codebooks for packet in packets} >= {8, 16}
