"""Law 5: rows are strangers. Whatever happens in other slots, a slot's output keeps its bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Ledger
from contract import assert_close, run
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_model, random_samples, small_config, streaming_configs

import streaming_encodec as se


def _drain(pool: se.StreamPool, slot: int) -> list[torch.Tensor]:
    pieces = []
    while pool.ready:
        ticked = pool.tick()
        if slot in ticked:
            pieces.append(ticked[slot])
    return pieces


@settings(max_examples=300)
@given(
    data=st.data(),
    config=streaming_configs(),
    seed=st.integers(0, 2**16),
    start=st.sampled_from(["silence", "exact"]),
)
def test_other_rows_never_change_a_row(
    data: st.DataObject, config: se.EncodecConfig, seed: int, start: str, ledger: Ledger
) -> None:
    """One slot is fed the same in two pools; in the second, others join, leave, reset and shout."""
    model = random_model(config, seed, torch.float32)
    bandwidth = config.target_bandwidths[1]
    blocks = data.draw(st.lists(st.integers(0, 3 * config.hop_length), min_size=1, max_size=6))
    x = random_samples(config, 1, sum(blocks), seed).float()
    acts = data.draw(st.lists(st.lists(_ACTS, max_size=4), min_size=len(blocks), max_size=len(blocks)))

    codes = []
    for company in (False, True):
        pool = se.StreamPool(model, 4, bandwidth=bandwidth, start=start)
        slot = pool.open()
        pieces = []
        for block, what in zip(x.split(blocks, dim=-1), acts, strict=True):
            if company:
                _act(pool, slot, what, config)
            pool.push(slot, block)
            pieces += _drain(pool, slot)
        pieces.append(pool.flush(slot))
        codes.append(torch.cat(pieces, dim=-1))
    assert torch.equal(codes[0], codes[1])

    sounds = []
    for company in (False, True):
        pool = se.StreamPool(model, 3, kind="decoder", start=start)
        slot = pool.open()
        pieces = []
        for i in range(codes[0].shape[-1]):
            if company and i % 2:
                _act(pool, slot, acts[i % len(acts)], config)
            pool.push(slot, codes[0][..., i : i + 1])
            pieces += _drain(pool, slot)
        pieces.append(pool.flush(slot))
        sounds.append(torch.cat(pieces, dim=-1))
    assert torch.equal(sounds[0], sounds[1])
    ledger.count("law 5, rows are strangers")


_ACTS = st.sampled_from(["join", "leave", "reset", "shout", "flush", "refused"])


def _act(pool: se.StreamPool, mine: int, acts: list[str], config: se.EncodecConfig) -> None:
    for act in acts:
        others = [slot for slot in pool.open_slots if slot != mine]
        if act == "join" and len(pool.open_slots) < pool.slots:
            pool.open()
        if not others:
            continue
        other = others[0]
        if act == "leave":
            pool.close(other)
        elif act == "reset":
            pool.reset(other)
        elif act == "flush":
            pool.flush(other)
        elif act == "refused":
            with pytest.raises(se.StreamError):
                pool.push(other, torch.full((1, config.audio_channels, 9), torch.nan))
        elif pool.kind == "encoder":
            # As it cannot be pushed: see that not even NaN in a row's state is heard in another.
            loud = np.full((1, config.audio_channels, 2 * config.hop_length), 1e30)
            pool._open[other].pending = pool.engine.arrays.floats(loud)
        else:
            pool.push(other, torch.full((1, 4, 2), 15))


@settings(max_examples=40)
@given(config=streaming_configs(), start=st.sampled_from(["silence", "exact"]), steps=st.sampled_from([1, 3]))
def test_pool_equals_single_streams(config: se.EncodecConfig, start: str, steps: int) -> None:
    model = random_model(config, 3)
    low, _, high = config.target_bandwidths
    pool = se.StreamPool(model, 3, bandwidth=low, start=start, frames_per_step=steps)
    voices = [random_samples(config, 1, n * config.hop_length + n, n) for n in (3, 9, 17)]
    slots = [pool.open(), pool.open(high), pool.open()]
    pieces: dict[int, list[torch.Tensor]] = {slot: [] for slot in slots}
    for slot, voice in zip(slots, voices, strict=True):
        pool.push(slot, voice)
    while pool.ready:
        for slot, codes in pool.tick().items():
            pieces[slot].append(codes)
    for slot, voice, bandwidth in zip(slots, voices, (low, high, low), strict=True):
        codes = torch.cat([*pieces[slot], pool.flush(slot)], dim=-1)
        single = se.StreamingEncoder(model, bandwidth, start, frames_per_step=steps)
        assert torch.equal(codes, run(single, voice, [voice.shape[-1]]))

        decoders = se.StreamPool(model, 2, kind="decoder", start=start, frames_per_step=steps)
        slot = decoders.open()
        decoders.push(slot, codes)
        sound = torch.cat([*_drain(decoders, slot), decoders.flush(slot)], dim=-1)
        decoder = se.StreamingDecoder(model, start, frames_per_step=steps)
        assert_close(sound, run(decoder, codes, [codes.shape[-1]]), "sound")


def test_streams_move_between_slots_and_single_streams() -> None:
    config = small_config(trim_right_ratio=0.5)
    model = random_model(config, 0)
    high = config.target_bandwidths[-1]
    x = random_samples(config, 1, 2000, 5)
    wanted = run(se.StreamingEncoder(model, high), x, [2000])

    pool = se.StreamPool(model, 3, bandwidth=config.target_bandwidths[0])
    pool.open()
    slot = pool.open(high)
    pool.push(slot, x[..., :700])
    first = torch.cat(_drain(pool, slot), dim=-1)
    state = pool.snapshot(slot)
    single = se.StreamingEncoder(model, config.target_bandwidths[0])
    single.load_state(state)
    second = single.push(x[..., 700:1300])
    pool.close(slot)
    other = pool.open()
    pool.restore(other, single.state())
    pool.push(other, x[..., 1300:])
    third = torch.cat([*_drain(pool, other), pool.flush(other)], dim=-1)
    assert torch.equal(torch.cat([first, second, third], dim=-1), wanted)


def test_pool_takes_no_more_than_it_was_made_for() -> None:
    config = small_config()
    model = random_model(config, 0)
    pool = se.StreamPool(model, 2, bandwidth=config.target_bandwidths[0], max_pending_frames=3)
    slot = pool.open()
    pool.open()
    with pytest.raises(se.StreamError, match="all 2 slots are taken"):
        pool.open()
    hop = config.hop_length
    with pytest.raises(se.StreamError, match="tick more often"):
        pool.push(slot, torch.zeros(1, 1, 1000 * hop))
    pool.push(slot, torch.zeros(1, 1, 3 * hop))
    pool.close(slot)
    with pytest.raises(se.StreamError, match=f"slot {slot} is not open"):
        pool.push(slot, torch.zeros(1, 1, 1))
    with pytest.raises(se.StreamError, match="kind must be"):
        se.StreamPool(model, kind="both")
    decoders = se.StreamPool(model, 1, kind="decoder")
    with pytest.raises(se.StreamError, match="only encoder slots"):
        decoders.open(bandwidth=config.target_bandwidths[0])
    other = se.StreamPool(model, 1, bandwidth=config.target_bandwidths[0], start="exact")
    other.open()
    pool.open()
    with pytest.raises(se.StreamError, match="starts 'silence'"):
        other.restore(0, pool.snapshot(0))
