"""Law 6 for ``onnx`` (float32 rounding) and ``onnx-int8`` (a stated error), and their states."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Ledger
from engines.stepper_checks import error, same, verify_step
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import lengths, partitions, random_model, random_samples, small_config, streaming_configs

import streaming_encodec as se
from streaming_encodec.engines import make_engine, make_live_engine
from streaming_encodec.errors import StreamError

# Of the signal's norm. 8-bit weights and inputs are each off by 1/250 of their largest at most; measured
# 0.001 to 0.01.
INT8_ERROR = 0.05


@settings(max_examples=80)
@given(
    config=streaming_configs(),
    seed=st.integers(0, 2**16),
    batch=st.integers(1, 3),
    frames=st.integers(1, 3),
)
def test_onnx_step_is_the_layers_step(
    config: se.EncodecConfig, seed: int, batch: int, frames: int, ledger: Ledger
) -> None:
    model = random_model(config, seed, torch.float32)
    engine = make_engine("onnx", model)
    x = random_samples(config, batch, 4 * frames * config.hop_length, seed).float()
    latents = torch.randn(batch, config.hidden_size, 4 * frames, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        verify_step(model.encoder, engine, engine.encoder, list(x.chunk(4, dim=-1)), 1e-4)
        verify_step(model.decoder, engine, engine.decoder, list(latents.chunk(4, dim=-1)), 1e-4)
    ledger.count("law 6, onnx equals the layers (float32, 1e-4)")


@settings(max_examples=25)
@given(
    data=st.data(),
    config=streaming_configs(),
    seed=st.integers(0, 2**16),
    start=st.sampled_from(["silence", "exact"]),
)
def test_onnx_streams_and_hands_over(
    data: st.DataObject, config: se.EncodecConfig, seed: int, start: str, ledger: Ledger
) -> None:
    model = random_model(config, seed, torch.float32)
    x = random_samples(config, 1, data.draw(lengths(config, frames=12)), seed).float()
    bandwidth = config.target_bandwidths[-1]
    engines = [make_engine(name, model) for name in ("eager", "onnx", "fused")]
    encoders = [se.StreamingEncoder(model, bandwidth, start, engine=engine) for engine in engines]
    decoders = [se.StreamingDecoder(model, start, engine=engine) for engine in engines]
    # A block each, round the engines; the reference goes alone all the way.
    reference = se.StreamingEncoder(model, bandwidth, start)
    codes, sounds = [], []
    for i, block in enumerate(x.split(data.draw(partitions(x.shape[-1], config.hop_length)), dim=-1)):
        here, there = encoders[i % 3], encoders[(i + 1) % 3]
        codes.append(here.push(block))
        wanted = reference.push(block)
        ledger.agreement("codes, engines in turn against the layers (float32)", *same(codes[-1], wanted))
        there.load_state(here.state())
    last = encoders[(i + 1) % 3]
    codes.append(last.flush())
    ledger.agreement("codes, engines in turn against the layers (float32)", *same(codes[-1], reference.flush()))
    together = torch.cat(codes, dim=-1)
    for i, block in enumerate(together.split(2, dim=-1)):
        here, there = decoders[i % 3], decoders[(i + 1) % 3]
        sounds.append(here.push(block))
        there.load_state(here.state())
    sounds.append(decoders[(i + 1) % 3].flush())
    alone = se.StreamingDecoder(model, start)
    wanted_sound = torch.cat([alone.push(together), alone.flush()], dim=-1)
    assert error(torch.cat(sounds, dim=-1), wanted_sound) <= 1e-4


@pytest.mark.parametrize("frames", [1, 3, 8])
def test_int8_step_is_near_the_layers_step(frames: int) -> None:
    # Filters enough that the large matrices are in 8 bits indeed.
    config = small_config(num_filters=16, hidden_size=64, upsampling_ratios=(2, 4, 5), num_lstm_layers=2)
    torch.manual_seed(5)
    model = se.EncodecModel(config)
    int8, exact = make_engine("onnx-int8", model), make_engine("onnx", model)
    x = random_samples(config, 2, 4 * frames * config.hop_length, 5).float()
    with torch.no_grad():
        inputs = list(x.chunk(4, dim=-1))
        verify_step(model.encoder, int8, int8.encoder, inputs, INT8_ERROR)
        state = model.encoder.init_state(2)
        y, _ = int8.encoder.step(inputs[0].numpy(), int8.encoder.enter(state))
        z, _ = exact.encoder.step(inputs[0].numpy(), exact.encoder.enter(state))
        assert frames > 6 or not np.array_equal(y, z)  # nothing was quantised, and the test tested nothing


def test_int8_rows_are_strangers() -> None:
    config = small_config(num_filters=16, hidden_size=64, upsampling_ratios=(2, 4, 5))
    model = se.EncodecModel(config)
    encoder = make_engine("onnx-int8", model).encoder
    x = random_samples(config, 3, config.hop_length, 0).float()
    loud = x.clone()
    loud[1] *= 1000
    state = model.encoder.init_state(3)
    with torch.no_grad():
        y, _ = encoder.step(x.numpy(), encoder.enter(state))
        z, _ = encoder.step(loud.numpy(), encoder.enter(state))
    assert np.array_equal(y[[0, 2]], z[[0, 2]])
    assert not np.array_equal(y[1], z[1])


@pytest.mark.parametrize("hidden", [24, 64, 128])
def test_int8_search_leaves_hardly_more_over_than_the_exact_one(hidden: int) -> None:
    config = se.EncodecConfig(num_filters=4, hidden_size=hidden)
    torch.manual_seed(1)
    model = se.EncodecModel(config)
    for depth, codebook in enumerate(model.quantizer.codebooks):  # each finer than the one before, as trained ones are
        codebook.embed.copy_(torch.randn_like(codebook.embed) * 0.8**depth)
    latents = torch.randn(2, hidden, 50).numpy()
    exact, int8 = make_engine("onnx", model).quantizer, make_engine("onnx-int8", model).quantizer
    codes, near = exact.encode(latents, 8), int8.encode(latents, 8)
    left, left_near = (np.square(latents - exact.decode(c)).sum() for c in (codes, near))
    assert left_near < 1.02 * left
    assert 0.8 < float((codes == near)[:, 0].mean()) <= 1.0
    assert not np.array_equal(codes, near)  # nothing was quantised, and the test tested nothing
    alone = int8.encode(latents[:1, :, 7:8], 8)
    assert np.array_equal(alone, near[:1, :, 7:8])  # rows are strangers, in a batch or not


def test_onnx_quantizer_gives_the_layers_codes(ledger: Ledger) -> None:
    config = se.EncodecConfig(num_filters=4, hidden_size=32)
    torch.manual_seed(0)
    model = se.EncodecModel(config)
    quantizer = make_engine("onnx", model).quantizer
    latent = 0.3 * torch.randn(2, 32, 20)
    for num_codebooks in (32, 1, 3, 8, 12):  # also within a group, and fewer after more
        codes = torch.from_numpy(quantizer.encode(latent.numpy(), num_codebooks))
        wanted = model.quantizer.encode(latent, num_codebooks)
        assert codes.shape == wanted.shape
        ledger.agreement("codes, quantiser graphs against the layers", *same(codes, wanted))
        assert float((codes == wanted).float().mean()) > 0.99
        decoded = torch.from_numpy(quantizer.decode(wanted.numpy()))
        torch.testing.assert_close(decoded, model.quantizer.decode(wanted))


def test_onnx_takes_numpy_and_odd_memory() -> None:
    config = small_config()
    model = random_model(config, 3, torch.float32)
    pcm = np.asarray(random_samples(config, 1, 8 * config.hop_length, 3)[0], np.float32)
    wanted = se.StreamingEncoder(model, None).push(pcm)
    encoder = se.StreamingEncoder(model, None, engine="onnx")
    assert np.array_equal(encoder.push(np.asfortranarray(pcm)), wanted)


def test_onnx_refuses_float64() -> None:
    model = random_model(small_config(), 0)
    with pytest.raises(StreamError, match="float32"):
        se.StreamingEncoder(model, None, engine="onnx")
    assert se.StreamingEncoder(model, None, engine="auto").engine.name == "fused"
    assert make_live_engine("auto", model).name == "fused"
    assert make_live_engine("onnx", model.float()).name == "onnx"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package: str, tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None  # as if it were not installed
import streaming_encodec as se
model = se.EncodecModel(se.EncodecConfig(num_filters=2, hidden_size=4))
assert se.StreamingEncoder(model, engine="auto").engine.name == "kernel"
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
def export():
    from streaming_encodec.engines.onnx.export import export
    export(model, Path(sys.argv[1]) / "out")
for attempt in (lambda: se.StreamingEncoder(model, engine="onnx"), export):
    try:
        attempt()
    except se.MissingExtraError as error:
        assert {"needs " + package + ","!r} in str(error), error
        assert 'pip install "streaming-encodec[torch]"' in str(error), error
    else:
        raise AssertionError("nothing was missed")
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)


def test_a_state_that_is_still_held_is_not_written_to() -> None:
    config = small_config(upsampling_ratios=(4, 3))
    model = random_model(config, 4, torch.float32)
    stepper = make_engine("onnx", model).encoder
    blocks = random_samples(config, 1, 8 * config.hop_length, 4).float().split(config.hop_length, dim=-1)
    state = stepper.enter(model.encoder.init_state(1))
    states, outputs = [state], []
    with torch.no_grad():
        for block in blocks:  # all states held: every one needs memory of its own
            y, state = stepper.step(block.numpy(), state)
            states.append(state)
            outputs.append(y)
        kept = [[array.copy() for array in state] for state in states]
        for i in (3, 1, 7, 0, 3):  # back to any of them, also more than once
            y, after = stepper.step(blocks[i].numpy(), states[i])
            assert np.array_equal(y, outputs[i])
            assert all(np.array_equal(a, b) for a, b in zip(after, kept[i + 1], strict=True))
        for state, arrays in zip(states, kept, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(state, arrays, strict=True))


def test_many_streams_share_an_engine_across_threads() -> None:
    config = small_config(upsampling_ratios=(4, 3))
    model = random_model(config, 5, torch.float32)
    engine = make_engine("onnx", model)
    sounds = [random_samples(config, 1, 40 * config.hop_length, seed)[0].float().numpy() for seed in range(8)]

    def run(pcm: np.ndarray) -> np.ndarray:
        encoder = se.StreamingEncoder(model, None, engine=engine)
        return np.concatenate([encoder.push(block) for block in np.array_split(pcm, 40, axis=1)], axis=1)

    wanted = [se.StreamingEncoder(model, None, engine="onnx").push(pcm) for pcm in sounds]
    with ThreadPoolExecutor(8) as pool:
        for got, codes in zip(pool.map(run, sounds), wanted, strict=True):
            assert np.array_equal(got, codes)


@settings(max_examples=25)
@given(data=st.data(), config=streaming_configs(), seed=st.integers(0, 2**16), steps=st.integers(1, 3))
def test_arrays_go_round_torch_to_the_same_bits(
    data: st.DataObject, config: se.EncodecConfig, seed: int, steps: int
) -> None:
    model = random_model(config, seed, torch.float32)
    engine = make_engine("onnx", model)
    x = random_samples(config, 1, data.draw(lengths(config, frames=10)), seed).float()
    bandwidth = config.target_bandwidths[-1]
    encoders = [se.StreamingEncoder(model, bandwidth, engine=engine, frames_per_step=steps) for _ in range(2)]
    decoders = [se.StreamingDecoder(model, engine=engine, frames_per_step=steps) for _ in range(2)]
    for block in x.split(data.draw(partitions(x.shape[-1], config.hop_length)), dim=-1):
        codes = encoders[0].push(block)
        arrays = encoders[1].push(block[0].numpy())
        assert np.array_equal(codes[0].numpy(), arrays)
        sound = decoders[0].push(codes)
        assert np.array_equal(sound[0].numpy(), decoders[1].push(arrays))
    for one, other in (encoders, decoders):
        here, there = one.state(), other.state()
        assert here.skip == there.skip
        assert all(torch.equal(tensor, there.tensors[name]) for name, tensor in here.tensors.items())
    ends = encoders[0].flush()[0].numpy(), encoders[1].flush()
    assert np.array_equal(*ends)
    assert np.array_equal(decoders[0].flush()[0].numpy(), decoders[1].flush())
