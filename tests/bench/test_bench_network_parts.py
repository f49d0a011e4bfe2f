"""The laboratory's smaller parts, without root: the speech, the table, what is said where it cannot run."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from cli_kit import CLIP

from streaming_encodec.bench.network.figures import _Search
from streaming_encodec.bench.network.forwarder import _ports
from streaming_encodec.bench.network.report import median, table
from streaming_encodec.bench.network.speech import write_speech
from streaming_encodec.bench.network.topology import check_possible
from streaming_encodec.cli.shared.console import out
from streaming_encodec.errors import StreamingEncodecError


def test_the_bundled_clip_becomes_40_s_in_which_no_piece_is_found_twice(tmp_path: Path) -> None:
    write_speech(CLIP, tmp_path / "speech.wav", 40)
    sound, rate = soundfile.read(tmp_path / "speech.wav", dtype="float32")
    assert len(sound) == 40 * rate
    length = rate // 2
    search = _Search(sound, length)
    for begin in range(0, len(sound) - length, 5 * length):
        piece = sound[begin : begin + length]
        if np.sqrt(np.mean(piece**2)) < 0.01:
            continue
        assert search.find(piece) == (pytest.approx(1, abs=1e-3), begin)
        elsewhere = np.concatenate([sound[: max(0, begin - length)], sound[begin + length :]])
        assert _Search(elsewhere, length).find(piece)[0] < 0.75


def test_a_long_clip_is_cut(tmp_path: Path) -> None:
    write_speech(CLIP, tmp_path / "speech.wav", 2)
    clip, rate = soundfile.read(CLIP, dtype="float32")
    assert soundfile.read(tmp_path / "speech.wav", dtype="float32")[0] == pytest.approx(clip[: 2 * rate], abs=1e-4)


def made_up_call(condition: str, **figures: Any) -> dict[str, Any]:
    wire = {f"{person}_{way}": 27.4 for person in ("speaker", "listener") for way in ("up", "down")}
    return {"condition": condition, "wire_kbps": wire, **figures}


def test_the_table_has_medians_and_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    worst = {f"delay_{name}_ms": 12_345.6 for name in ("p50", "p95", "max")}
    calls = [
        *(made_up_call("clean", concealed_percent=percent, **worst) for percent in (0.0, 4.0, 100.0)),
        made_up_call("reorder30", concealed_percent=100.0, above_400_percent=100.0, longest_gap_ms=10_000, pesq_wb=1.5),
        {"condition": "outage6", "failed": "nothing was heard"},
    ]
    assert median(calls, "concealed_percent") == 52.0
    assert median(calls[:3], "wire_kbps", "listener_down") == 27.4
    assert median(calls, "recovered_s") is None
    out().print(table(calls))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    (clean,) = (line.split() for line in lines if line.startswith("clean"))
    assert clean[:5] == ["clean", "4.0", "12346", "12346", "12346"]
    assert any("1 failed" in line for line in lines)


def test_ports_are_those_of_the_packet() -> None:
    def packet(protocol: int, options: int = 0) -> bytes:
        head = bytes([0x45 + options]) + bytes(8) + bytes([protocol]) + bytes(10 + 4 * options)
        return head + struct.pack(">HH", 40_000, 8765) + bytes(16)

    assert _ports(packet(6)) == _ports(packet(17)) == _ports(packet(6, options=3)) == (40_000, 8765)
    assert _ports(packet(1)) == _ports(packet(6)[:22]) == ()


def test_a_machine_that_cannot_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StreamingEncodecError, match=r"this machine lacks Linux, the program ip \(package iproute2\)"):
        check_possible()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(StreamingEncodecError, match=r"lacks root \(sudo\), the program ip"):
        check_possible()
