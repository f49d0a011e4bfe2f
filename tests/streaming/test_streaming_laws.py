"""Laws 2 and 3, and that blocks do not matter, over random configurations and partitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Ledger
from contract import assert_close, offline_codes, offline_sound, run, verify_codec
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import lengths, partitions, random_model, random_samples, small_config, streaming_configs

import streaming_encodec as se

SEEDS = st.integers(0, 2**16)


@settings(max_examples=300)
@given(data=st.data(), config=streaming_configs(), seed=SEEDS)
def test_exact_start_equals_offline(data: st.DataObject, config: se.EncodecConfig, seed: int, ledger: Ledger) -> None:
    model = random_model(config, seed)
    x = random_samples(config, data.draw(st.sampled_from([1, 1, 3])), data.draw(lengths(config)), seed)
    sizes = data.draw(partitions(x.shape[-1], config.hop_length))
    frames = -(-x.shape[-1] // config.hop_length)
    verify_codec(
        model,
        x,
        data.draw(st.sampled_from(config.target_bandwidths)),
        "exact",
        data.draw(st.sampled_from([1, 1, 2, 5])),
        sizes,
        data.draw(partitions(frames, 2)),
    )
    ledger.count("law 2, exact start equals offline")


@settings(max_examples=300)
@given(data=st.data(), config=streaming_configs(), seed=SEEDS)
def test_silence_start_equals_offline_after_silence(
    data: st.DataObject, config: se.EncodecConfig, seed: int, ledger: Ledger
) -> None:
    model = random_model(config, seed)
    x = random_samples(config, data.draw(st.sampled_from([1, 1, 3])), data.draw(lengths(config, frames=10)), seed)
    verify_codec(
        model,
        x,
        data.draw(st.sampled_from(config.target_bandwidths)),
        "silence",
        data.draw(st.sampled_from([1, 1, 2, 5])),
        data.draw(partitions(x.shape[-1], config.hop_length)),
    )
    ledger.count("law 3, silence start equals offline after silence")


@settings(max_examples=100)
@given(data=st.data(), config=streaming_configs(), seed=SEEDS, start=st.sampled_from(["silence", "exact"]))
def test_float32_output_never_depends_on_the_blocks(
    data: st.DataObject, config: se.EncodecConfig, seed: int, start: str, ledger: Ledger
) -> None:
    model = random_model(config, seed, torch.float32)
    x = random_samples(config, 1, data.draw(lengths(config, frames=20)), seed).float()
    bandwidth = config.target_bandwidths[-1]
    steps = data.draw(st.sampled_from([1, 3]))
    encoder = se.StreamingEncoder(model, bandwidth, start, frames_per_step=steps, engine="eager")
    decoder = se.StreamingDecoder(model, start, frames_per_step=steps, engine="eager")

    whole = run(encoder, x, [x.shape[-1]])
    cut = run(encoder, x, data.draw(partitions(x.shape[-1], config.hop_length)))
    assert torch.equal(whole, cut)
    sound = run(decoder, whole, [whole.shape[-1]])
    assert torch.equal(sound, run(decoder, whole, data.draw(partitions(whole.shape[-1], 2))))

    wanted = offline_codes(model, x, bandwidth, start)
    ledger.agreement("float32 codes equal to offline", int((whole == wanted).sum()), wanted.numel())
    error = (sound - offline_sound(model, whole, start)).abs().max()
    assert error <= 1e-5 * max(1.0, float(sound.abs().max()))
    ledger.count("float32 independent of blocks, to the last bit")


def test_published_architecture_at_usual_block_sizes(ledger: Ledger) -> None:
    """The 24 kHz model's own shapes, float32: blocks of 1, 160, 480, 4096 and all at once give the same bits."""
    config = se.EncodecConfig()
    model = random_model(config, 1, torch.float32)
    x = 0.3 * random_samples(config, 1, 8000, 1).float()
    encoder = se.StreamingEncoder(model, 6.0, "exact", engine="eager")
    wanted = run(encoder, x, [8000])
    for size in (1, 160, 480, 4096):
        got = run(encoder, x, [size] * (8000 // size) + [8000 % size])
        assert torch.equal(got, wanted), size
    offline = offline_codes(model, x, 6.0, "exact")
    ledger.agreement("float32 codes equal to offline, 24 kHz shapes", int((wanted == offline).sum()), wanted.numel())


def test_first_codes_come_when_promised() -> None:
    model = random_model(se.EncodecConfig(num_filters=2, hidden_size=4, codebook_size=16), 0)
    x = np.zeros(4000)
    for start, wanted in (("silence", 320), ("exact", 2240)):
        encoder = se.StreamingEncoder(model, 6.0, start)
        assert encoder.start_samples == wanted
        assert encoder.push(x[: wanted - 1]).shape[-1] == 0
        assert encoder.push(x[:1]).shape[-1] == wanted // 320
        assert encoder.push(x[:319]).shape[-1] == 0
        assert encoder.push(x[:1]).shape[-1] == 1
    assert encoder.delay_samples == 0


@settings(max_examples=60)
@given(config=streaming_configs(), steps=st.sampled_from([1, 2, 3]))
def test_steady_delay_is_as_reported(config: se.EncodecConfig, steps: int) -> None:
    model = random_model(config, 0)
    hop = config.hop_length
    encoder = se.StreamingEncoder(model, config.target_bandwidths[0], "silence", frames_per_step=steps)
    frames = 12 * steps
    x = random_samples(config, 1, frames * hop + encoder.delay_samples, 3)
    got = encoder.push(x[..., : frames * hop + encoder.delay_samples])
    assert got.shape[-1] >= frames
    decoder = se.StreamingDecoder(model, "silence", frames_per_step=steps)
    sound = decoder.push(got[..., :frames])
    assert sound.shape[-1] >= frames * hop - decoder.delay_samples
    assert decoder.push(got[..., :0]).shape[-1] == 0


@settings(max_examples=40)
@given(data=st.data(), config=streaming_configs(), seed=SEEDS)
def test_codebooks_may_change_at_any_frame(data: st.DataObject, config: se.EncodecConfig, seed: int) -> None:
    """Mixed bandwidths decode as the sum of the codebooks that are there, frame by frame."""
    model = random_model(config, seed)
    counts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    codes = torch.randint(0, 16, (1, 4, len(counts)), generator=torch.Generator().manual_seed(seed))
    latent = torch.cat([model.quantizer.decode(codes[:, :k, i : i + 1]) for i, k in enumerate(counts)], dim=-1)
    with torch.no_grad():
        wanted = model.decoder(latent)
    decoder = se.StreamingDecoder(model, "exact")
    pieces = [decoder.push(codes[:, :k, i : i + 1]) for i, k in enumerate(counts)]
    assert_close(torch.cat([*pieces, decoder.flush()], dim=-1), wanted, "sound")


def test_bandwidth_takes_effect_at_the_next_frame() -> None:
    config = small_config()
    model = random_model(config, 0)
    low, _, high = config.target_bandwidths
    x = random_samples(config, 1, 6 * config.hop_length, 5)
    at_high = run(se.StreamingEncoder(model, high), x, [x.shape[-1]])
    encoder = se.StreamingEncoder(model, low)
    half = 5 * config.hop_length // 2
    first = encoder.push(x[..., :half])
    encoder.bandwidth = high
    assert encoder.bandwidth == high
    second = encoder.push(x[..., half:])
    assert (first.shape, second.shape) == ((1, 1, 2), (1, 4, 4))
    assert torch.equal(first, at_high[:, :1, :2])
    assert torch.equal(second, at_high[..., 2:])


def test_stream_can_be_used_again_after_flush_and_reset() -> None:
    config = small_config(trim_right_ratio=0.5)
    model = random_model(config, 0)
    x = random_samples(config, 1, 1000, 5)
    encoder = se.StreamingEncoder(model, config.target_bandwidths[0], "exact")
    decoder = se.StreamingDecoder(model, "silence")
    first = run(encoder, x, [1000])
    sound = run(decoder, first, [first.shape[-1]])
    encoder.push(x[..., :333])
    encoder.reset()
    decoder.push(first[..., :5])
    decoder.reset()
    assert torch.equal(run(encoder, x, [1000]), first)
    assert torch.equal(run(decoder, first, [first.shape[-1]]), sound)


def test_warm_up_leaves_no_trace() -> None:
    config = small_config()
    model = random_model(config, 0)
    x = random_samples(config, 1, 1000, 5)
    for start in ("silence", "exact"):
        plain, warmed = (se.StreamingEncoder(model, config.target_bandwidths[0], start) for _ in range(2))
        warmed.warm_up()
        codes = run(plain, x, [1000])
        assert torch.equal(codes, run(warmed, x, [1000]))
        one, other = (se.StreamingDecoder(model, start) for _ in range(2))
        other.warm_up()
        assert torch.equal(run(one, codes, [codes.shape[-1]]), run(other, codes, [codes.shape[-1]]))


def test_warm_up_in_a_stream_of_numpy_leaves_it_numpy() -> None:
    config = small_config()
    model = random_model(config, 0, torch.float32)
    encoder, decoder = se.StreamingEncoder(model, config.target_bandwidths[0]), se.StreamingDecoder(model)
    codes = encoder.push(np.zeros((1, 2 * config.hop_length), np.float32))
    decoder.push(codes)
    encoder.warm_up()
    decoder.warm_up()
    assert isinstance(encoder.flush(), np.ndarray)
    assert isinstance(decoder.flush(), np.ndarray)


def test_empty_stream_gives_nothing() -> None:
    config = small_config(use_causal_conv=False)
    model = random_model(config, 0)
    for start in ("silence", "exact"):
        assert se.StreamingEncoder(model, config.target_bandwidths[0], start).flush().shape == (1, 1, 0)
        assert se.StreamingDecoder(model, start).flush().shape == (1, 1, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_in_numpy_out(dtype: type) -> None:
    config = small_config(audio_channels=2)
    model = random_model(config, 0, torch.float32)
    encoder = se.StreamingEncoder(model, config.target_bandwidths[0])
    decoder = se.StreamingDecoder(model)
    x = np.zeros((2, 2 * config.hop_length), dtype)
    codes = encoder.push(x)
    assert isinstance(codes, np.ndarray)
    assert (codes.dtype, codes.shape) == (np.int64, (1, 2))
    sound = decoder.push(codes.astype(np.uint16))
    assert isinstance(sound, np.ndarray)
    assert (sound.dtype, sound.shape) == (np.float32, (2, 2 * config.hop_length))
    assert encoder.flush().shape == (1, 0)
    assert encoder.push(x[None]).shape == (1, 1, 2)


def test_stream_does_not_keep_the_callers_array() -> None:
    """A sound card's buffer is overwritten after the call: what was pushed must have been copied."""
    config = small_config()
    model = random_model(config, 0)
    x = random_samples(config, 1, 999, 5)
    encoder = se.StreamingEncoder(model, config.target_bandwidths[-1])
    wanted = run(encoder, x, [999])
    buffer = np.empty(37)
    pieces = []
    for i in range(0, 999, 37):
        buffer[:] = x[0, 0, i : i + 37].numpy()
        pieces.append(encoder.push(buffer))
        buffer[:] = np.nan
    assert np.array_equal(np.concatenate([*pieces, encoder.flush()], axis=-1), wanted[0].numpy())
