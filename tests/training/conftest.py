"""A tiny data set and a tiny run: seconds of tones and noise, a model of a few thousand weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.training import step
from streaming_encodec.training.config import ChannelConfig, LossConfig, LostFramesConfig, QuantizerConfig, TrainConfig
from streaming_encodec.training.recipe import Clip, write_manifest

TINY_MODEL = EncodecConfig(
    target_bandwidths=(0.6, 1.2),  # 2 and 4 codebooks of 4 bits
    num_filters=4,
    upsampling_ratios=(8, 5, 8),
    hidden_size=8,
    num_lstm_layers=1,
    codebook_size=16,
    use_conv_shortcut=False,
)
ZERO_PADDED = dataclasses.replace(TINY_MODEL, pad_mode="constant")
"""What training on a CPU has products for, without kernels that some CPUs have wrong in bfloat16."""


def voice_like(seconds: float, seed: int, sample_rate: int = 24000) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A gliding harmonic tone with a syllable-like envelope and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    pitch = 120 + 40 * rng.random() + 20 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    tone = sum(np.sin(h * phase) / h for h in range(1, 12))
    envelope = 0.5 * (1 + np.sin(2 * np.pi * 3 * t + rng.random()))
    return (0.15 * envelope * tone + 0.005 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips to train on (two sources), two to validate on."""
    root = tmp_path_factory.mktemp("data")
    clips = []
    for number in range(8):
        source = "valid" if number >= 6 else ("a" if number < 4 else "b")
        (root / source).mkdir(exist_ok=True)
        name = f"{source}/{number}.flac"
        soundfile.write(root / name, voice_like(2.5, number), 24000, subtype="PCM_16")
        split = "valid" if source == "valid" else "train"
        clips.append(Clip(name, 2.5, source, "CC0-1.0", f"speaker{number}", split, "speech"))  # type: ignore[arg-type]
    write_manifest(root / "manifest.jsonl", clips)
    return root


@pytest.fixture
def tiny_config(tiny_data: Path, tmp_path: Path) -> TrainConfig:
    """A run that passes through every phase within a dozen steps."""
    return TrainConfig(
        data=str(tiny_data),
        out=str(tmp_path / "run"),
        model=TINY_MODEL,
        steps=12,
        batch_size=3,
        segment_seconds=0.2,
        warmup_steps=2,
        quantizer=QuantizerConfig(start_step=3, counts=(1, 2, 4), kmeans_batches=3, kmeans_rounds=3),
        channel=ChannelConfig(start_step=1),
        lost_frames=LostFramesConfig(start_step=5, chance=0.7),
        loss=LossConfig(mel_windows=(512, 256), discriminator_filters=4, discriminator_windows=(256,)),
        log_every=1,
        save_every=4,
        validate_every=6,
        validation_clips=1,
    )


@pytest.fixture
def any_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a run in bfloat16 begin on a CPU whose kernels it would refuse: for tests of something else."""
    monkeypatch.setattr(step, "require_sane_gradients", lambda config, device, low: 1.0)
