"""`bench` as a group: its commands run, print tables and give the same figures to programs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
from ci_kit import cannot
from cli_kit import CLIP, Run

from streaming_encodec.cli.app import COMMANDS
from streaming_encodec.cli.shared import figures

GROUP = next(entry for entry in COMMANDS if entry.name == "bench").commands


def test_the_group_alone_is_its_help(run: Run) -> None:
    result = run("bench")
    assert result.code == 2
    for entry in GROUP:
        assert entry.name in result.out + result.err


@pytest.mark.parametrize("name", [entry.name for entry in GROUP])
def test_each_command_of_the_group_has_help(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run("bench", name, "--help")
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80
    assert {"--json", "--output-json", "--report"} <= set(result.out.split())


def test_a_slip_in_the_group_is_corrected(run: Run) -> None:
    result = run("bench", "cal")
    assert result.code == 2
    assert "'call'" in result.err


def test_playout_gives_its_tables_and_figures(run: Run, tmp_path: Path) -> None:
    output, report = tmp_path / "a.json", tmp_path / "a.md"
    quick = ("bench", "playout", "--seconds", 3, "--drift-hours", 0.06)
    done = run(*quick, "--json", "--output-json", output, "--report", report)
    assert json.loads(output.read_text()) == done.json
    text = report.read_text()
    assert [name for name in ("networks", "loss", "drift") if f"**{name}**" in text] == ["networks", "loss", "drift"]
    assert text.count("| wifi |") == 2
    assert [row["drift_ppm"] for row in done.json["drift"]] == [200, -200]
    one = run(*quick, "drift", "--ppm", 100).out
    assert "+100" in one
    assert "wifi" not in one


@pytest.mark.node
def test_web_gives_its_tables_and_figures(run: Run) -> None:
    if shutil.which("node") is None:
        cannot("Node.js is not installed")
    done = run("bench", "web", "--rounds", 1, "--seconds", 1, "--json")
    assert done.json["ms_a_frame"].keys() == {"javascript", "onnx", "kernel"}
    assert all(0 < low <= middle for low, middle in done.json["ms_a_frame"].values())
    assert done.json["call_share"] > 0


def test_redundancy_is_measured_on_recordings(run: Run, tmp_path: Path) -> None:
    assert run("bench", "playout", "redundancy").code == 2
    sound, rate = soundfile.read(CLIP, stop=24_000)
    soundfile.write(tmp_path / "a.wav", sound, rate)
    done = run("bench", "playout", "redundancy", "--folder", tmp_path, "--metrics", "log_mel_db", "--json")
    rows = done.json["redundancy"]
    assert [row["codebooks"] for row in rows] == 6 * [8.0] + 6 * [4.0]
    assert rows[0]["log_mel_db"] < rows[5]["log_mel_db"]  # without loss, and with the most


@pytest.mark.parametrize("name", ["one-to-many", "many-rooms", "stalled", "datagrams", "churn", "resume"])
def test_a_relay_is_measured(run: Run, name: str, tmp_path: Path) -> None:
    small = ("--speakers", 2, "--listeners", 3, "--seconds", 0.5, "--connections", 50, "--rounds", 1)
    done = run("bench", "relay", name, *small, "--output-json", tmp_path / "a.json")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "a.json").read_text())["runs"]
    if name == "churn":
        assert len(rows) >= 3
        assert len({row["tasks"] for row in rows}) == 1
    elif name == "resume":
        assert rows[0]["back_s"] > 0
    else:
        assert all(row["missing"] == 0 and row["packets_out"] > 0 for row in rows)
        assert len(rows) == (2 if name in ("stalled", "datagrams") else 1)
        assert {row["speakers"] for row in rows} == {2}
        ways = [way for row in rows for way in row["ways"]]
        assert ways == (["websocket", "datagrams"] if name == "datagrams" else ["websocket"] * len(rows))
        assert all(of["datagram_share"] > 0 for row in rows for way, of in row["ways"].items() if way == "datagrams")
        assert {row["listeners"] for row in rows} == {6 if name == "many-rooms" else 3}


def test_bad_networks_are_simulated_without_root(run: Run) -> None:
    few = ("--simulated", "--seeds", 1, "--seconds", 10)
    done = run("bench", "network", *few, "--conditions", "clean,loss10", "--json")
    clean, lossy = done.json["calls"]
    assert clean["concealed_percent"] == 0
    assert clean["delay_p50_ms"] < lossy["delay_p50_ms"]
    refused = run("bench", "network", *few, "--conditions", "rate24")
    assert refused.code == 2
    assert "rate24 has a limited rate" in refused.err


def test_a_call_of_two_clients_is_measured(run: Run) -> None:
    done = run("bench", "call", "--seconds", 1.5, "--frames-per-packet", 1, "--json")
    (figures,) = done.json["calls"]
    assert figures["frames"] > 50
    assert figures["mouth_to_ear_ms"]["p50"] > figures["frame_ms"]
    assert run("bench", "call", "--loss", 5).code == 2


def test_a_missing_sound_server_is_said_before_anything_is_started(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    run("bench", "call", "demo", "--seconds", 10).fails_with("apt install jackd2")
    assert run("bench", "call", "demo", "--seconds", 1).code == 2  # too short to compare what is heard


def test_real_time_that_is_not_allowed_is_wrong_usage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(figures.os, "sched_setscheduler", refuse, raising=False)
    result = run("bench", "relay", "one-to-many", "--real-time")
    assert result.code == 2
    assert "--real-time" in result.err


def test_the_groups_help_imports_no_torch() -> None:
    import subprocess

    program = (
        "import sys\n"
        "from streaming_encodec.cli.app import app\n"
        "try:\n    app(['bench', sys.argv[1], '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    for entry in GROUP:
        subprocess.run([sys.executable, "-c", program, entry.name], check=True, capture_output=True, timeout=60)
