"""Every demo runs as its reader would run it, without hardware."""

import argparse
import ast
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

import streaming_encodec
from streaming_encodec import EncodecModel, VoiceEncoder
from streaming_encodec.call.pcm import Samples, take_pcm
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
from streaming_encodec.wire.packet import parse_packet

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


@pytest.mark.parametrize("path", sorted(DEMOS.glob("*.py")), ids=lambda p: p.name)
def test_a_demo_imports_what_the_package_exports_and_nothing_deeper(path: Path) -> None:
    """What a reader copies must not break when a module moves."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module is not None]
    assert not {name for name in plain if name.split(".")[0] in ("streaming_encodec", "torch")}
    modules = {node.module for node in froms if str(node.module).startswith("streaming_encodec")}
    assert modules == {"streaming_encodec"}
    names = {alias.name for node in froms if node.module == "streaming_encodec" for alias in node.names}
    assert names <= set(streaming_encodec.__all__)


@pytest.mark.parametrize("name", streaming_encodec.__all__)
def test_every_exported_name_can_be_had(name: str) -> None:
    assert getattr(streaming_encodec, name) is not None


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
    assert said.startswith("113 frames")  # the last of them half full
    assert len(heard(tmp_path / "out.wav")[0]) == 113 * 320


@pytest.mark.parametrize("samples", [0, 100])
def test_tokens_to_speech_of_less_than_a_frame(run: Run, model: Path, tmp_path: Path, samples: int) -> None:
    soundfile.write(tmp_path / "short.wav", np.full(samples, 0.1), 24_000)
    said = run("tokens_to_speech.py", "--wav", tmp_path / "short.wav", tmp_path / "out.wav", "--model", model)
    frames = min(1, samples)
    assert said.startswith(f"{frames} frames")
    assert soundfile.info(tmp_path / "out.wav").frames == 320 * frames


@pytest.mark.parametrize(
    ("name", "needs"),
    [("voip_embed.py", "soxr"), ("aiortc_bridge.py", "aiortc")],
)
def test_what_goes_past_full_scale_is_clipped(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, needs: str
) -> None:
    """A loud recording overshoots when it is resampled; wrapped, full scale would come out as its opposite."""
    pytest.importorskip(needs, reason=f"{needs} is not installed")
    loud = np.clip(3 * np.sin(2 * np.pi * 200 * np.arange(13_230) / 44_100), -1, 1)
    soundfile.write(tmp_path / "loud.wav", loud, 44_100, subtype="FLOAT")
    taken: list[np.ndarray] = []
    encode = VoiceEncoder.encode

    def spy(self: VoiceEncoder, samples: Samples) -> list[bytes]:
        taken.append(take_pcm(samples)[0])
        return encode(self, samples)

    monkeypatch.setattr(VoiceEncoder, "encode", spy)
    run(name, "--wav", tmp_path / "loud.wav", tmp_path / "out.wav", "--model", model)
    said = np.concatenate(taken)
    assert said.max() > 0.99
    assert np.abs(np.diff(said)).max() < 0.5


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


async def test_aiortc_bridge_takes_what_a_call_gives(model: Path) -> None:
    """aiortc decodes Opus to packed stereo: 960 samples a frame, and twice as many numbers."""
    av = pytest.importorskip("av", reason="aiortc is not installed: pip install aiortc")
    errors = pytest.importorskip("aiortc.mediastreams", reason="aiortc is not installed: pip install aiortc")
    left = 0.3 * np.sin(2 * np.pi * 400 * np.arange(48_000) / 48_000)
    stereo = np.rint(32767 * np.repeat(left, 2)).astype(np.int16)
    frames = []
    for at in range(0, len(stereo), 1920):
        frames.append(av.AudioFrame.from_ndarray(stereo[None, at : at + 1920], format="s16", layout="stereo"))
        frames[-1].sample_rate, frames[-1].pts = 48_000, at // 2

    class Track:
        async def recv(self) -> object:
            if not frames:
                raise errors.MediaStreamError
            return frames.pop(0)

    sent: list[bytes] = []
    channel = argparse.Namespace(send=sent.append)
    bridge = runpy.run_path(str(DEMOS / "aiortc_bridge.py"))["bridge"]
    assert await bridge(Track(), channel, EncodecModel.from_pretrained(model)) == 50
    packets = [parse_packet(packet) for packet in sent]
    assert sum(packet.num_frames for packet in packets) in (74, 75)
