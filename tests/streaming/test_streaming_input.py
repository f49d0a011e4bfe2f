"""Bad input: one clear error that says what to do, and the stream goes on as if nothing had come."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import random_model, random_samples, small_config

import streaming_encodec as se

CONFIG = small_config()
KBPS = CONFIG.target_bandwidths[-1]

BAD_SAMPLES = {
    "nan": (np.array([0.0, np.nan]), "NaN or infinity"),
    "infinity": (torch.full((1, 1, 3), torch.inf), "NaN or infinity"),
    "int16": (np.zeros(3, np.int16), "divide by full scale"),
    "complex": (np.zeros(3, np.complex64), "must be numbers"),
    "objects": (np.array([None]), "must be numbers"),
    "list": ([0.0, 0.1], "numpy array or a torch tensor"),
    "stereo": (np.zeros((2, 3)), r"must be \[1, 1, n\]"),
    "two streams": (torch.zeros(2, 1, 3), r"must be \[1, 1, n\]"),
    "torch without batch": (torch.zeros(3), r"must be \[1, 1, n\]"),
    "scalar": (np.float32(0.5), "numpy array or a torch tensor"),
}

BAD_CODES = {
    "too large": (np.full((1, 2), 16), "code 16 is out of range"),
    "negative": (np.full((1, 2), -1), "code -1 is out of range"),
    "too many codebooks": (np.zeros((5, 2), int), "5 codebooks, this model takes 1 to 4"),
    "no codebook": (np.zeros((0, 2), int), "0 codebooks"),
    "floats": (np.zeros((1, 2)), "whole numbers"),
    "bools": (np.zeros((1, 2), bool), "whole numbers"),
    "two streams": (torch.zeros(2, 1, 2, dtype=torch.int64), r"must be \[1, K, f\]"),
    "one dimension": (np.zeros(2, int), r"must be \[1, K, f\]"),
    "list": ([[1, 2]], "numpy array or a torch tensor"),
}


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_bad_samples(case: str) -> None:
    bad, message = BAD_SAMPLES[case]
    model = random_model(CONFIG, 0)
    x = random_samples(CONFIG, 1, 1000, 0)
    disturbed, calm = (se.StreamingEncoder(model, KBPS) for _ in range(2))
    first = disturbed.push(x[..., :444])
    with pytest.raises(se.StreamError, match=message):
        disturbed.push(bad)
    rest = disturbed.push(x[..., 444:])
    assert torch.equal(torch.cat([first, rest], dim=-1), calm.push(x))


@pytest.mark.parametrize("case", BAD_CODES)
def test_bad_codes(case: str) -> None:
    bad, message = BAD_CODES[case]
    model = random_model(CONFIG, 0)
    codes = torch.arange(12).view(1, 2, 6)
    disturbed, calm = (se.StreamingDecoder(model) for _ in range(2))
    first = disturbed.push(codes[..., :3])
    with pytest.raises(se.StreamError, match=message):
        disturbed.push(bad)
    rest = disturbed.push(codes[..., 3:])
    wanted = torch.cat([calm.push(codes[..., :3]), calm.push(codes[..., 3:])], dim=-1)
    assert torch.equal(torch.cat([first, rest], dim=-1), wanted)


def test_odd_but_good_arrays() -> None:
    """Read-only, reversed, strided, big-endian and half-precision arrays are samples like any other."""
    model = random_model(CONFIG, 0, torch.float32)
    x = random_samples(CONFIG, 1, 400, 0)[0, 0].numpy().astype(np.float32)
    wanted = se.StreamingEncoder(model, KBPS).push(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    for odd in (frozen, x[::-1].copy()[::-1], np.repeat(x, 2)[::2], x.astype(">f4"), x.astype(np.float64)):
        assert np.array_equal(se.StreamingEncoder(model, KBPS).push(odd), wanted)


def test_bad_settings() -> None:
    model = random_model(CONFIG, 0)
    with pytest.raises(se.ConfigError, match=r"bandwidth 5\.5 kbps is not one of this model's: choose"):
        se.StreamingEncoder(model, 5.5)
    encoder = se.StreamingEncoder(model, KBPS)
    with pytest.raises(se.ConfigError, match="choose"):
        encoder.bandwidth = 5.5
    assert encoder.bandwidth == KBPS
    for values, message in (
        ({"start": "now"}, "start must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"batch_size": True}, "batch_size must be"),
        ({"frames_per_step": 0}, "frames_per_step must be"),
        ({"frames_per_step": 1.5}, "frames_per_step must be"),
    ):
        with pytest.raises(se.StreamError, match=message):
            se.StreamingEncoder(model, KBPS, **values)
        with pytest.raises(se.StreamError, match=message):
            se.StreamingDecoder(model, **values)


@pytest.mark.parametrize(
    ("bandwidths", "usual"),
    [((1.5, 3.0, 6.0, 12.0, 24.0), 6.0), ((2.2,), 2.2), ((3.0, 8.0), 8.0), ((12.0, 24.0), 12.0)],
)
def test_a_stream_that_asks_for_no_bandwidth_gets_6_kbps_or_the_nearest(
    bandwidths: tuple[float, ...], usual: float
) -> None:
    config = se.EncodecConfig(num_filters=2, hidden_size=4, target_bandwidths=bandwidths)
    model = se.EncodecModel(config)
    assert se.StreamingEncoder(model).bandwidth == se.StreamingEncoder(model, None).bandwidth == usual
    pool = se.StreamPool(model, 1)
    pool.push(pool.open(), np.zeros(320, np.float32))
    assert pool.tick()[0].shape == (config.num_codebooks_for(usual), 1)
    # The offline model's None stays transformers'.
    assert config.num_codebooks_for(None) == config.num_codebooks_for(bandwidths[0])
