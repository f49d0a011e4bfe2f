"""A sender's machine that stands still: it goes on from now, and says what it skipped."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from call_kit import RATE, sound, tiny_model
from cli.test_cli_call_commands import started
from tls_kit import relay_in_thread, wait_until

from streaming_encodec.live.file_card import FileCard
from streaming_encodec.relay.relay import Relay

STOPPED_S = 4.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stall")
    tiny_model().save_pretrained(made / "model")
    soundfile.write(made / "in.wav", sound(12.0), RATE)
    return made


def packets_in(relay: Relay) -> int:
    return relay.metrics.counts["packets_in"]


@pytest.mark.parametrize("name", ["send", "talk"])
def test_a_program_that_is_stopped_for_four_seconds_is_not_thrown_out(folder: Path, name: str, tmp_path: Path) -> None:
    clip = folder / "in.wav"
    what = {
        "send": ("send", clip, "--room", "r", "--frames-per-packet", 1, "--no-adapt"),
        "talk": ("talk", "r", "--clip", clip, "--record", tmp_path / "out.wav", "--engine", "fused"),
    }[name]
    with relay_in_thread() as relay:
        call = ("--url", relay.url, "--model", folder / "model", "--json")
        with started(*what, *call) as process:
            wait_until(lambda: packets_in(relay) >= 75, "it speaks")
            process.send_signal(signal.SIGSTOP)
            threading.Event().wait(STOPPED_S)
            before = packets_in(relay)
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: packets_in(relay) > before, "it goes on")
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert relay.metrics.closed[4429] == 0
    said = json.loads(out)
    assert said["connects"] == 1
    assert said["skipped_seconds"] > STOPPED_S - 1.0
    if name == "send":
        assert said["stalls"] >= 1
        assert said["packets_dropped"] == 0
        assert said["seconds"] + said["skipped_seconds"] == pytest.approx(12.0)


def test_a_file_as_a_microphone_gives_no_more_than_a_card_would_hold() -> None:
    now_s = 0.0
    card = FileCard(np.arange(10 * RATE, dtype=np.float32)[None], RATE, tail_s=0.0, clock=lambda: now_s)
    assert card.read().shape[1] == 0
    now_s = 1.0
    for _ in range(2):
        card.read()
    skipped = card.counts.skipped_samples
    now_s = 5.0
    block = card.read()
    assert block.shape[1] == pytest.approx(0.4 * RATE, abs=2)
    assert block[0, -1] == pytest.approx(5.0 * RATE, abs=2)
    assert card.counts.skipped_samples - skipped == pytest.approx(3.6 * RATE, abs=2)
    now_s = 5.1
    assert card.read()[0, 0] == block[0, -1] + 1
