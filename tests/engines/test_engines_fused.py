"""Law 6 for ``fused``: the reference's numbers in float64, and states that move."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Ledger
from contract import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import lengths, partitions, random_model, random_samples, small_config, streaming_configs

import streaming_encodec as se
from streaming_encodec.engines import ENGINES, make_engine
from streaming_encodec.errors import StreamError


@settings(max_examples=150)
@given(
    data=st.data(),
    config=streaming_configs(),
    seed=st.integers(0, 2**16),
    start=st.sampled_from(["silence", "exact"]),
    batch=st.integers(1, 3),
    steps=st.integers(1, 3),
)
def test_fused_gives_the_reference_codes_and_sound(
    data: st.DataObject,
    config: se.EncodecConfig,
    seed: int,
    start: str,
    batch: int,
    steps: int,
    ledger: Ledger,
) -> None:
    model = random_model(config, seed)
    x = random_samples(config, batch, data.draw(lengths(config, frames=12)), seed)
    sizes = data.draw(partitions(x.shape[-1], config.hop_length))
    bandwidth = config.target_bandwidths[-1]

    def encoder(engine: str) -> se.StreamingEncoder:
        return se.StreamingEncoder(model, bandwidth, start, batch, steps, engine)

    def decoder(engine: str) -> se.StreamingDecoder:
        return se.StreamingDecoder(model, start, batch, steps, engine)

    # The engines take turns: each block is done by both from the same state, and the next one goes on from
    # the state of the other. A state that lost anything in moving would show.
    reference, fused = encoder("eager"), encoder("fused")
    codes = []
    for i, block in enumerate(x.split(sizes, dim=-1)):
        here, there = (reference, fused) if i % 2 else (fused, reference)
        there.load_state(here.state())
        codes.append(here.push(block))
        assert torch.equal(there.push(block), codes[-1])
        _same_state(here, there)
    codes.append(fused.flush())
    assert torch.equal(reference.flush(), codes[-1])

    reference_decoder, fused_decoder = decoder("eager"), decoder("fused")
    for i, block in enumerate(torch.cat(codes, dim=-1).split(2, dim=-1)):
        here, there = (reference_decoder, fused_decoder) if i % 2 else (fused_decoder, reference_decoder)
        there.load_state(here.state())
        assert_close(here.push(block), there.push(block), "sound")
        _same_state(here, there)
    assert_close(fused_decoder.flush(), reference_decoder.flush(), "the end of the sound")
    ledger.count("law 6, fused equals the layers (float64)")


def _same_state(one, other) -> None:
    here, there = one.state().tensors, other.state().tensors
    assert here.keys() == there.keys()
    for name in here:
        assert_close(here[name], there[name], name)


def test_fused_state_is_a_value() -> None:
    config = small_config()
    model = random_model(config, 0)
    x = random_samples(config, 1, 6 * config.hop_length, 0)
    encoder = se.StreamingEncoder(model, None, engine="fused")
    encoder.push(x[..., : 2 * config.hop_length])
    kept = encoder.state()
    tensors = {name: tensor.clone() for name, tensor in kept.tensors.items()}
    first = encoder.push(x[..., 2 * config.hop_length :])
    assert all(torch.equal(kept.tensors[name], tensor) for name, tensor in tensors.items())
    encoder.load_state(kept)
    assert torch.equal(encoder.push(x[..., 2 * config.hop_length :]), first)


def test_fused_pool_rows_equal_single_streams() -> None:
    config = small_config()
    model = random_model(config, 1)
    hop = config.hop_length
    pool = se.StreamPool(model, slots=3, bandwidth=config.target_bandwidths[-1], engine="fused")
    slots = [pool.open() for _ in range(3)]
    x = random_samples(config, 3, 5 * hop, 2).numpy()
    codes: dict[int, list[np.ndarray]] = {slot: [] for slot in slots}
    for at in range(5):
        for row, slot in enumerate(slots):
            if (at + row) % 3:  # a row that waits must not move
                pool.push(slot, x[row, :, at * hop : (at + 1) * hop])
        for slot, given_codes in pool.tick().items():
            codes[slot].append(given_codes)
    for row, slot in enumerate(slots):
        alone = se.StreamingEncoder(model, config.target_bandwidths[-1])
        heard = [x[row, :, at * hop : (at + 1) * hop] for at in range(5) if (at + row) % 3]
        assert np.array_equal(np.concatenate(codes[slot], axis=-1), alone.push(np.concatenate(heard, axis=-1)))


def test_unknown_engine_names_the_ones_there_are() -> None:
    model = random_model(small_config(), 0)
    with pytest.raises(StreamError, match=r"no engine 'warp'.*fused"):
        se.StreamingEncoder(model, None, engine="warp")
    assert {"auto", "eager", "fused"} <= set(ENGINES)


def test_an_engine_belongs_to_its_model() -> None:
    model, other = random_model(small_config(), 0), random_model(small_config(), 1)
    engine = make_engine("fused", model)
    assert se.StreamingDecoder(model, engine=engine).engine is engine
    with pytest.raises(StreamError, match="another model"):
        se.StreamingDecoder(other, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_made_in_inference_mode_streams_like_any_other(engine: str) -> None:
    config = small_config()
    x = random_samples(config, 1, 4 * config.hop_length, 0)[0].float().numpy()

    def made() -> tuple[se.StreamingEncoder, se.StreamingDecoder]:
        model = random_model(config, 0, torch.float32)
        made = make_engine(engine, model)
        return se.StreamingEncoder(model, None, engine=made), se.StreamingDecoder(model, engine=made)

    with torch.inference_mode():
        encoder, decoder = made()
        codes = encoder.push(x)
        sound = decoder.push(codes)
    other_encoder, other_decoder = made()
    for _ in range(2):  # and goes on outside of it
        assert np.array_equal(codes, other_encoder.push(x))
        assert np.array_equal(sound, other_decoder.push(codes))
        codes = encoder.push(x)
        sound = decoder.push(codes)


def test_engines_refuse_a_model_that_streams_by_segments() -> None:
    config = small_config(chunk_length_s=1.0, overlap=0.01, normalize=True)
    model = random_model(config, 0)
    with pytest.raises(StreamError, match="SegmentEncoder"):
        make_engine("fused", model)
