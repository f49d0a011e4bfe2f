"""Checks for clicks at frame borders, and for output that is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.streamed import CodedClips, decode_clips, encode_clips
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.types import Pcm

CLICK_RATIO = 1.5
"""Above this, frame borders are audible.

Speech itself is near 1; a decoder that forgets its state is far above.
"""

_ALONE = 128  # frames decoded at once: bounds the memory


@dataclass(frozen=True)
class SignalResult:
    """A hostile signal through the codec at ``kbps``; levels in dB of full scale."""

    signal: str
    kbps: float
    finite: bool
    peak: float
    level_db: float


def hostile_signals(sample_rate: int, seconds: float = 1.0, seed: int = 0) -> list[Clip]:
    """Silence, a full-scale square wave, white noise at full scale, and full-scale noise that stops abruptly."""
    samples = round(seconds * sample_rate)
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-1.0, 1.0, samples).astype(np.float32)
    time = np.arange(samples) / sample_rate
    square = np.where(np.floor(time * 400) % 2 == 0, 1.0, -1.0).astype(np.float32)
    stops = np.where(time < seconds / 2, noise, 0.0).astype(np.float32)
    signals = {
        "silence": np.zeros(samples, np.float32),
        "square wave, full scale": square,
        "white noise, full scale": noise,
        "white noise, then silence": stops,
    }
    return [Clip(name, signal, sample_rate) for name, signal in signals.items()]


def check_signals(model: EncodecModel, bandwidths: Sequence[float], seconds: float = 1.0) -> list[SignalResult]:
    """Hostile signals through the streaming path at each bandwidth."""
    clips = hostile_signals(model.config.sampling_rate, seconds)
    results = []
    for kbps in bandwidths:
        for clip, out in zip(clips, decode_clips(model, encode_clips(model, clips, kbps)), strict=True):
            finite = bool(np.isfinite(out).all())
            known = out[np.isfinite(out)].astype(np.float64)
            peak = float(np.abs(known).max(initial=0.0))
            power = float(np.mean(known**2)) if known.size else 0.0
            results.append(SignalResult(clip.name, kbps, finite, peak, float(10 * np.log10(power + 1e-12))))
    return results


def border_ratio(sounds: Sequence[Pcm], hop_length: int) -> float:
    """Roughness at frame borders relative to elsewhere: 1 is equal; a click at each border gives far more.

    Roughness is the second difference |x[n−1] − 2·x[n] + x[n+1]|, RMS over frames after each frame is scaled
    to the same energy (so that a loud hiss doesn't outweigh the rest); the two samples at the border against
    the others.
    """
    profile = np.zeros(hop_length)
    for sound in sounds:
        rough = np.zeros(len(sound))
        rough[1:-1] = np.diff(sound.astype(np.float64), n=2) ** 2
        frames = rough[hop_length : len(rough) // hop_length * hop_length].reshape(-1, hop_length)
        energy = frames.sum(axis=1, keepdims=True)
        heard = energy[:, 0] > energy.max(initial=0.0) * 1e-6
        profile += (frames[heard] / energy[heard]).sum(axis=0)
    border = (profile[0] + profile[-1]) / 2
    elsewhere = profile[1:-1].mean()
    return float(np.sqrt(border / elsewhere)) if elsewhere > 0 else 1.0


@torch.no_grad()
def decode_offline(model: EncodecModel, coded: CodedClips) -> list[Pcm]:
    """Each clip decoded at once by the offline model."""
    return _cut(model.decode(coded.codes).audio_values, coded)


@torch.no_grad()
def decode_forgetful(model: EncodecModel, coded: CodedClips) -> list[Pcm]:
    """The clips by a decoder without state, each frame decoded alone: the reference for clicks."""
    batch, count, frames = coded.codes.shape
    alone = coded.codes.permute(0, 2, 1).reshape(batch * frames, count, 1)
    pcm = torch.cat([model.decode(part).audio_values for part in torch.split(alone, _ALONE)])  # [B · F, C, hop]
    return _cut(pcm.reshape(batch, frames, *pcm.shape[1:]).transpose(1, 2).flatten(2), coded)


def _cut(pcm: Tensor, coded: CodedClips) -> list[Pcm]:
    mono = pcm.mean(dim=1).float().numpy()
    return [mono[row, :length].copy() for row, length in enumerate(coded.lengths)]
