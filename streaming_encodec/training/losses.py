"""Reconstruction losses: the waveform itself, and mel spectrograms at several resolutions.

Without a waveform loss the phase is never learned; without the spectra the high band stays silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Bank = npt.NDArray[np.float32]

MEL_FLOOR = 1e-4
"""Added inside the logarithm, about -80 dB of a full-scale tone: a clamp would give silence no gradient.

With lower floors the gradients of quiet segments dominate all others (1e-5: spikes of 40 times).
"""

WAVEFORM_FLOOR = 3e-3
"""Mean level below which a segment counts as nearly silent and its error is no longer scaled up."""

SHAPING = tuple(3.7 / 16 * tap for tap in (1.0, 3.1, 2.4, -1.4, -2.6, -0.9))
"""Pre-emphasis (1, -0.9), then twice the smoothing (1, 2, 1) / 4; times 3.7, for a gain near 1 at 1 kHz.

Gains: 0.4 below 250 Hz, 0.6 at 500 Hz, 1.6 at 2 kHz, 2.0 at 4 kHz, 0.4 at 8 kHz.
"""


def waveform_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error relative to each segment's mean level; ``[B, 1, T]`` both → scalar."""
    error = (output - target).abs().mean(dim=(1, 2))  # [B]
    level = target.abs().mean(dim=(1, 2)) + WAVEFORM_FLOOR  # [B]
    return (error / level).mean()


def shaped_loss(output: Tensor, target: Tensor) -> Tensor:
    """:func:`waveform_loss` after a filter that lifts 0.5 to 4 kHz to the level of the first harmonics.

    Most of the energy of speech lies below 500 Hz: from the plain waveform a codec learns the phase of that
    band only. Above 4 kHz speech is mostly noise, whose phase is not worth the bits.
    """
    taps = output.new_tensor(SHAPING)[None, None]
    return waveform_loss(F.conv1d(output, taps), F.conv1d(target, taps))


class MelLoss(nn.Module):
    """L1 between log-mel spectra, averaged over window lengths; and a little between linear mel spectra."""

    def __init__(self, sample_rate: int, windows: Sequence[int], most_bands: int = 80) -> None:
        super().__init__()
        self.windows = tuple(windows)
        for window in self.windows:
            bands = min(most_bands, window // 8)
            # Scaled by its sum, so that a full-scale tone is near 1 at each resolution.
            shape = torch.hann_window(window)
            self.register_buffer(f"window_{window}", shape / shape.sum() * 2.0, persistent=False)
            bank = torch.from_numpy(mel_filterbank(sample_rate, window, bands))
            self.register_buffer(f"bank_{window}", bank, persistent=False)

    def forward(self, output: Tensor, target: Tensor, windows: Sequence[int] | None = None) -> Tensor:
        """``[B, 1, T]`` both → scalar; ``windows``: only these of the loss's."""
        total = output.new_zeros(())
        windows = windows or self.windows
        for window in windows:
            with torch.no_grad():
                wanted = self.mel(target, window)
            got = self.mel(output, window)
            log_error = ((got + MEL_FLOOR).log() - (wanted + MEL_FLOOR).log()).abs().mean()
            linear_error = (got - wanted).abs().mean() / (wanted.mean() + MEL_FLOOR)
            total = total + log_error + 0.25 * linear_error
        return total / len(windows)

    def mel(self, x: Tensor, window: int) -> Tensor:
        """Magnitude mel spectrogram ``[B, bands, frames]`` of ``[B, 1, T]``."""
        shape = cast(Tensor, getattr(self, f"window_{window}"))
        bank = cast(Tensor, getattr(self, f"bank_{window}"))
        return bank @ (power_spectrum(x, shape, window // 4) + 1e-12).sqrt()


def power_spectrum(x: Tensor, shape: Tensor, hop: int, center: bool = True) -> Tensor:
    """Power ``[B, bins, frames]`` of ``[B, 1, T]`` under a window's ``shape``, in float32."""
    spectrum = torch.stft(
        x.squeeze(1).float(), len(shape), hop, window=shape, center=center, pad_mode="constant", return_complex=True
    )
    return torch.view_as_real(spectrum).square().sum(-1)


def mel_filterbank(sample_rate: int, window: int, bands: int) -> Bank:
    """Triangular filters on the HTK mel scale, each summing to one: ``[bands, window // 2 + 1]``.

    A low band narrower than a bin gets the nearest bin, so no filter is empty.
    """
    edges_mel = np.linspace(0.0, 2595.0 * np.log10(1.0 + sample_rate / 2 / 700.0), bands + 2)
    edges = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    bins = np.arange(window // 2 + 1) * sample_rate / window
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    bank = np.maximum(0.0, np.minimum(rising, falling))
    for row in np.flatnonzero(bank.sum(axis=1) == 0.0):
        bank[row, int(np.abs(bins - edges[row + 1]).argmin())] = 1.0
    normed: Bank = (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)
    return normed
