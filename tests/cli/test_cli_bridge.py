"""The command `bridge`: its settings are checked before anything listens, and it serves until it is told to stop."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import numpy as np
import pytest
from cli_kit import Run

from streaming_encodec.bench.network.programs import command
from streaming_encodec.bench.telephones import make_telephone


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--listen", "0.0.0.0:0"], "--allow NETWORK"),
        (["--listen", "0.0.0.0:0", "--secret", "s3cr3t-of-sixteen"], "--tls-cert FILE"),
        (["--secret", "short"], "16 letters"),
        (["--allow", "nowhere"], "nowhere"),
        (["--model", "/nothing/there"], "/nothing/there"),
    ],
)
def test_what_cannot_be_is_one_line(run: Run, options: list[str], says: str) -> None:
    run("bridge", "twilio", "tea", *options).fails_with(says)


@pytest.mark.parametrize("words", [["skype", "tea"], ["twilio", "tea", "--listen", "here"], ["twilio"]])
def test_wrong_usage(run: Run, words: list[str]) -> None:
    assert run("bridge", *words).code == 2


def test_a_call_through_the_commands_and_ctrl_c() -> None:
    import asyncio

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(command(*words), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def told(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("{") and (event := json.loads(line))["event"] == name:
                return dict(event)
        raise AssertionError(f"ended before {name}")

    relay = start("serve", "--port", "0")
    bridge = None
    try:
        url = told(relay, "listening")["url"]
        bridge = start("bridge", "audiosocket", "tea", "--listen", "127.0.0.1:0", "--url", url)
        port = told(bridge, "bridge_listening")["port"]
        telephone = make_telephone("audiosocket", np.zeros(8000, np.float32))
        asyncio.run(telephone.call(f"tcp://127.0.0.1:{port}"))
        assert len(telephone.heard)
        assert told(bridge, "phone_ended")["reason"] == "the caller hung up"
        bridge.send_signal(signal.SIGINT)
        told(bridge, "bridge_stopped")
        assert bridge.wait(60) == 0
    finally:
        for process in (bridge, relay):
            if process is not None:
                process.kill()
                process.wait()
