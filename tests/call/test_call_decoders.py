"""Speakers who come and go: each sounds as if he were alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from call_kit import HOP, sound, tiny_model

from streaming_encodec.call.decoders import PooledDecoder, SeparateDecoders, make_decoders
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.errors import CallError
from streaming_encodec.streaming.conceal import LATENT_DECAY
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.voice.playout import DecodeRequest

FRAMES = 40


Kind = type[PooledDecoder] | type[SeparateDecoders]
both = pytest.mark.parametrize("kind", [PooledDecoder, SeparateDecoders])


def test_engines_get_what_suits_them() -> None:
    model = tiny_model()
    kinds = {name: type(make_decoders(model, name)) for name in ("eager", "fused", "kernel", "onnx", "onnx-int8")}
    assert kinds == {
        "eager": PooledDecoder,
        "fused": PooledDecoder,
        "kernel": SeparateDecoders,
        "onnx": SeparateDecoders,
        "onnx-int8": SeparateDecoders,
    }


@both
def test_who_comes_and_goes_changes_nobody_elses_sound(kind: Kind) -> None:
    """One alone, a second, a third, then down to the last; a batch that grows takes the streams along."""
    model = tiny_model()
    codes = {who: StreamingEncoder(model, 6.0).push(sound(FRAMES * HOP / 24_000, who)) for who in (1, 2, 3)}
    present = {1: range(40), 2: range(8, 30), 3: range(16, 24)}
    pooled = kind(model, "eager")
    heard: dict[int, list[np.ndarray]] = {1: [], 2: [], 3: []}
    for frame in range(FRAMES):
        for who, when in present.items():
            if frame == when.start:
                pooled.open(who)
            if frame == when.stop:
                pooled.close(who)
        here = [who for who, when in present.items() if frame in when]
        assert [who for who in present if who in pooled] == here
        sounds = pooled.decode({who: DecodeRequest(codes[who][:, frame : frame + 1]) for who in here})
        for who in here:
            heard[who].append(sounds[who])
    for who, when in present.items():
        wanted = StreamingDecoder(model).push(codes[who][:, when.start : when.stop])
        got = np.concatenate(heard[who], axis=1)
        np.testing.assert_allclose(got, wanted, atol=1e-5)
        assert np.abs(wanted).max() > 1e-3


@both
def test_lost_frames_fade_alike(kind: Kind) -> None:
    model = tiny_model()
    codes = StreamingEncoder(model, 6.0).push(sound(5 * HOP / 24_000))
    asked = [*(DecodeRequest(codes[:, i : i + 1]) for i in range(5)), *[DecodeRequest(None)] * 3]
    room = kind(model, "eager")
    for who in (1, 2):
        room.open(who)
    decoder = StreamingDecoder(model)
    for number, request in enumerate(asked):
        by_hand: np.ndarray
        if request.codes is not None:
            by_hand = decoder.push(request.codes)
        else:
            latent = find_engine("eager", model).quantizer.decode(torch.from_numpy(codes[None, :, 4:5]))
            by_hand = decoder.push_latent(latent * LATENT_DECAY ** (number - 4), 8)[0].numpy()
        np.testing.assert_allclose(room.decode({1: request})[1], by_hand, atol=1e-5)


@both
def test_a_reset_begins_afresh(kind: Kind) -> None:
    model = tiny_model()
    codes = StreamingEncoder(model, 6.0).push(sound(4 * HOP / 24_000))
    decoders = kind(model, "eager")
    decoders.open(7)
    first = decoders.decode({7: DecodeRequest(codes[:, :1])})[7]
    decoders.decode({7: DecodeRequest(codes[:, 1:2])})
    again = decoders.decode({7: DecodeRequest(codes[:, :1], reset=True)})[7]
    np.testing.assert_array_equal(again, first)


@both
def test_warming_up_leaves_no_trace_and_too_many_are_told(kind: Kind) -> None:
    model = tiny_model()
    codes = StreamingEncoder(model, 6.0).push(sound(HOP / 24_000))
    warm, cold = kind(model, "eager", most=2), kind(model, "eager")
    warm.warm_up(8)
    for decoders in (warm, cold):
        decoders.open(1)
    request = {1: DecodeRequest(codes)}
    np.testing.assert_array_equal(warm.decode(request)[1], cold.decode(request)[1])
    warm.open(2)
    with pytest.raises(CallError, match="at most 2 speakers"):
        warm.open(3)
