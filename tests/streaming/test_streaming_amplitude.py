"""Samples too loud to be sound are refused before they reach a state, from which they would never leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_model, random_samples, small_config, streaming_configs

import streaming_encodec as se
from streaming_encodec.samples import MAX_AMPLITUDE, is_audible

CONFIG = small_config()
KBPS = CONFIG.target_bandwidths[-1]
ENGINES = ("eager", "fused", "onnx", "onnx-int8", "kernel", "kernel-fp16")

LOUD: dict[str, Callable[[int], Any]] = {
    "float32 1e38": lambda n: np.full(n, 1e38, np.float32),
    "float64 1e300": lambda n: np.full(n, 1e300),
    "one sample of many": lambda n: np.r_[np.zeros(n - 1), 1e38],
    "minus": lambda n: np.full(n, -1e30, np.float32),
    "just beyond": lambda n: np.full(n, 1.001 * MAX_AMPLITUDE, np.float32),
    "integers as floats": lambda n: np.full(n, 32767.0, np.float32),
    "float16 at its end": lambda n: np.full(n, 65504, np.float16),
    "longdouble": lambda n: np.full(n, np.longdouble("1e4000") if np.finfo(np.longdouble).max > 1e308 else 1e300),
    "torch": lambda n: torch.full((1, 1, n), 1e38),
    "torch float64": lambda n: torch.full((1, 1, n), -1e300, dtype=torch.float64),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", LOUD)
def test_an_enormous_sample_is_refused_and_changes_nothing(case: str, engine: str) -> None:
    model = random_model(CONFIG, 0, torch.float32)
    x = random_samples(CONFIG, 1, 30 * CONFIG.hop_length, 0)[0].float().numpy()
    disturbed, calm = (se.StreamingEncoder(model, KBPS, engine=engine) for _ in range(2))
    for encoder in (disturbed, calm):
        encoder.push(x[:, :444])
    with pytest.raises(se.StreamError, match=r"NaN or infinity|beyond 100 \(40 dB"):
        disturbed.push(LOUD[case](CONFIG.hop_length))
    assert np.array_equal(disturbed.push(x[:, 444:]), calm.push(x[:, 444:]))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_loudest_samples_leave_a_stream_alive(engine: str) -> None:
    """After them the codes are soon those of a stream that never heard them: it forgets."""
    model = se.EncodecModel.from_pretrained("voice-24khz")
    x = 0.1 * np.random.default_rng(0).standard_normal((1, 320 * 60)).astype(np.float32)
    loud, calm = (se.StreamingEncoder(model, 6.0, engine=engine) for _ in range(2))
    loud.push(np.full((1, 320 * 5), MAX_AMPLITUDE, np.float32))
    loud.push(np.resize(np.float32([MAX_AMPLITUDE, -MAX_AMPLITUDE]), (1, 320 * 5)))
    calm.push(np.zeros((1, 320 * 10), np.float32))
    codes, others = loud.push(x)[:, -20:], calm.push(x)[:, -20:]
    assert np.mean(codes == others) > 0.8
    assert all(len(np.unique(row)) > 1 for row in codes)
    assert all(bool(tensor.isfinite().all()) for tensor in loud.state().tensors.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_loudest_samples_stay_finite_in_every_precision(dtype: torch.dtype) -> None:
    model = se.EncodecModel.from_pretrained("voice-24khz").to(dtype)
    encoder = se.StreamingEncoder(model, 6.0)
    time = torch.arange(320 * 10, dtype=torch.float64)
    noise = torch.randn(320 * 10, generator=torch.Generator().manual_seed(0))
    for wave in (torch.ones_like(time), 1 - 2 * (time % 2), torch.sin(time / 20).sign(), noise.sign()):
        encoder.push((MAX_AMPLITUDE * wave)[None, None])
        assert all(bool(tensor.isfinite().all()) for tensor in encoder.state().tensors.values())


@settings(max_examples=60)
@given(config=streaming_configs(), seed=st.integers(0, 2**16))
def test_the_loudest_samples_stay_finite_in_any_model(config: se.EncodecConfig, seed: int) -> None:
    model = random_model(config, seed, torch.float32)
    encoder = se.StreamingEncoder(model, None)
    signs = random_samples(config, 1, 10 * config.hop_length, seed).sign()
    encoder.push(MAX_AMPLITUDE * signs)
    assert all(bool(tensor.isfinite().all()) for tensor in encoder.state().tensors.values())


def test_a_pool_refuses_for_one_row_alone() -> None:
    model = random_model(CONFIG, 0, torch.float32)
    x = random_samples(CONFIG, 1, 20 * CONFIG.hop_length, 0)[0].float().numpy()
    pools = [se.StreamPool(model, 2, bandwidth=KBPS) for _ in range(2)]
    for pool in pools:
        for slot in (pool.open(), pool.open()):
            pool.push(slot, x)
    for bad in (np.full(9, 1e38, np.float32), np.full(9, 1e300), torch.full((1, 1, 9), 1e38)):
        with pytest.raises(se.StreamError, match="beyond"):
            pools[0].push(0, bad)
    disturbed, calm = ([pool.tick() for _ in range(20)] for pool in pools)
    for one, other in zip(disturbed, calm, strict=True):
        assert all(np.array_equal(one[slot], other[slot]) for slot in (0, 1))


def test_one_loud_stream_of_a_batch_is_refused_for_all() -> None:
    model = random_model(CONFIG, 0, torch.float32)
    x = random_samples(CONFIG, 3, 20 * CONFIG.hop_length, 0).float()
    disturbed, calm = (se.StreamingEncoder(model, KBPS, batch_size=3) for _ in range(2))
    bad = x.clone()
    bad[1, 0, 5] = -1e37
    with pytest.raises(se.StreamError, match="beyond"):
        disturbed.push(bad)
    assert torch.equal(disturbed.push(x), calm.push(x))


def test_segments_are_not_begun_with_enormous_samples() -> None:
    config = small_config(chunk_length_s=0.01, overlap=0.1, normalize=True, norm_type="time_group_norm")
    model = random_model(config, 0, torch.float32)
    x = random_samples(config, 1, 1000, 0).float()
    disturbed, calm = (se.SegmentEncoder(model, config.target_bandwidths[-1]) for _ in range(2))
    for bad in (torch.full((1, 1, 7), 1e38), np.full(7, 1e300)):
        with pytest.raises(se.StreamError, match="beyond"):
            disturbed.push(bad)
    segments = disturbed.push(x)
    for one, other in zip(segments, calm.push(x), strict=True):
        assert torch.equal(one.codes, other.codes)
    decoder = se.SegmentDecoder(model)
    for scale in (torch.tensor([[1e38]]), torch.tensor([[-1.0]]), np.array([1e300]), [np.nan], "loud", None):
        with pytest.raises(se.StreamError, match="scale"):
            decoder.push(segments[0]._replace(scale=scale))


def test_the_offline_model_refuses_too() -> None:
    model = random_model(CONFIG, 0, torch.float32)
    for bad, says in ((1e38, "beyond"), (np.nan, "NaN"), (-np.inf, "infinity")):
        x = torch.zeros(1, 1, 100)
        x[0, 0, 50] = bad
        with pytest.raises(se.StreamError, match=says):
            model.encode(x)
        with pytest.raises(se.StreamError, match=says):
            model(x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
def test_latents_that_no_codes_stand_for_are_refused(bad: float) -> None:
    model = random_model(CONFIG, 0, torch.float32)
    codes = torch.arange(24).view(1, 2, 12) % 16
    disturbed, calm = (se.StreamingDecoder(model) for _ in range(2))
    pool = se.StreamPool(model, 1, "decoder")
    slot = pool.open()
    latent = torch.zeros(1, CONFIG.hidden_size, 2)
    latent[0, 3, 1] = bad
    with pytest.raises(se.StreamError, match="latent"):
        disturbed.push_latent(latent)
    with pytest.raises(se.StreamError, match="latent"):
        pool.push_latent(slot, latent)
    with pytest.raises(se.StreamError, match="latent"):
        disturbed.push_latent(torch.zeros(1, CONFIG.hidden_size + 1, 1))
    assert torch.equal(disturbed.push(codes), calm.push(codes))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_the_bound_is_the_same_for_blocks_of_any_length_and_layout(dtype: type) -> None:
    """The quick way around the exact look decides nothing by itself."""
    for n in (1, 2, 320, 100_000):
        loud = np.full(n, MAX_AMPLITUDE, dtype)
        assert is_audible(loud)
        assert is_audible(np.repeat(loud[None], 2, axis=0).T)
        loud[n // 2] = -1.01 * MAX_AMPLITUDE
        assert not is_audible(loud)
        assert not is_audible(np.repeat(loud[None], 2, axis=0).T[::-1])
        loud[n // 2] = np.nan
        assert not is_audible(loud)
    assert is_audible(np.zeros((1, 0), dtype))
