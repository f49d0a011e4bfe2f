"""The weights that training starts from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.training.config import VOICE_24KHZ, StartConfig
from streaming_encodec.training.initial import cosine_transform, initialise

from .conftest import TINY_MODEL, voice_like


def band_snr_db(x: torch.Tensor, y: torch.Tensor, low_hz: int, high_hz: int) -> float:
    window = torch.hann_window(960)
    spectra = [torch.stft(s[0], 960, 240, window=window, return_complex=True) for s in (x, x - y)]
    signal, error = (s[:, low_hz // 25 : high_hz // 25].abs().square().sum() for s in spectra)
    return float(10 * torch.log10(signal / error))


def untrained(config: EncodecConfig, seed: int = 0) -> EncodecModel:
    torch.manual_seed(seed)
    model = EncodecModel(config)
    initialise(model, StartConfig())
    return model


def test_the_untrained_codec_already_carries_the_low_band() -> None:
    model = untrained(VOICE_24KHZ)
    x = 0.5 * torch.from_numpy(voice_like(1.0, 1))[None, None]
    with torch.no_grad():
        y = model.decoder(model.encoder(x))
    for low, high in ((100, 500), (500, 1000), (1000, 1500), (1500, 2500)):
        assert band_snr_db(x, y, low, high) > 6, (low, high)


@pytest.mark.parametrize(
    "changes",
    [
        {"upsampling_ratios": (4, 2, 5, 8), "kernel_size": 5},
        {"use_conv_shortcut": True, "num_lstm_layers": 2},
        {"num_lstm_layers": 0, "num_residual_layers": 2},
        {"audio_channels": 2},
    ],
)
def test_other_architectures_start_the_same_way(changes: dict[str, object]) -> None:
    config = dataclasses.replace(TINY_MODEL, num_filters=8, hidden_size=64, codebook_dim=64, **changes)
    model = untrained(config)
    x = 0.5 * torch.from_numpy(voice_like(1.0, 2))[None, None].expand(-1, config.audio_channels, -1)
    with torch.no_grad():
        y = model.decoder(model.encoder(x))
    assert y.shape == x.shape
    assert band_snr_db(x[:, 0:1], y[:, 0:1], 100, 1000) > 5


def test_two_seeds_start_differently() -> None:
    one, other = (untrained(TINY_MODEL, seed).decoder.state_dict() for seed in (0, 1))
    assert all(not torch.equal(one[name], other[name]) for name in one if name.endswith("weight"))


def test_cosine_transform_is_orthonormal_and_orders_by_frequency() -> None:
    matrix = cosine_transform(40)
    assert np.allclose(matrix @ matrix.T, np.eye(40))
    changes = [(np.diff(np.sign(row)) != 0).sum() for row in matrix]
    assert changes == list(range(40))
