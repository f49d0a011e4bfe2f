"""The codec in JavaScript: Python's codes and samples, to the bit; files and sound that are wrong; the npm package."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from strategies import random_model, small_config
from web.node_kit import HERE, WEB, node, run
from web.traces_kit import ASSETS

from streaming_encodec._version import __version__
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.streaming.conceal import decayed
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder

pytestmark = pytest.mark.node

BUNDLED = ASSETS / "voice-24khz"


def here(folder: Path, books: int, pcm: np.ndarray) -> bytes:
    """What codec.mjs writes, from Python; ``pcm`` [C, n]."""
    model = ModelFolder(folder)
    engine = find_engine("kernel", model)
    encoder, decoder = (kind(model, engine=engine) for kind in (StreamingEncoder, StreamingDecoder))
    encoder.bandwidth = next(b for b in model.config.target_bandwidths if model.config.num_codebooks_for(b) == books)
    codes = np.concatenate([encoder.push(pcm), encoder.flush()], axis=1)  # [K, F]; any chunks give the same
    last, lost, sounds = np.zeros((1, 1), np.int64), 1000, []
    for at in range(codes.shape[1]):
        if at % 97 == 50:
            decoder.reset()
        if at % 10 == 9 or at % 60 > 54:
            lost += 1
            sounds.append(decoder.push_latent(decayed(engine.latent(last[None]), lost)[0], len(last)))
        else:
            last, lost = codes[: books if at % 31 else 1, at : at + 1], 0
            sounds.append(decoder.push(last))
    sounds.append(decoder.flush())
    written = np.int32(codes.size).tobytes() + codes.T.astype("<u2").tobytes()
    return written + b"".join(sound.T.astype("<f4").tobytes() for sound in sounds)


def there(folder: Path, books: int, pcm: np.ndarray) -> bytes:
    return run("codec.mjs", folder, str(books), content=pcm.T.astype("<f4").tobytes())


def speech(seconds: float) -> np.ndarray:
    clip, _ = soundfile.read(ASSETS / "speech.flac", dtype="float32")
    return np.resize(clip, (1, int(seconds * 24_000) + 123)).astype(np.float32)


def test_a_minute_of_speech_has_the_same_codes_and_the_same_bits_of_sound() -> None:
    pcm = speech(60)
    assert there(BUNDLED, 8, pcm) == here(BUNDLED, 8, pcm)


@pytest.mark.parametrize(
    "config",
    [
        small_config(),
        small_config(pad_mode="constant", num_lstm_layers=0, num_residual_layers=2, use_conv_shortcut=False),
        small_config(use_causal_conv=False, upsampling_ratios=(3, 2), num_lstm_layers=1),
        small_config(pad_mode="replicate", use_causal_conv=False, audio_channels=2, upsampling_ratios=(5, 4)),
        small_config(trim_right_ratio=0.4, upsampling_ratios=(4, 2), audio_channels=2, hidden_size=20),
    ],
    ids=["published", "constant", "looks-ahead", "stereo", "trimmed"],
)
def test_other_architectures_have_the_same_bits_too(config: EncodecConfig, tmp_path: Path) -> None:
    model = random_model(config, 3).float()
    model.save_pretrained(tmp_path)
    rng = np.random.default_rng(5)
    pcm = rng.normal(0, 0.3, (config.audio_channels, 150 * config.hop_length + 7)).astype(np.float32)
    books = config.num_codebooks_for(config.target_bandwidths[-1])
    assert there(tmp_path, books, pcm) == here(tmp_path, books, pcm)
    assert run("fingerprint.mjs", tmp_path).decode().strip() == ModelFolder(tmp_path).fingerprint


def test_the_fingerprint_is_python_s() -> None:
    assert run("fingerprint.mjs", BUNDLED).decode().strip() == ModelFolder(BUNDLED).fingerprint


def test_wrong_files_and_sound_are_one_error_that_says_what_is_wrong() -> None:
    told = json.loads(run("wrong.mjs"))
    assert told.pop("a network of 20 frames") == "fine"
    for what, (name, words) in {
        "no wasm": ("UnsupportedError", "cannot be started"),
        "cut off": ("CheckpointError", "cut off"),
        "no safetensors": ("CheckpointError", "no .safetensors file"),
        "head": ("CheckpointError", "JSON"),
        "another model": ("CheckpointError", "do not fit"),
        "nan weight": ("CheckpointError", "NaN"),
        "segments": ("ConfigError", "segments"),
        "no config": ("ConfigError", "no object"),
        "bandwidth": ("ConfigError", "choose"),
        "ratios": ("ConfigError", "upsampling_ratios"),
        "nan sample": ("StreamError", "sample 3"),
        "loud sample": ("StreamError", "sample 0"),
        "code": ("StreamError", "1024 entries"),
        "no frames": ("StreamError", "frames"),
        "codebooks": ("StreamError", "1..16"),
        "closed": ("StreamError", "closed"),
        "state": ("StreamError", "no state"),
    }.items():
        assert told[what][0] == name, (what, told[what])
        assert words in told[what][1], (what, told[what])
    assert len(told) == 17


def test_streams_cut_the_sound_where_they_like() -> None:
    pcm = speech(3)
    assert run("streams.mjs", content=pcm.astype("<f4").tobytes()) == b"same\n"


def test_the_npm_package_is_whole(tmp_path: Path) -> None:
    """Packed, installed in an empty folder, imported by its name."""
    npm = shutil.which("npm")
    assert npm is not None
    assert json.loads((WEB / "package.json").read_text(encoding="utf-8"))["version"] == __version__

    def call(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    packed = call(npm, "pack", WEB, "--pack-destination", tmp_path, "--json", "--ignore-scripts")
    files = {one["path"] for one in json.loads(packed)[0]["files"]}
    assert {"codec/kernel.wasm", "codec/index.js", "wire/index.js", "voice/index.js", "call/index.js"} <= files
    assert not {path for path in files if path.endswith(".html") or path.startswith(("page", "client"))}
    (tmp_path / "package.json").write_text('{"type": "module"}')
    call(npm, "install", "--offline", "--no-audit", "--no-fund", next(tmp_path.glob("*.tgz")))
    shutil.copy(HERE / "installed.mjs", tmp_path)
    assert call(node(), "installed.mjs", BUNDLED) == "24000 samples\n"
