"""Losses after models of hearing: differentiable forms of what PESQ, STOI and ViSQOL measure.

:class:`LoudnessLoss` follows the perceptual model of ITU-T P.862: loudness in Bark bands, differences below a share of
the loudness masked, added sound worse than missing sound. :class:`EnvelopeLoss` follows STOI (Taal et al. 2011): the
correlation of third-octave envelopes over 0.4 s. :class:`SimilarityLoss` follows ViSQOL's neurogram similarity (Hines
and Harte 2012): local patterns of a gammatone spectrogram across bands and frames. None aligns levels or delays, and
none of their constants is fitted to a data set. Training on them raises the three metrics by itself: say so beside
figures, and measure the word error rate too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streaming_encodec.training.losses import Bank, power_spectrum

LISTENING_DB = 76.0
"""Assumed sound pressure level of a segment's mean power."""
_ZWICKER = 0.23
_BARK_BANDS = 48
_MASKED = 0.25
"""Inaudible difference of two loudnesses, as a share of the lesser one (P.862, 10.2.7)."""
_ASYMMETRY, _ASYMMETRY_FLOOR, _ASYMMETRY_LIMIT = 1.2, 50.0, 12.0
_ASYMMETRIC_SHARE = 0.309
_QUIET_POWER = 1e5

_ENVELOPE_FRAMES = 30
_ENVELOPE_BANDS = 15
_LOWEST_HZ = 150.0
_CLIP = 1.0 + 10.0 ** (15.0 / 20.0)

_GAMMATONE_BANDS = 21
_NEIGHBOURS = ((0.0113, 0.0838, 0.0113), (0.0838, 0.6196, 0.0838), (0.0113, 0.0838, 0.0113))
"""Weights of a point and its neighbours in band and time (a Gaussian of half a step)."""
_QUIET = 1e-9
"""Band power that counts as silence: with a lower one the gradient of nearly silent bands dominates the others."""
_FLAT = 0.02
"""Added to variances, dB^2: a flat pattern has no similarity."""


class LoudnessLoss(nn.Module):
    """Disturbance per frame of 32 ms, as P.862 has it before it averages over time."""

    shape: Tensor  # [window]
    bank: Tensor  # [bands, bins]
    widths: Tensor  # [bands, 1], Bark
    threshold: Tensor  # [bands, 1], power

    def __init__(self, sample_rate: int, highest_hz: float = 8000.0) -> None:
        super().__init__()
        self.window = 2 * round(0.016 * sample_rate)
        shape = torch.hann_window(self.window)
        # A spectrum's sum is then the mean power of the frame.
        self.register_buffer("shape", shape / (shape.square().sum() * self.window / 2.0).sqrt(), persistent=False)
        bank, widths, centres_hz = bark_bank(sample_rate, self.window, highest_hz)
        self.register_buffer("bank", torch.from_numpy(bank), persistent=False)
        self.register_buffer("widths", torch.from_numpy(widths)[:, None], persistent=False)
        threshold = torch.from_numpy(10.0 ** (hearing_threshold_db(centres_hz) / 10.0)).float()
        self.register_buffer("threshold", threshold[:, None], persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """``[B, 1, T]`` both → scalar."""
        with torch.no_grad():
            level = target.square().mean(dim=(1, 2), keepdim=True) + 1e-6  # [B, 1, 1]; silence is not scaled up
            gain = float(10.0 ** (LISTENING_DB / 10.0)) / level
            wanted = self.power(target) * gain
            loud = self.loudness(wanted)
        got = self.power(output) * gain
        heard = self.loudness(got)  # [B, bands, frames]
        distance = F.relu((heard - loud).abs() - _MASKED * torch.minimum(heard.detach(), loud))
        with torch.no_grad():
            ratio = ((got + _ASYMMETRY_FLOOR) / (wanted + _ASYMMETRY_FLOOR)).pow(_ASYMMETRY)
            ratio = torch.where(ratio < 3.0, 0.0, ratio.clamp_max(_ASYMMETRY_LIMIT))
            frames = ((wanted.sum(1) + _QUIET_POWER) / 1e7).pow(0.04)  # [B, frames]
        widths = self.widths
        symmetric = ((distance * widths).square().sum(1) + 1e-4).sqrt() * widths.sum().sqrt()
        asymmetric = (distance * ratio * widths).sum(1)
        return ((symmetric + _ASYMMETRIC_SHARE * asymmetric) / frames).mean() / widths.sum()

    def power(self, x: Tensor) -> Tensor:
        """Power in Bark bands ``[B, bands, frames]`` of ``[B, 1, T]``."""
        return self.bank @ power_spectrum(x, self.shape, self.window // 2)

    def loudness(self, power: Tensor) -> Tensor:
        """Zwicker's law, above the threshold of hearing."""
        scale = (self.threshold / 0.5).pow(_ZWICKER) * 0.19
        return scale * ((0.5 + 0.5 * power / self.threshold).pow(_ZWICKER) - 1.0).clamp_min(0.0)


class EnvelopeLoss(nn.Module):
    """One minus the mean correlation of third-octave envelopes, over windows of 30 frames (0.4 s)."""

    shape: Tensor  # [window]
    bank: Tensor  # [15, bins]

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.window = 2 * round(0.0128 * sample_rate)
        self.register_buffer("shape", torch.hann_window(self.window), persistent=False)
        self.register_buffer("bank", torch.from_numpy(third_octaves(sample_rate, self.window)), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """``[B, 1, T]`` both → scalar."""
        with torch.no_grad():
            wanted = self.envelopes(target)
            frames = wanted.square().sum(2, keepdim=True)
            # Quiet frames (40 dB below the loudest one) do not count, as in the metric.
            heard = frames.mean(-1) > 1e-4 * frames.amax((1, 3))[:, None]  # [B, windows, 1]
            norm = wanted.norm(dim=-1, keepdim=True)
        got = self.envelopes(output)
        with torch.no_grad():
            gain = norm / (got.norm(dim=-1, keepdim=True) + 1e-9)
        limited = torch.minimum(got * gain, wanted * _CLIP)
        correlation = (_centred(limited) * _centred(wanted)).sum(-1)  # [B, windows, bands]
        weight = heard.float().expand_as(correlation)
        return 1.0 - (correlation * weight).sum() / weight.sum().clamp_min(1.0)

    def envelopes(self, x: Tensor) -> Tensor:
        """``[B, 1, T]`` → ``[B, windows, bands, 30]``."""
        power = self.bank @ power_spectrum(x, self.shape, self.window // 2, center=False)  # [B, bands, frames]
        frames = min(_ENVELOPE_FRAMES, power.shape[-1])
        return (power + 1e-6).sqrt().unfold(-1, frames, 5).transpose(1, 2)


class SimilarityLoss(nn.Module):
    """One minus the mean neurogram similarity of spectrograms in 21 gammatone bands, frames of 80 ms every 20 ms."""

    shape: Tensor  # [window]
    bank: Tensor  # [21, bins]
    neighbours: Tensor  # [1, 1, 3, 3]

    def __init__(self, sample_rate: int, highest_hz: float = 8000.0) -> None:
        super().__init__()
        self.window = round(0.08 * sample_rate)
        self.register_buffer("shape", torch.hann_window(self.window) * (2.0**0.5 / self.window), persistent=False)
        bank = gammatone_bank(sample_rate, self.window, highest_hz)
        self.register_buffer("bank", torch.from_numpy(bank), persistent=False)
        self.register_buffer("neighbours", torch.tensor(_NEIGHBOURS)[None, None], persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """``[B, 1, T]`` both → scalar."""
        return 1.0 - self.similarity(output, target).mean()

    def similarity(self, output: Tensor, target: Tensor) -> Tensor:
        """Of each point, within -1 to 1: ``[B, 1, T]`` both → ``[B, bands, frames]``."""
        with torch.no_grad():
            wanted = self.levels(target)
            mean_wanted = self._around(wanted)
            spread_wanted = (self._around(wanted.square()) - mean_wanted.square()).clamp_min(0.0)
        got = self.levels(output)
        mean = self._around(got)
        spread = (self._around(got.square()) - mean.square()).clamp_min(0.0)
        together = self._around(got * wanted) - mean * mean_wanted
        intensity = (2.0 * mean * mean_wanted + _FLAT) / (mean.square() + mean_wanted.square() + _FLAT)
        structure = (together + _FLAT) / ((spread * spread_wanted + 1e-8).sqrt() + _FLAT)
        return (intensity * structure).squeeze(1)

    def levels(self, x: Tensor) -> Tensor:
        """Levels of the bands above silence, in half decibels as ViSQOL has them: ``[B, 1, bands, frames]``."""
        power = self.bank @ power_spectrum(x, self.shape, self.window // 4, center=False)
        return 5.0 * torch.log10((power + _QUIET) / _QUIET).unsqueeze(1)

    def _around(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), self.neighbours)


def _centred(x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def bark(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Critical-band rate (Traunmüller 1990)."""
    return np.asarray(26.81 * hertz / (1960.0 + hertz) - 0.53)


def bark_bank(sample_rate: int, window: int, highest_hz: float) -> tuple[Bank, Bank, npt.NDArray[np.float64]]:
    """Bands of equal width in Bark: ``[bands, bins]`` weights, widths in Bark, centres in Hz.

    A bin that lies across an edge is shared; below 300 Hz bands are narrower than a bin and each gets its share of one.
    """
    bins = np.arange(window // 2 + 1) * sample_rate / window
    half = sample_rate / window / 2
    edges = np.linspace(bark(np.array(50.0)), bark(np.array(highest_hz)), _BARK_BANDS + 1)
    edges_hz = 1960.0 * (edges + 0.53) / (26.81 - edges - 0.53)
    low, high = edges_hz[:-1, None], edges_hz[1:, None]
    overlap = np.minimum(bins + half, high) - np.maximum(bins - half, low)
    bank = np.clip(overlap, 0.0, None) / (2 * half)
    return bank.astype(np.float32), np.diff(edges).astype(np.float32), np.sqrt(edges_hz[:-1] * edges_hz[1:])


def hearing_threshold_db(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Threshold of hearing (Terhardt 1979)."""
    khz = hertz / 1000.0
    return np.asarray(3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4)


def third_octaves(sample_rate: int, window: int) -> Bank:
    """``[15, bins]``, from 150 Hz upwards; a bin belongs to one band."""
    bins = np.arange(window // 2 + 1) * sample_rate / window
    centres = _LOWEST_HZ * 2.0 ** (np.arange(_ENVELOPE_BANDS) / 3.0)
    low, high = centres[:, None] * 2.0 ** (-1 / 6), centres[:, None] * 2.0 ** (1 / 6)
    inside: Bank = ((bins >= low) & (bins < high)).astype(np.float32)
    return inside


def gammatone_bank(sample_rate: int, window: int, highest_hz: float) -> Bank:
    """``[21, bins]`` power responses of fourth-order gammatone filters, evenly spaced in ERB from 50 Hz.

    The spacing and widths are those of Glasberg and Moore (1990).
    """
    bins = np.arange(window // 2 + 1) * sample_rate / window
    quality, narrowest, lowest_hz = 9.26449, 24.7, 50.0
    offset = quality * narrowest
    steps = np.arange(_GAMMATONE_BANDS) / _GAMMATONE_BANDS
    centres = (lowest_hz + offset) * ((highest_hz + offset) / (lowest_hz + offset)) ** steps - offset
    widths = 1.019 * (centres / quality + narrowest)
    response: Bank = ((1.0 + ((bins - centres[:, None]) / widths[:, None]) ** 2) ** -4).astype(np.float32)
    return response
