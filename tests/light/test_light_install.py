"""The base install: no torch, no ONNX. What it brings works, and what it lacks is said in one message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from strategies import random_model, small_config

import streaming_encodec as se

CLIP = Path(se.__file__).parent / "assets" / "speech.flac"

# As if these were not installed: an import of one fails as it does then.
WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""
EXTRA = ("torch", "onnx", "onnxruntime")
COMMAND = "import sys; from streaming_encodec.cli.app import main; sys.argv[0] = 'streaming-encodec'; main()"


def without(program: str, *arguments: str | Path, refused: tuple[str, ...] = EXTRA) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own that can import none of these packages."""
    source = WITHOUT.replace("REFUSED", repr(refused)) + program
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def run(program: str, *arguments: str | Path, refused: tuple[str, ...] = EXTRA) -> str:
    done = without(program, *arguments, refused=refused)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_go_through_the_commands(tmp_path: Path) -> None:
    facts = json.loads(run(COMMAND, "stream", CLIP, tmp_path / "out.wav", "--json"))
    assert facts["engine"] == "kernel"
    run(COMMAND, "encode", CLIP, tmp_path / "clip.ecdc")
    run(COMMAND, "decode", tmp_path / "clip.ecdc", tmp_path / "again.wav")
    assert "fingerprint" in run(COMMAND, "info", "voice-24khz", "--json")
    run(COMMAND, "demo", "--clip", CLIP, "--seconds", "1", "--record", tmp_path / "heard.wav", "--json")


def test_the_api_works(tmp_path: Path) -> None:
    program = """
import copy, pickle
import numpy as np, streaming_encodec as se
from streaming_encodec.call.stream_format import stream_format
pcm = 0.3 * np.sin(np.arange(24_000) / 9).astype(np.float32)
model = se.ModelFolder.from_pretrained("voice-24khz")
encoder, decoder = se.StreamingEncoder(model), se.StreamingDecoder("voice-24khz")
sound = decoder.push(encoder.push(pcm))
assert sound.shape == (1, 24_000) and np.abs(sound).max() > 0.05
twin, fork = copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))
assert np.array_equal(twin.push(pcm), fork.push(pcm))
pool = se.StreamPool(model, 2)
pool.push(pool.open(), pcm[:640])
assert pool.tick()[0].shape == (8, 1)
voice, ear = se.VoiceEncoder(16_000), se.VoiceDecoder(16_000)
for packet in voice.encode(pcm[:16_000]) + voice.flush():
    ear.push(packet)
assert np.abs(ear.pull(8_000)).max() > 1000
assert stream_format(model).model == stream_format("voice-24khz").model == model.fingerprint
assert not {"torch", "onnx", "onnxruntime"} & set(sys.modules)
"""
    run(program)


def test_a_call_goes_through_a_relay() -> None:
    program = """
import asyncio
import numpy as np, streaming_encodec as se
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
async def main():
    model = se.ModelFolder.from_pretrained("voice-24khz")
    async with (
        Relay(RelayConfig(port=0)) as relay,
        se.VoiceClient(relay.url, None, model, role="subscribe") as ear,
        se.VoiceClient(relay.url, None, model, role="publish") as mouth,
    ):
        pcm = 0.3 * np.sin(np.arange(24_000) / 9).astype(np.float32)
        for at in range(0, len(pcm), 480):
            await mouth.send(pcm[at : at + 480])
        while ear.statistics.packets_arrived < 20:
            await asyncio.sleep(0.01)
asyncio.run(main())
assert not {"torch", "onnx", "onnxruntime"} & set(sys.modules)
"""
    run(program)


def test_a_call_without_datagrams_loads_nothing_for_them() -> None:
    program = """
import asyncio
import numpy as np, streaming_encodec as se
from streaming_encodec.client.settings import ConnectionSettings
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
async def main():
    model = se.ModelFolder.from_pretrained("voice-24khz")
    for offers, wants in ((False, "auto"), (DATAGRAMS, "websocket")):
        async with (
            Relay(RelayConfig(port=0, datagrams=offers)) as relay,
            se.VoiceClient(relay.url, None, model, connection=ConnectionSettings(transport=wants)) as call,
        ):
            await call.send(np.zeros(2_400, np.float32))
            while not relay.metrics.counts["packets_in"]:
                await asyncio.sleep(0.01)
asyncio.run(main())
assert ("aioquic.h3.connection" in sys.modules) == DATAGRAMS
assert "streaming_encodec.transport.webtransport.client" not in sys.modules
"""
    run(program.replace("DATAGRAMS", "False"), refused=(*EXTRA, "aioquic", "cryptography"))
    run(program.replace("DATAGRAMS", "True"))


@pytest.mark.parametrize(
    "program",
    [
        "import streaming_encodec as se; se.EncodecModel",
        "import streaming_encodec as se; se.StreamingEncoder('voice-24khz', engine='fused')",
        "import streaming_encodec as se; se.StreamingEncoder('voice-24khz', engine='onnx')",
        "import streaming_encodec as se; se.SegmentEncoder('voice-24khz')",
    ],
)
def test_what_needs_torch_names_the_extra(program: str) -> None:
    done = without(program)
    assert done.returncode == 1
    assert "MissingExtraError: " in done.stderr
    assert 'pip install "streaming-encodec[torch]"' in done.stderr
    if sys.platform == "linux":
        assert "--extra-index-url https://download.pytorch.org/whl/cpu" in done.stderr


@pytest.mark.parametrize("arguments", ["export voice-24khz out", "evaluate ."])
def test_a_command_that_needs_torch_says_so_in_one_line(arguments: str, tmp_path: Path) -> None:
    done = without(f"import os; os.chdir({str(tmp_path)!r})\n" + COMMAND, *arguments.split())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "streaming-encodec[torch]" in done.stderr


def test_a_relay_needs_neither_the_codec_nor_what_sound_needs() -> None:
    """It passes packets on, and holds them only for as long as that takes."""
    heavy = (*EXTRA, "numpy", "soxr", "soundfile", "sounddevice", "safetensors", "huggingface_hub")
    program = """
import asyncio
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
async def main():
    async with Relay(RelayConfig(port=0)) as relay:
        assert relay.url
asyncio.run(main())
from streaming_encodec.cli.commands import serve
"""
    run(program, refused=heavy)


def test_other_models_say_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "model.th").write_bytes(b"PK")
    segments = random_model(se.EncodecConfig(
        num_filters=2, hidden_size=4, normalize=True, chunk_length_s=1.0, overlap=0.01, norm_type="time_group_norm",
        use_causal_conv=False,
    ), 0, torch.float32)  # fmt: skip
    segments.save_pretrained(tmp_path / "segments")
    for name in ("model.th", "segments"):
        done = without(COMMAND, "stream", CLIP, tmp_path / "out.wav", "--model", tmp_path / name)
        assert done.returncode == 1, name
        assert "streaming-encodec[torch]" in done.stderr
        assert "Traceback" not in done.stderr


def test_without_the_library_the_message_says_why_and_names_the_extra() -> None:
    program = """
import platform
platform.system = lambda: "Plan9"
import streaming_encodec as se
se.StreamingEncoder("voice-24khz")
"""
    done = without(program)
    assert "not made for plan9" in done.stderr
    assert "streaming-encodec[torch]" in done.stderr


@pytest.mark.parametrize("start", ["silence", "exact"])
@pytest.mark.parametrize("samples", [1, 100, 2239, 2240, 5000])
def test_a_folder_gives_the_bits_of_the_model_in_torch(start: str, samples: int, tmp_path: Path) -> None:
    model = random_model(small_config(sampling_rate=24_000), 3, torch.float32)
    model.save_pretrained(tmp_path / "m")
    folder, loaded = se.ModelFolder(tmp_path / "m"), se.EncodecModel.from_pretrained(tmp_path / "m")
    pcm = np.random.default_rng(samples).standard_normal((1, samples)).astype(np.float32) / 4
    heard = []
    for known in (folder, loaded):
        encoder = se.StreamingEncoder(known, start=start, engine="kernel")
        codes = np.concatenate([encoder.push(pcm), encoder.flush()], axis=1)
        decoder = se.StreamingDecoder(known, start, engine="kernel")
        heard += [codes, np.concatenate([decoder.push(codes), decoder.flush()], axis=1)]
    assert np.array_equal(heard[0], heard[2])
    assert np.array_equal(heard[1], heard[3])


@pytest.mark.parametrize("start", ["silence", "exact"])
def test_a_state_goes_from_torch_to_a_folder_and_back(start: str, tmp_path: Path) -> None:
    model = random_model(small_config(), 4, torch.float32)
    model.save_pretrained(tmp_path / "m")
    folder, loaded = se.ModelFolder(tmp_path / "m"), se.EncodecModel.from_pretrained(tmp_path / "m")
    pcm = np.random.default_rng(1).standard_normal((1, 700)).astype(np.float32) / 4
    wanted = se.StreamingEncoder(folder, start=start)
    here, there = se.StreamingEncoder(folder, start=start), se.StreamingEncoder(loaded, start=start, engine="kernel")
    for block in np.array_split(pcm, 9, axis=1):
        assert np.array_equal(here.push(block), wanted.push(block))
        here.state().save(tmp_path / "state.safetensors")
        there.load_state(se.StreamState.load(tmp_path / "state.safetensors"))
        assert all(isinstance(array, np.ndarray) for array in here.state().tensors.values())
        assert all(isinstance(tensor, torch.Tensor) for tensor in there.state().tensors.values())
        here.load_state(there.state())
