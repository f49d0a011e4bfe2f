"""The laboratory at work, in namespaces of this machine: minutes, and root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ci_kit import cannot

from streaming_encodec.bench.network.programs import command
from streaming_encodec.bench.network.topology import check_possible
from streaming_encodec.errors import StreamingEncodecError

pytestmark = pytest.mark.slow

_LEFT_BEHIND = "streaming-encodec-4194305-relay"  # no process has that number, nor can have
_NAMESPACES = Path("/run/netns")


@pytest.fixture
def possible() -> Iterator[None]:
    """Root and TUN devices; nothing is there before and after a test."""
    try:
        check_possible()
    except StreamingEncodecError as error:
        if shutil.which("ip") is None:
            cannot(str(error))
        pytest.skip(str(error))  # a machine may have no such device, and its owner may allow none
    yield
    assert namespaces(os.getpid()) == []


def namespaces(process: int) -> list[Path]:
    return list(_NAMESPACES.glob(f"streaming-encodec-{process}-*"))


def bench_network(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("bench", "network", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.usefixtures("possible")
def test_a_call_over_a_bad_network_is_measured_and_nothing_is_left_behind(tmp_path: Path) -> None:
    subprocess.run(["ip", "netns", "add", _LEFT_BEHIND], check=False)
    # Over the WebSocket: of datagrams `send` counts neither the start of the session nor acknowledgements.
    arguments = ("--conditions", "clean,loss10", "--transport", "websocket", "--seeds", 1, "--seconds", 10)
    arguments += ("--output-json", tmp_path / "all.json")
    lab = bench_network(*arguments)
    out, err = lab.communicate(timeout=600)
    assert lab.returncode == 0, err
    assert [line.split()[1] for line in out.splitlines()[-3:-1]] == ["clean", "loss10"]
    assert namespaces(lab.pid) == []
    assert not (_NAMESPACES / _LEFT_BEHIND).exists()
    clean, lossy = json.loads((tmp_path / "all.json").read_text())["calls"]
    for call in (clean, lossy):
        assert call["trace_agreement"] > 0.8
        assert 40 < call["delay_p50_ms"] <= call["delay_p95_ms"] <= call["delay_max_ms"]
        assert call["send"]["packets_sent"] > 120  # two frames in each, up to six where the machine is busy
        assert call["listen"]["exit_code"] == call["send"]["exit_code"] == 0
    # What `send` says of the wire is what was on it.
    assert clean["send"]["wire_kbps"] == pytest.approx(clean["wire_kbps"]["speaker_up"], rel=0.1)
    lines = clean["forwarder"]["lines"], lossy["forwarder"]["lines"]
    assert [line["lost"] for line in lines[0].values()] == [0, 0, 0, 0]
    assert [line["lost"] > 0 for line in lines[1].values()] == [False, False, True, True]
    assert 0.04 < lines[1]["listener_down"]["lost"] / lines[1]["listener_down"]["packets"] < 0.18


@pytest.mark.usefixtures("possible")
def test_joining_where_no_udp_passes_is_measured(tmp_path: Path) -> None:
    lab = bench_network("--joins", 1, "--output-json", tmp_path / "joins.json")
    _, err = lab.communicate(timeout=600)
    assert lab.returncode == 0, err
    assert namespaces(lab.pid) == []
    auto, websocket = json.loads((tmp_path / "joins.json").read_text())["joins"]
    assert [auto["transport"], websocket["transport"]] == ["auto", "websocket"]
    assert all(0 < join["joined_ms"] < join["heard_ms"] for join in (auto, websocket))


@pytest.mark.usefixtures("possible")
def test_ctrl_c_in_a_call_removes_namespaces_and_programs() -> None:
    lab = bench_network("--conditions", "clean", "--seeds", 1)
    try:
        listener = _NAMESPACES / f"streaming-encodec-{lab.pid}-listener"
        while not listener.exists() or not processes(listener.name):
            assert lab.poll() is None
            time.sleep(0.05)
        inside = processes(listener.name)
        lab.send_signal(signal.SIGINT)
        _, err = lab.communicate(timeout=60)
    finally:
        lab.kill()
    assert lab.returncode == 1
    assert err.splitlines()[-1] == "error: interrupted"
    assert namespaces(lab.pid) == []
    assert [process for process in inside if Path(f"/proc/{process}").exists()] == []


def processes(namespace: str) -> list[str]:
    return subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split()
