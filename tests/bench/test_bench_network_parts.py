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
from streaming_encodec.bench.network.report import median, network_table
from streaming_encodec.bench.network.speech import write_speech
from streaming_encodec.bench.network.topology import check_possible
from streaming_encodec.bench.tables import machine
from streaming_encodec.cli.commands.bench_network import _tell_troubles
from streaming_encodec.cli.shared.figures import print_tables
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
    return {"condition": condition, "transport": "websocket", "wire_kbps": wire, **figures}


def test_the_table_has_medians_and_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    figures = {"delay_p50_ms": 500.0, "delay_p95_ms": 1969.0, "delay_max_ms": 5436.0, "above_400_percent": 100.0}
    figures |= {"longest_gap_ms": 5120.0, "recovered_s": 11.5, "pesq_wb": 1.234, "machine_stall_ms": 394.0}
    calls = [
        *(made_up_call("burst10t", concealed_percent=percent, **figures) for percent in (0.0, 34.0, 99.0)),
        {"condition": "outage6", "transport": "websocket", "failed": "nothing was heard"},
    ]
    assert median(calls, "concealed_percent") == 34.0
    assert median(calls[:3], "wire_kbps", "listener_down") == 27.4
    assert median(calls, "download_kbps") is None
    print_tables({"machine": machine(), "settings": {}}, [network_table(calls)])
    machine_text, _, *lines = capsys.readouterr().out.splitlines()
    assert "cores" in machine_text
    assert max(map(len, lines)) <= 80
    (row,) = ([cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "burst10t" in line)
    assert row == ["burst10t", "34.0", "500/1969/5436", "100", "5120", "11.5", "27+27", "1.23", "394"]
    assert network_table(calls).rows[1] == ["outage6 (1 failed)", "-", "-/-/-", "-", "-", "-", "-", "-", "-"]


def test_ports_are_those_of_the_packet() -> None:
    def packet(protocol: int, options: int = 0) -> bytes:
        head = bytes([0x45 + options]) + bytes(8) + bytes([protocol]) + bytes(10 + 4 * options)
        return head + struct.pack(">HH", 40_000, 8765) + bytes(16)

    assert _ports(packet(6)) == _ports(packet(17)) == _ports(packet(6, options=3)) == (40_000, 8765)
    assert _ports(packet(1)) == _ports(packet(6)[:22]) == ()


def test_troubles_of_a_call_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    _tell_troubles({"failed": "nothing was recorded"})
    _tell_troubles({"realtime": False, "send": {"exit_code": 1, "last_words": "error: expelled"}, "listen": {}})
    _tell_troubles({"realtime": True, "send": {"exit_code": 0, "last_words": ""}, "listen": {"exit_code": 0}})
    failed, slow, expelled = capsys.readouterr().err.splitlines()
    assert "nothing was recorded" in failed
    assert "CAP_SYS_NICE" in slow
    assert expelled.endswith("send ended with exit code 1: error: expelled")


def test_a_machine_that_cannot_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StreamingEncodecError, match=r"this machine lacks Linux, the program ip \(package iproute2\)"):
        check_possible()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(StreamingEncodecError, match=r"lacks root \(sudo\), the program ip"):
        check_possible()
