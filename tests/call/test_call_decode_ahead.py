"""Frames decoded ahead sound as if each had been decoded when it was asked for, whatever is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from call_kit import HOP, sound, tiny_model

from streaming_encodec.call.decoders import AheadDecoder
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder

FRAMES = 60

engines = pytest.mark.parametrize("engine", ["eager", "fused", "kernel", "onnx"])


def _frames(seed: int, count: int = FRAMES) -> list[np.ndarray]:
    codes = StreamingEncoder(tiny_model(), 6.0).push(sound(count * HOP / 24_000, seed))
    return [codes[:, i : i + 1] for i in range(codes.shape[1])]


@engines
@pytest.mark.parametrize("together", [2, 3, 6])
def test_frames_that_come_as_announced(engine: str, together: int) -> None:
    frames = _frames(1)
    wanted = StreamingDecoder(tiny_model(), engine=engine).push(np.concatenate(frames, axis=1))
    decoder = AheadDecoder(StreamingDecoder(tiny_model(), engine=engine))
    got = [decoder.decode(frame, tuple(frames[i + 1 : i + together])) for i, frame in enumerate(frames)]
    assert [piece.shape[1] for piece in got] == [HOP] * FRAMES
    np.testing.assert_allclose(np.concatenate(got, axis=1), wanted, atol=1e-5)
    assert np.abs(wanted).max() > 1e-3


@engines
def test_what_is_played_in_the_end_decides(engine: str) -> None:
    """Announced frames that don't come, come twice, come as other codes, are lost, or come after a reset."""
    rng = np.random.default_rng(3)
    frames, others = _frames(1), _frames(2)
    model = tiny_model()
    plain, decoder = StreamingDecoder(model, engine=engine), AheadDecoder(StreamingDecoder(model, engine=engine))
    latent = np.random.default_rng(0).standard_normal((1, model.config.hidden_size, 1)).astype(np.float32)
    at, surprises = 0, 0
    for _ in range(300):
        chance = rng.random()
        at = int(rng.integers(FRAMES)) if chance < 0.1 else (at + 1) % FRAMES
        following = tuple(frames[at + 1 : at + int(rng.integers(1, 5))])
        if chance > 0.9:
            surprises += 1
            got = decoder.decode_latent(latent, 8)
            wanted = plain.push_latent(latent, 8)[0]
        elif chance > 0.87:
            got, wanted = decoder.decode(others[at], following), plain.push(others[at])
        elif chance > 0.85:
            decoder.reset()
            plain.reset()
            got, wanted = decoder.decode(frames[at], following), plain.push(frames[at])
        else:
            got, wanted = decoder.decode(frames[at], following), plain.push(frames[at])
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert surprises > 10


def test_the_frames_of_a_step_go_through_the_network_once() -> None:
    """What all this is for."""
    stream = StreamingDecoder(tiny_model(), engine="onnx")
    together, pushed = [], []
    push, push_together = stream.push, stream.push_together
    stream.push = lambda codes: pushed.append(codes.shape[1]) or push(codes)
    stream.push_together = lambda codes: together.append(codes.shape[1]) or push_together(codes)
    decoder, frames = AheadDecoder(stream), _frames(1, 8)
    for i, frame in enumerate(frames):
        decoder.decode(frame, tuple(frames[i + 1 : i + 2]))
    assert together == [2, 2, 2, 2]
    assert not pushed


def test_a_late_stream_keeps_its_borders() -> None:
    """Where transposed convolutions are trimmed on the left the first frames give less: each what it would give."""
    config = replace(tiny_model().config, trim_right_ratio=0.5)
    torch.manual_seed(0)
    model = EncodecModel(config)
    for book in model.quantizer.codebooks:
        book.embed.normal_()
    frames = _frames(1, 12)
    plain, decoder = StreamingDecoder(model), AheadDecoder(StreamingDecoder(model))
    assert plain.delay_samples > 0
    shapes = []
    for i, frame in enumerate(frames):
        wanted = plain.push(frame)
        got = decoder.decode(frame, tuple(frames[i + 1 : i + 3]))
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, atol=1e-5)
        shapes.append(got.shape[1])
    assert shapes[0] < HOP
    assert shapes[-1] == HOP
