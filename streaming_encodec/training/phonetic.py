"""A loss that hears words: how far apart two signals are inside a speech recogniser.

Spectral losses treat all differences alike; where bits are few, a codec that learns from them alone spends too little
on what tells one word from another. Whisper's encoder (Radford et al. 2022) was trained on just that. The distance is
taken between its hidden states, layer by layer, each state normalised. Speech codecs have long been taught by such
features (SpeechTokenizer, Zhang et al. 2023; Mimi, Défossez et al. 2024, take them from self-supervised models).

A codec that learns from a recogniser is understood by that recogniser for that reason too: count words with another
one as well.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streaming_encodec.errors import ConfigError, FileFormatError
from streaming_encodec.evaluation.metrics import mel_filters
from streaming_encodec.evaluation.recognition import assemble_whisper

_RATE, _WINDOW, _HOP = 16_000, 400, 160
"""Whisper's spectra: 25 ms, every 10 ms."""
_FLOOR, _RANGE = 1e-10, 8.0

Array = npt.NDArray[Any]


class PhoneticLoss(nn.Module):
    """Mean squared difference of Whisper's normalised hidden states, from its convolutions to layer ``layers``.

    ``weights``: a folder with a ``model.bin`` of CTranslate2; None takes Whisper base from the packages of the extra
    ``eval``, and raises :class:`MissingExtraError` without them.
    """

    shape: Tensor  # [window]
    bank: Tensor  # [mels, bins]
    positions: Tensor  # [places, width]

    def __init__(self, sample_rate: int, layers: int, weights: Path | None = None) -> None:
        super().__init__()
        self.hop = _HOP * sample_rate // _RATE
        window = _WINDOW * sample_rate // _RATE
        # The same spacing of bins as at Whisper's rate, so its filters fit and nothing is resampled.
        self.register_buffer("shape", torch.hann_window(window) * (_WINDOW / window), persistent=False)
        with tempfile.TemporaryDirectory() as folder:
            path = (weights or assemble_whisper(Path(folder))) / "model.bin"
            held = {
                name: torch.from_numpy(np.array(value, np.float32))
                for name, value in read_ctranslate2(path, "encoder/").items()
            }
        bank = mel_filters(_RATE, _WINDOW, held["conv1/weight"].shape[1])
        self.register_buffer("bank", torch.from_numpy(bank).float(), persistent=False)
        self.register_buffer("positions", held["position_encodings/encodings"], persistent=False)
        self.first = _conv(held, "conv1", stride=1)
        self.second = _conv(held, "conv2", stride=2)
        there = len({name.split("/")[0] for name in held if name.startswith("layer_") and name[6].isdigit()})
        if layers > there:
            raise ConfigError(f"this recogniser has {there} layers, phonetic_layers asks for {layers}")
        heads = int(held["num_heads"])
        self.layers = nn.ModuleList(_Layer(held, f"layer_{i}/", heads) for i in range(layers))
        self.requires_grad_(False).eval()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """How differently ``output`` is heard than ``target``, both [B, 1, T] → []."""
        with torch.no_grad():
            wanted_mel = self.log_mel(target)
            quietest = wanted_mel.amax((1, 2), keepdim=True) - _RANGE
            wanted = self.states(torch.maximum(wanted_mel, quietest))
        got = self.states(torch.maximum(self.log_mel(output), quietest))
        return torch.stack([F.mse_loss(a, b) for a, b in zip(got, wanted, strict=True)]).mean()

    def judge(self, output: Tensor, target: Tensor, rows: Tensor) -> tuple[float, Tensor]:
        """The loss and its gradient at ``output`` [B, 1, T], of the chosen ``rows`` [B] alone; none chosen: zero.

        In bfloat16, which the recogniser was seen to bear: its distances and gradients stay what they are.
        """
        gradient = torch.zeros_like(output)
        if not bool(rows.any()):
            return 0.0, gradient
        heard = output[rows].detach().requires_grad_()
        with torch.autocast(output.device.type, torch.bfloat16):
            value = self(heard, target[rows])
        gradient[rows] = torch.autograd.grad(value, heard)[0] * (int(rows.sum()) / len(rows))
        return float(value.detach()), gradient

    def log_mel(self, x: Tensor) -> Tensor:
        """Decades of power in Whisper's mel bands: [B, 1, T] → [B, mels, frames]."""
        spectrum = torch.stft(  # float32 also under autocast
            x.squeeze(1), len(self.shape), self.hop, window=self.shape, center=True, return_complex=True
        )
        power = torch.view_as_real(spectrum[:, : self.bank.shape[1], :-1]).square().sum(-1)
        return torch.log10((self.bank @ power).clamp_min(_FLOOR))

    def states(self, log_mel: Tensor) -> list[Tensor]:
        """The normalised hidden states [B, frames / 2, width]: behind the convolutions and each layer."""
        x = F.gelu(self.first((log_mel + 4.0) / 4.0))
        x = F.gelu(self.second(x)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        states = [_normalised(x)]
        for layer in self.layers:
            x = layer(x)
            states.append(_normalised(x))
        return states


class _Layer(nn.Module):
    """A layer of Whisper's encoder: attention, then two linear layers, each behind a norm and beside a bypass."""

    def __init__(self, held: dict[str, Tensor], prefix: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = _norm(held, prefix + "self_attention/layer_norm")
        self.queries_keys_values = _linear(held, prefix + "self_attention/linear_0")
        self.attended = _linear(held, prefix + "self_attention/linear_1")
        self.norm = _norm(held, prefix + "ffn/layer_norm")
        self.wide = _linear(held, prefix + "ffn/linear_0")
        self.narrow = _linear(held, prefix + "ffn/linear_1")

    def forward(self, x: Tensor) -> Tensor:
        split = self.queries_keys_values(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        heard = F.scaled_dot_product_attention(queries, keys, values)
        x = x + self.attended(heard.transpose(1, 2).flatten(2))
        deeper: Tensor = self.narrow(F.gelu(self.wide(self.norm(x))))
        return x + deeper


def _normalised(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _conv(held: dict[str, Tensor], name: str, stride: int) -> nn.Conv1d:
    weight = held[name + "/weight"]
    conv = nn.Conv1d(weight.shape[1], weight.shape[0], weight.shape[2], stride, padding=1)
    conv.load_state_dict({"weight": weight, "bias": held[name + "/bias"]})
    return conv


def _linear(held: dict[str, Tensor], name: str) -> nn.Linear:
    weight = held[name + "/weight"]
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": held[name + "/bias"]})
    return linear


def _norm(held: dict[str, Tensor], name: str) -> nn.LayerNorm:
    norm = nn.LayerNorm(len(held[name + "/gamma"]))
    norm.load_state_dict({"weight": held[name + "/gamma"], "bias": held[name + "/beta"]})
    return norm


_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ctranslate2(path: Path, prefix: str) -> dict[str, Array]:
    """The tensors of a CTranslate2 ``model.bin`` (format 6) whose names begin with ``prefix``, which is taken off.

    Raises :class:`FileFormatError` for a file that is none, or whose weights are quantised.
    """
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise FileFormatError(
            f"{path} can't be read ({error.strerror}): give the folder of a CTranslate2 model"
        ) from error
    at = 0

    def take(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return int(value)

    def text() -> str:
        nonlocal at
        length = take("H")
        at += length
        return bytes(data[at - length : at - 1]).decode()

    tensors: dict[str, Array] = {}
    try:
        if (version := take("I")) != 6:
            raise FileFormatError(f"{path} is of CTranslate2's format {version}, this reads 6")
        text(), take("I")  # the kind of model and its revision
        for _ in range(take("I")):
            name = text()
            shape = [take("I") for _ in range(take("B"))]
            kind, size = _TYPES[take("B")], take("I")
            if name.startswith(prefix):
                values = np.frombuffer(data[at : at + size], kind).reshape(shape)
                tensors[name.removeprefix(prefix)] = values
            at += size
    except (struct.error, KeyError, ValueError) as error:
        raise FileFormatError(f"{path} is no model of CTranslate2 ({error})") from error
    if any(value.dtype == np.int8 and value.ndim for value in tensors.values()):
        raise FileFormatError(f"{path} holds int8 weights: give a model in float16 or float32")
    return tensors
