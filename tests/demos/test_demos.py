"""Every demo runs as its reader would run it, without hardware."""

import argparse
import asyncio
import runpy
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_kit import save_random

from streaming_encodec.net.config import RelayConfig
from streaming_encodec.net.relay import Relay

DEMOS = Path(__file__).parents[2] / "demos"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("demo") / "small", target_bandwidths=(1.5, 3.0, 6.0))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    with files("streaming_encodec").joinpath("assets/speech.flac").open("rb") as file:
        sound, rate = soundfile.read(file, stop=36_000)
    soundfile.write(path, sound, rate)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a demo as a program, in this process: importing torch anew takes longer than all of them."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(DEMOS / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def heard(path: Path) -> tuple[np.ndarray, int]:
    sound, rate = soundfile.read(path)
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() > 0
    return sound, rate


@pytest.mark.parametrize("path", sorted(DEMOS.glob("*.py")), ids=lambda p: p.name)
def test_a_demo_is_short_enough_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
def test_voip_embed(run: Run, model: Path, speech: Path, tmp_path: Path, rate: int) -> None:
    target = tmp_path / "out.wav"
    said = run("voip_embed.py", "--wav", speech, target, "--model", model, "--rate", rate, "--loss", 10)
    sound, got = heard(target)
    assert got == rate
    assert len(sound) == 75 * rate // 50
    assert said.startswith(("75 packets", "74 packets"))
    assert " 0 ms made up" not in said.replace("\n", " ")


def test_mic_to_speaker(run: Run, model: Path, speech: Path, tmp_path: Path) -> None:
    run("mic_to_speaker.py", "--wav", speech, tmp_path / "out.wav", "--model", model)
    assert len(heard(tmp_path / "out.wav")[0]) == 36_000 - 36_000 % 320


def test_tokens_to_speech(run: Run, model: Path, speech: Path, tmp_path: Path) -> None:
    said = run("tokens_to_speech.py", "--wav", speech, tmp_path / "out.wav", "--model", model)
    assert said.startswith("112 frames")
    assert len(heard(tmp_path / "out.wav")[0]) == 112 * 320


async def test_websocket_sender_and_receiver(
    model: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speak = runpy.run_path(str(DEMOS / "websocket_sender.py"))["speak"]
    hear = runpy.run_path(str(DEMOS / "websocket_receiver.py"))["hear"]
    target = tmp_path / "out.wav"
    async with Relay(RelayConfig(port=0)) as relay:
        shared = {"url": relay.url, "room": "here", "token": None, "model": str(model)}
        listener = asyncio.create_task(hear(argparse.Namespace(wav=str(target), seconds=1.0, **shared)))
        while "listening in here" not in (said := capsys.readouterr().out):
            assert not listener.done()
            await asyncio.sleep(0.01)
        await speak(argparse.Namespace(wav=str(speech), **shared))
        await asyncio.wait_for(listener, 30)
    said += capsys.readouterr().out
    assert "speaking in here as number" in said
    assert "% concealed" in said
    sound, rate = heard(target)
    assert (rate, len(sound)) == (24_000, 24_000)


def test_aiortc_bridge(run: Run, model: Path, speech: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiortc", reason="aiortc is not installed: pip install aiortc")
    said = run("aiortc_bridge.py", "--wav", speech, tmp_path / "out.wav", "--model", model)
    assert int(said.split()[0]) in (74, 75)
    sound, rate = heard(tmp_path / "out.wav")
    assert rate == 48_000
    assert len(sound) > rate // 4  # as much of it as a busy machine got round to


def test_pipecat_serializer(run: Run, model: Path, speech: Path, tmp_path: Path) -> None:
    pytest.importorskip("pipecat", reason="Pipecat is not installed: pip install pipecat-ai")
    said = run("pipecat_serializer.py", "--wav", speech, tmp_path / "out.wav", "--model", model)
    sound, rate = heard(tmp_path / "out.wav")
    assert rate == 16_000
    assert len(sound) == 112 * 320 * 16_000 // 24_000
    assert int(said.split()[0]) < 2500  # 1.5 s at 6 kbps and 38 headers
