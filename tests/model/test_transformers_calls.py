"""Code written for `transformers.EncodecModel` gets from ours what it gets there, call for call."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
import transformers
from torch import Tensor

from streaming_encodec import EncodecModel
from streaming_encodec.errors import StreamError
from streaming_encodec.model.config import EncodecConfig

CONFIGS = {"24 kHz": oracles.tiny_config(), "48 kHz": oracles.tiny_segment_config()}


class Pair:
    """A model and its oracle, the same weights, and inputs as the processor makes them."""

    def __init__(self, config: EncodecConfig) -> None:
        self.theirs = oracles.hf_model(config, 7, torch.float32).eval()
        self.ours = oracles.ours_from(self.theirs, config)
        self.config = config
        processor = transformers.EncodecFeatureExtractor(
            config.audio_channels, config.sampling_rate, 0.0, config.chunk_length_s, config.overlap
        )
        rng = np.random.default_rng(0)
        sounds = [0.3 * rng.standard_normal((n, config.audio_channels)).astype(np.float32).squeeze() for n in (170, 97)]
        if config.audio_channels == 2:
            sounds = [sound.T for sound in sounds]
        self.inputs = processor(raw_audio=sounds, sampling_rate=config.sampling_rate, return_tensors="pt")

    def both(self, call: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            return call(self.theirs), call(self.ours)


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


def same(theirs: Any, ours: Any) -> None:
    if isinstance(theirs, Tensor):
        assert theirs.shape == ours.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    elif isinstance(theirs, list):
        assert len(theirs) == len(ours)
        for one, other in zip(theirs, ours, strict=True):
            same(one, other)
    else:
        assert theirs == ours


def test_encode_and_its_fields(pair: Pair) -> None:
    x, mask = pair.inputs["input_values"], pair.inputs["padding_mask"]
    kbps = pair.config.target_bandwidths[1]
    for call in (
        lambda m: m.encode(x),
        lambda m: m.encode(x, mask),
        lambda m: m.encode(x, mask, kbps),
        lambda m: m.encode(x, padding_mask=mask, bandwidth=kbps),
        lambda m: m.encode(input_values=x, bandwidth=kbps),
        lambda m: m.encode(x, mask[:, None].bool(), bandwidth=kbps),
        lambda m: m.encode(**pair.inputs),
    ):
        theirs, ours = pair.both(call)
        for name in ("audio_codes", "audio_scales", "last_frame_pad_length"):
            same(getattr(theirs, name), getattr(ours, name))
            same(theirs[name], ours[name])
        same(list(theirs.to_tuple()), list(ours.to_tuple()))
        same(theirs[0], ours[0])


def test_decode_as_it_is_called_there(pair: Pair) -> None:
    x, mask = pair.inputs["input_values"], pair.inputs["padding_mask"]
    encoded, _ = pair.both(lambda m: m.encode(x, mask, pair.config.target_bandwidths[-1]))
    codes, scales, pad = encoded.audio_codes, encoded.audio_scales, encoded.last_frame_pad_length
    for call in (
        lambda m: m.decode(codes, scales),
        lambda m: m.decode(codes, scales, mask),
        lambda m: m.decode(codes, scales, mask, last_frame_pad_length=pad),
        lambda m: m.decode(audio_codes=codes, audio_scales=scales, padding_mask=mask),
        lambda m: m.decode(codes.int(), scales),
    ):
        theirs, ours = pair.both(call)
        same(theirs.audio_values, ours.audio_values)
        same(theirs["audio_values"], ours["audio_values"])
        same(theirs[0], ours[0])


def test_the_whole_model_as_it_is_called_there(pair: Pair) -> None:
    x, mask = pair.inputs["input_values"], pair.inputs["padding_mask"]
    kbps = pair.config.target_bandwidths[1]
    encoded, _ = pair.both(lambda m: m.encode(x, mask))
    codes, scales = encoded.audio_codes, encoded.audio_scales
    for call in (
        lambda m: m(x),
        lambda m: m(x, mask),
        lambda m: m(x, mask, kbps),
        lambda m: m(**pair.inputs),
        lambda m: m(**pair.inputs, bandwidth=kbps),
        lambda m: m(x, mask, audio_codes=codes, audio_scales=scales),
    ):
        theirs, ours = pair.both(call)
        same(theirs.audio_codes, ours.audio_codes)
        same(theirs.audio_values, ours.audio_values)
        same(list(theirs.to_tuple()), list(ours.to_tuple()))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.uint8])
def test_codes_of_any_whole_numbers(dtype: torch.dtype) -> None:
    model = EncodecModel(oracles.tiny_config())
    codes = torch.arange(12).view(1, 1, 2, 6)
    assert torch.equal(model.decode(codes.to(dtype)).audio_values, model.decode(codes).audio_values)


def test_what_is_called_otherwise_says_how() -> None:
    model = EncodecModel(oracles.tiny_config())
    x = torch.zeros(2, 1, 30)
    for wrong, says in (
        (lambda: model.encode(x, 0.4), r"bandwidth is a keyword, encode\(x, bandwidth=0.4\)"),
        (lambda: model(x, 0.4), "bandwidth is a keyword"),
        (lambda: model.encode(x, torch.ones(2, 29)), r"padding_mask must be \[2, 30\]"),
        (lambda: model.encode(x, np.ones((2, 30))), "must be a tensor"),
        (lambda: model.encode(x.double()), r"in the model's torch.float32.*x.to\(dtype\)"),
        (lambda: model.encode(x.int()), "samples within -1 to 1, got torch.int32"),
        (lambda: model.encode(x.numpy()), "takes a tensor"),
        (lambda: model.encode(x[0]), r"takes \[B, 1, T\]"),
        (lambda: model.decode(torch.zeros(1, 1, 1, 2)), "whole numbers"),
        (lambda: model.decode(torch.zeros(1, 1, 1, 2, dtype=torch.bool)), "whole numbers"),
        (lambda: model.decode(torch.full((1, 1, 1, 2), 99)), "code 99 is out of range"),
        (lambda: model.decode(torch.zeros(1, 1, 1, 2).long(), last_frame_pad_length=3), "last_frame_pad_length"),
        (lambda: model.decode(torch.zeros(1, 1, 1, 2).long(), [None, None]), "one scale for each"),
        (lambda: model.decode(torch.zeros(1, 1, 1, 2).long(), torch.zeros(1, 3)), "one scale for each"),
    ):
        with pytest.raises(StreamError, match=says):
            wrong()
    with pytest.raises(KeyError):
        model.encode(x)["codes"]
