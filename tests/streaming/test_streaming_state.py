"""Law 4: state is a value, at every block boundary, across objects and processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Ledger
from contract import run
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import lengths, partitions, random_model, random_samples, small_config, streaming_configs

import streaming_encodec as se
from streaming_encodec.stepping.state import StreamState


@settings(max_examples=300)
@given(
    data=st.data(),
    config=streaming_configs(),
    seed=st.integers(0, 2**16),
    start=st.sampled_from(["silence", "exact"]),
)
def test_snapshot_at_any_boundary_goes_on_alike(
    data: st.DataObject, config: se.EncodecConfig, seed: int, start: str, ledger: Ledger
) -> None:
    model = random_model(config, seed, torch.float32)
    x = random_samples(config, 1, data.draw(lengths(config, frames=12)), seed).float()
    steps = data.draw(st.sampled_from([1, 2]))
    bandwidth = config.target_bandwidths[1]

    encoder = se.StreamingEncoder(model, bandwidth, start, frames_per_step=steps)
    codes = _verify(
        encoder,
        lambda: se.StreamingEncoder(model, config.target_bandwidths[0], start, frames_per_step=steps),
        x,
        data.draw(partitions(x.shape[-1], config.hop_length)),
    )
    decoder = se.StreamingDecoder(model, start, frames_per_step=steps)
    _verify(
        decoder,
        lambda: se.StreamingDecoder(model, start, frames_per_step=steps),
        codes,
        data.draw(partitions(codes.shape[-1], 2)),
    )
    ledger.count("law 4, state is a value")


def _verify(stream, make_other, x: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    blocks = x.split(sizes, dim=-1)
    outputs, states = [], []
    for block in blocks:
        states.append(stream.state())
        outputs.append(stream.push(block))
    states.append(stream.state())
    outputs.append(stream.flush())

    # Restore each in another object and push one more block: the same bits, and the snapshot is as it was.
    other = make_other()
    for i, state in enumerate(states):
        before = {name: tensor.clone() for name, tensor in state.tensors.items()}
        other.load_state(state)
        got = other.push(blocks[i]) if i < len(blocks) else other.flush()
        assert torch.equal(got, outputs[i]), f"block {i}"
        assert all(torch.equal(state.tensors[name], tensor) for name, tensor in before.items())

    # Roll back to the middle and run to the end from there.
    middle = len(blocks) // 2
    other.load_state(states[middle])
    rest = [other.push(block) for block in blocks[middle:]] + [other.flush()]
    assert torch.equal(torch.cat(rest, dim=-1), torch.cat(outputs[middle:], dim=-1))
    return torch.cat(outputs, dim=-1)


def test_fork_two_futures_from_one_past() -> None:
    config = small_config(trim_right_ratio=0.5, num_residual_layers=2)
    model = random_model(config, 0)
    x, a, b = (random_samples(config, 1, 700, seed) for seed in range(3))
    encoder = se.StreamingEncoder(model, config.target_bandwidths[-1])
    encoder.push(x)
    fork = encoder.state()
    futures = []
    for future in (a, b, a):
        encoder.load_state(fork)
        futures.append(encoder.push(future))
    assert torch.equal(futures[0], futures[2])
    assert not torch.equal(futures[0], futures[1])


def test_restore_in_a_new_process(tmp_path: Path) -> None:
    config = small_config(use_causal_conv=False)
    model = random_model(config, 0, torch.float32)
    model.save_pretrained(tmp_path / "model")
    model = se.EncodecModel.from_pretrained(tmp_path / "model")
    x = random_samples(config, 1, 1000, 5).float()
    encoder = se.StreamingEncoder(model, config.target_bandwidths[-1], "exact")
    decoder = se.StreamingDecoder(model, "silence")
    decoder.push(encoder.push(x[..., :433]))
    encoder.state().save(tmp_path / "encoder.safetensors")
    decoder.state().save(tmp_path / "decoder.safetensors")
    np.save(tmp_path / "rest.npy", x[0, :, 433:].numpy())
    script = """
import sys, numpy as np, streaming_encodec as se, torch
from streaming_encodec.stepping.state import StreamState
torch.set_num_threads(1)
folder, bandwidth = sys.argv[1], float(sys.argv[2])
model = se.EncodecModel.from_pretrained(folder + "/model")
encoder = se.StreamingEncoder(model, bandwidth, "exact")
encoder.load_state(StreamState.load(folder + "/encoder.safetensors"))
decoder = se.StreamingDecoder(model, "silence")
decoder.load_state(StreamState.load(folder + "/decoder.safetensors"))
codes = np.concatenate([encoder.push(np.load(folder + "/rest.npy")), encoder.flush()], axis=-1)
np.save(folder + "/sound.npy", np.concatenate([decoder.push(codes), decoder.flush()], axis=-1))
"""
    arguments = [sys.executable, "-c", script, str(tmp_path), repr(config.target_bandwidths[-1])]
    subprocess.run(arguments, check=True, timeout=120)
    codes = torch.cat([encoder.push(x[..., 433:]), encoder.flush()], dim=-1)
    sound = torch.cat([decoder.push(codes), decoder.flush()], dim=-1)
    assert np.array_equal(np.load(tmp_path / "sound.npy"), sound[0].numpy())


def test_state_carries_its_bandwidth() -> None:
    config = small_config()
    model = random_model(config, 0)
    low, _, high = config.target_bandwidths
    encoder = se.StreamingEncoder(model, high)
    state = encoder.state()
    encoder.bandwidth = low
    encoder.load_state(state)
    assert encoder.bandwidth == high


def test_state_of_another_stream_is_refused() -> None:
    config = small_config()
    model = random_model(config, 0)
    bandwidth = config.target_bandwidths[0]
    encoder = se.StreamingEncoder(model, bandwidth)
    state = encoder.state()
    x = random_samples(config, 1, 3 * config.hop_length, 0)
    wanted = se.StreamingEncoder(model, bandwidth).push(x)
    other = se.StreamingEncoder(model, bandwidth)
    other.push(x)
    elsewhere = other.state()
    refusals = {
        "not of a streaming decoder": lambda: se.StreamingDecoder(model).load_state(state),
        "another model": lambda: se.StreamingEncoder(random_model(config, 1), bandwidth).load_state(state),
        "2 frames per step|1 frames per step": lambda: se.StreamingEncoder(
            model, bandwidth, frames_per_step=2
        ).load_state(state),
        "holds 1 streams": lambda: se.StreamingEncoder(model, bandwidth, batch_size=2).load_state(state),
        "start must be": lambda: encoder.load_state(replace(elsewhere, start="middle")),
        "is missing": lambda: encoder.load_state(replace(state, tensors={"pending": state.tensors["pending"]})),
    }
    for message, attempt in refusals.items():
        with pytest.raises(se.StreamError, match=message):
            attempt()
    assert torch.equal(encoder.push(x), wanted), "a refused state must leave the stream as it was"


def test_damaged_state_files_are_refused(tmp_path: Path) -> None:
    config = small_config()
    encoder = se.StreamingEncoder(random_model(config, 0), config.target_bandwidths[0])
    path = tmp_path / "state.safetensors"
    with pytest.raises(se.StreamError, match="does not exist"):
        StreamState.load(path)
    encoder.state().save(path)
    whole = path.read_bytes()
    for cut in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(se.StreamError, match="cannot be read"):
            StreamState.load(path)
    from safetensors.torch import save_file

    save_file({"pending": torch.zeros(1)}, path)
    with pytest.raises(se.StreamError, match="no stream state"):
        StreamState.load(path)
    save_file({"other": torch.zeros(1)}, path, {"format": "streaming-encodec-state-1", "settings": "{}"})
    with pytest.raises(se.StreamError, match="damaged: its pending inputs are missing"):
        StreamState.load(path)
    save_file({"pending": torch.zeros(1)}, path, {"format": "streaming-encodec-state-1", "settings": "{"})
    with pytest.raises(se.StreamError, match="damaged"):
        StreamState.load(path)


def test_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    config = small_config()
    encoder = se.StreamingEncoder(random_model(config, 0), config.target_bandwidths[0])
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"precious")
    broken = replace(encoder.state(), tensors={"pending": "no tensor"})  # type: ignore[dict-item]
    with pytest.raises(Exception, match=r".+"):
        broken.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    assert path.read_bytes() == b"precious"


def test_run_twice_gives_the_same(ledger: Ledger) -> None:
    """AudioDec#27: a second run that differs from the first one is hidden state."""
    config = small_config()
    model = random_model(config, 0, torch.float32)
    x = random_samples(config, 1, 2000, 5).float()
    one, other = (run(se.StreamingEncoder(model, config.target_bandwidths[0]), x, [2000]) for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("engine", ["eager", "fused", "kernel", "onnx"])
def test_a_decoder_goes_back_to_a_mark_and_through_frames_together(engine: str) -> None:
    """`mark` and `rewind`, any number of times; `push_together` is `push` but for rounding."""
    config = small_config()
    model = random_model(config, 5, torch.float32)
    codes = torch.randint(0, config.codebook_size, (1, 2, 24), generator=torch.Generator().manual_seed(1))
    decoder, plain = se.StreamingDecoder(model, engine=engine), se.StreamingDecoder(model, engine=engine)
    wanted = plain.push(codes)
    pieces, at = [], 0
    for size in (1, 4, 2, 2, 0, 5, 1, 9):
        mark = decoder.mark()
        for _ in range(2):
            decoder.push_together(codes[..., at : at + 3])
            decoder.rewind(mark)
        part = codes[..., at : at + size]
        pieces.append(decoder.push_together(part) if size % 2 == 0 else decoder.push(part))
        at += size
    got = torch.cat(pieces, dim=-1)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=1e-4)
    assert decoder.frames_per_step == 1
