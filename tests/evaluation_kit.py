"""Sounds and models that the evaluation's tests share."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile
import torch
from typer import Typer
from typer.testing import CliRunner

from streaming_encodec.cli.commands.evaluate import command
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.types import Pcm

RATE = 24_000


def speech(seconds: float = 5.6) -> Clip:
    """The bundled sentence, or its beginning."""
    samples, rate = soundfile.read(str(files("streaming_encodec") / "assets" / "speech.flac"), dtype="float32")
    assert rate == RATE
    return Clip("speech", samples[: round(seconds * RATE)], RATE, language="en")


def with_noise(clip: Clip, snr_db: float) -> Pcm:
    """The clip and white noise ``snr_db`` below it."""
    noise = np.random.default_rng(0).standard_normal(len(clip.samples))
    level = np.sqrt(np.mean(clip.samples.astype(np.float64) ** 2)) * 10 ** (-snr_db / 20)
    return (clip.samples + level * noise).astype(np.float32)


def small_model(seed: int = 0) -> EncodecModel:
    """Untrained, 24 kHz, hop 320, three bandwidths, biases not zero: fast, and as loud as its input."""
    config = EncodecConfig(
        target_bandwidths=(1.5, 3.0, 6.0), num_filters=4, hidden_size=16, upsampling_ratios=(8, 5, 8),
        num_lstm_layers=1, codebook_size=1024,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EncodecModel(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.uniform_(-0.1, 0.1)
    return model


def write_folder(folder: Path, clips: int = 2, seconds: float = 1.2) -> Path:
    """A folder of short recordings, cut from the bundled sentence."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = speech().samples
    length = round(seconds * RATE)
    for number in range(clips):
        start = 8_000 + number * length
        soundfile.write(folder / f"clip-{number}.flac", samples[start : start + length], RATE)
    return folder


def run(*arguments: str | Path):  # type: ignore[no-untyped-def]
    """What `evaluate` gives for these arguments."""
    app = Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
