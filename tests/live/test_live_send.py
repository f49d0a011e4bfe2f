"""`send` without a file: the microphone's sound goes into the call, block by block, until somebody stops it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from device_kit import FakeBackend
from typer.testing import CliRunner

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.cli.app import app
from streaming_encodec.cli.commands.send import microphone


@pytest.mark.parametrize("channels", [1, 2])
async def test_the_microphone_is_sent_until_it_is_stopped(channels: int) -> None:
    backend, stop = FakeBackend(), asyncio.Event()
    card = SoundCard(24_000, backend=backend, use_output=False)
    heard = []
    async for block in microphone(card, channels, stop):
        heard.append(block)
        if len(heard) == 5:
            stop.set()
        backend.stream("input").turn(np.full((240, 1), len(heard), np.float32))
        assert len(heard) < 6
    card.close()
    sound = np.concatenate(heard, axis=1)
    assert sound.shape[0] == channels
    assert (sound == sound[:1]).all()


@pytest.fixture(autouse=True)
def _somebody_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake card's first block, without which nobody would turn it."""
    opened = FakeBackend.open

    def speaking(self: FakeBackend, *arguments: object) -> object:
        stream = opened(self, *arguments)  # type: ignore[arg-type]
        stream.turn(np.zeros((240, 1), np.float32))  # type: ignore[attr-defined]
        return stream

    monkeypatch.setattr(FakeBackend, "open", speaking)


def test_no_microphone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from streaming_encodec.audio.devices import portaudio

    monkeypatch.setattr(portaudio, "PortAudio", lambda: FakeBackend(all=[]))
    result = CliRunner().invoke(app, ["send", "--url", "ws://127.0.0.1:9"])
    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "microphone" in result.stderr.lower() or "input" in result.stderr.lower()
