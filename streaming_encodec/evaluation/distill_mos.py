"""Distill-MOS: a second network that predicts listeners' opinion without the original. No loss resembles it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.extras import packaged_file
from streaming_encodec.evaluation.metric import WIDEBAND, Better, Score, resample
from streaming_encodec.types import Pcm

_WINDOW, _HOP = 320, 160  # 20 and 10 ms
_STEPS = 384  # of 20 ms, within the attention
_PART = 2 * _STEPS * _HOP  # samples of one input of the network: 7.68 s
_BINS = (_WINDOW // 2 + 1, 159, 79, 39, 19, 9, 4)  # after each convolution
_CHANNELS = (2, 64, 64, 128, 256, 256, 256)
_WIDTH, _HEADS, _LAYERS = 200, 8, 7
_COMPRESSION = 0.3  # exponent of the magnitudes


class DistillMos:
    """Distill-MOS (Stahl and Gamper 2025), 1 … 5: distilled from a large network on a speech representation (XLS-R).

    Only the weights are taken from the package ``distillmos`` (MIT): its code imports torchaudio and librosa.
    """

    name, title = "distill_mos", "Distill-MOS"
    family = name
    better: Better = "higher"
    absolute = True

    def __init__(self) -> None:
        install = "pip install --no-deps distillmos"
        path = packaged_file("distillmos", "weights/distill_mos_v7.pt", "Distill-MOS", install)
        self._network = _Network()
        self._network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
        self._network.eval()

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        return Score(self.judge(resample(degraded, clip.sample_rate, WIDEBAND)))

    @torch.no_grad()
    def judge(self, wide: Pcm) -> float:
        """[T] at 16 kHz → mean over parts of 7.68 s, spread evenly, at most a second apart; short clips are padded."""
        wide = np.pad(wide, (0, max(0, _PART - len(wide))))
        beyond = len(wide) - _PART
        starts = (np.linspace(0.0, 1.0, math.ceil(beyond / WIDEBAND) + 1) * beyond).astype(int)
        parts = (torch.from_numpy(wide[start : start + _PART].astype(np.float32)) for start in starts)
        return float(np.mean([self._network(part[None]).item() for part in parts]))


class _Network(nn.Module):
    """[B, 122880] → [B, 1]: convolutions over the spectrum, a transformer, a weighted mean over time.

    The attributes have the names of the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cnn = _Convolutions()
        self.transformer_pool_attn = _Attention(_CHANNELS[-1] * _BINS[-1])

    def forward(self, wide: Tensor) -> Tensor:
        wide = wide / (wide.abs().amax(dim=1, keepdim=True) + 1e-8)
        quality: Tensor = self.transformer_pool_attn(self.cnn(wide))
        return 1.0 + 4.0 * quality


class _Convolutions(nn.Module):
    """[B, 122880] → [B, 384, 1024]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = len(_CHANNELS) - 2
        for place, (before, after) in enumerate(pairwise(_CHANNELS)):
            stride = (2 if place > 0 else 1, 2 if place == last else 1)  # frequency, time
            layers += [nn.Conv2d(before, after, 3, stride, padding=(0, 1)), nn.LeakyReLU(0.1)]
        self.cnn = nn.Sequential(*layers)

    def forward(self, wide: Tensor) -> Tensor:
        edge = (_WINDOW - _HOP) // 2
        spectrum = torch.stft(
            functional.pad(wide, (edge, edge), mode="reflect"), _WINDOW, _HOP, center=False,
            window=torch.hann_window(_WINDOW), return_complex=True,
        )  # [B, 161, 768]  # fmt: skip
        magnitude = spectrum.abs().clamp(min=1e-12)
        compressed = torch.view_as_real(spectrum * magnitude ** (_COMPRESSION - 1.0))
        x: Tensor = self.cnn(compressed.permute(0, 3, 1, 2))  # [B, 256, 4, 384]
        return x.flatten(1, 2).transpose(1, 2)


class _Attention(nn.Module):
    """[B, 384, features] → [B, 1], 0 … 1."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm_input = nn.BatchNorm1d(features)
        self.transformer = _Transformer(features)
        self.norm_trans = nn.BatchNorm1d(_WIDTH)
        self.pool = _Pool()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_input(x.transpose(1, 2)).transpose(1, 2)
        x = self.norm_trans(self.transformer(x).transpose(1, 2)).transpose(1, 2)
        return torch.sigmoid(self.pool(x))


class _Transformer(nn.Module):
    """[B, 384, features] → [B, 384, 200]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.linear_proj = nn.Linear(features, _WIDTH)
        self.position_encoding = _Positions()
        layer = nn.TransformerEncoderLayer(_WIDTH, _HEADS, 2 * _WIDTH, dropout=0.0, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_proj(self.norm(x.transpose(1, 2)).transpose(1, 2))
        y: Tensor = self.transformer_encoder(x + self.position_encoding.pe)
        return y


class _Positions(nn.Module):
    """Sines and cosines added to the steps: stored with the weights."""

    pe: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pe", torch.zeros(1, _STEPS, _WIDTH))


class _Pool(nn.Module):
    """[B, 384, 200] → [B, 1]: a mean over time, weighted by what a small network finds telling."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(_WIDTH, 2 * _WIDTH)
        self.linear2 = nn.Linear(2 * _WIDTH, 1)
        self.linear3 = nn.Linear(_WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        share = torch.softmax(self.linear2(torch.relu(self.linear1(x))), dim=1)  # [B, 384, 1]
        y: Tensor = self.linear3((share * x).sum(dim=1))
        return y
