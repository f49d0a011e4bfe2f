"""The multi-scale STFT discriminator of EnCodec (arXiv 2210.13438, section 3.4), and its losses.

Each scale looks at the real and imaginary part of a short-time spectrum as a two-channel picture. Its magnitudes are
compressed: speech above 4 kHz is 40 to 60 dB below its vowels, and next to a layer's bias a linear picture of it is
empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.2
"""Leaky ReLU's slope, as in the paper."""

COMPRESSION = 0.4
"""Power of a magnitude in the picture: 60 dB become 24. With 1, the logits of real and decoded sound stayed equal."""

_FLOOR = 1e-7
"""Squared magnitude (-70 dB) below which the picture is linear: the gradient of the power is infinite at zero."""


class Judgement(NamedTuple):
    """The output of one scale: logits over time and frequency, and the features of its layers."""

    logits: Tensor  # [B, 1, frames, bins]
    features: list[Tensor]


class StftDiscriminator(nn.Module):
    """One scale: convolutions over time (dilated by 1, 2, 4) and frequency (strided by 2)."""

    def __init__(self, window: int, filters: int) -> None:
        super().__init__()
        self.window = window
        shape = torch.hann_window(window)
        self.register_buffer("shape", shape / shape.sum().sqrt(), persistent=False)
        layers: list[nn.Module] = [_conv(2, filters, (3, 9), (1, 1), 1)]
        layers += [_conv(filters, filters, (3, 9), (1, 2), 2**i) for i in range(3)]
        layers.append(_conv(filters, filters, (3, 3), (1, 1), 1))
        self.layers = nn.ModuleList(layers)
        self.head = _conv(filters, 1, (3, 3), (1, 1), 1)

    def forward(self, x: Tensor) -> Judgement:
        """``x`` [B, 1, T]."""
        window = cast(Tensor, self.shape)
        spectrum = torch.stft(
            x.squeeze(1), self.window, self.window // 4, window=window, center=True, pad_mode="constant",
            return_complex=True,
        )  # fmt: skip
        picture = torch.stack((spectrum.real, spectrum.imag), dim=1).transpose(2, 3)  # [B, 2, frames, bins]
        power = picture.square().sum(dim=1, keepdim=True)
        y = picture * (power + _FLOOR).pow(0.5 * (COMPRESSION - 1.0))
        features = []
        for layer in self.layers:
            y = F.leaky_relu(layer(y), SLOPE)
            features.append(y)
        return Judgement(self.head(y), features)


class MultiScaleStftDiscriminator(nn.Module):
    """One discriminator for each window length."""

    def __init__(self, windows: Sequence[int], filters: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(StftDiscriminator(window, filters) for window in windows)

    def forward(self, x: Tensor) -> list[Judgement]:
        """``x`` [B, 1, T] → one judgement a scale."""
        return [scale(x) for scale in self.scales]


def discriminator_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """Hinge loss, averaged over the scales."""
    losses = [
        F.relu(1 - r.logits.float()).mean() + F.relu(1 + f.logits.float()).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def adversarial_loss(fake: Sequence[Judgement]) -> Tensor:
    """The decoder's adversarial loss (hinge)."""
    return torch.stack([F.relu(1 - f.logits.float()).mean() for f in fake]).mean()


def feature_loss(real: Sequence[Judgement], fake: Sequence[Judgement]) -> Tensor:
    """L1 between the features of real and decoded sound, relative to the real ones' mean level."""
    losses = [
        (got.float() - wanted.detach().float()).abs().mean() / (wanted.detach().float().abs().mean() + 1e-6)
        for r, f in zip(real, fake, strict=True)
        for wanted, got in zip(r.features, f.features, strict=True)
    ]
    return torch.stack(losses).mean()


def _conv(
    in_channels: int, out_channels: int, kernel: tuple[int, int], stride: tuple[int, int], dilation: int
) -> nn.Module:
    padding = (dilation * (kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
    convolution: nn.Module = weight_norm(nn.Conv2d(in_channels, out_channels, kernel, stride, padding, (dilation, 1)))
    return convolution
