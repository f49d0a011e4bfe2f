"""Models that work on segments: the stream equals the offline result, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import partitions, random_model, random_samples, small_config

import streaming_encodec as se
from streaming_encodec.streaming.segments import Segment


@st.composite
def segment_configs(draw: st.DrawFn) -> se.EncodecConfig:
    return small_config(
        upsampling_ratios=tuple(draw(st.lists(st.sampled_from([2, 3, 4]), min_size=1, max_size=2))),
        audio_channels=draw(st.sampled_from([1, 2])),
        use_causal_conv=draw(st.booleans()),
        norm_type=draw(st.sampled_from(["time_group_norm", "weight_norm"])),
        normalize=draw(st.booleans()),
        sampling_rate=1000,
        chunk_length_s=draw(st.sampled_from([0.05, 0.1, 0.123])),
        overlap=draw(st.sampled_from([0.0, 0.01, 0.1, 0.4, 0.5, 0.6])),
        num_lstm_layers=draw(st.sampled_from([1, 2])),
    )


@settings(max_examples=100)
@given(data=st.data(), config=segment_configs(), seed=st.integers(0, 2**16), length=st.integers(1, 900))
def test_segments_equal_offline(data: st.DataObject, config: se.EncodecConfig, seed: int, length: int) -> None:
    model = random_model(config, seed)
    batch = data.draw(st.sampled_from([1, 2]))
    x = random_samples(config, batch, length, seed)
    bandwidth = data.draw(st.sampled_from(config.target_bandwidths))
    with torch.no_grad():
        offline = model.encode(x, bandwidth=bandwidth)
        wanted = model.decode(offline).audio_values

    encoder = se.SegmentEncoder(model, bandwidth, batch)
    decoder = se.SegmentDecoder(model, batch)
    segments: list[Segment] = []
    for block in x.split(data.draw(partitions(length, 37)), dim=-1):
        segments += encoder.push(block)
        assert encoder._pending.shape[-1] < encoder.segment_samples
    segments += encoder.flush()
    assert len(segments) == len(offline.audio_codes)
    for i, segment in enumerate(segments):
        assert torch.equal(segment.codes, offline.audio_codes[i][..., : segment.codes.shape[-1]])
        if config.normalize:
            assert_close(segment.scale, offline.audio_scales[i], "scale")

    pieces = []
    for segment in segments:
        pieces.append(decoder.push(segment))
        assert decoder._sum.shape[-1] <= decoder.segment_samples + config.hop_length
    pieces.append(decoder.flush())
    assert_close(torch.cat(pieces, dim=-1), wanted, "sound")


def test_one_second_at_48_khz_is_two_segments() -> None:
    config = se.EncodecConfig(
        sampling_rate=48_000,
        audio_channels=2,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        use_causal_conv=False,
        norm_type="time_group_norm",
        target_bandwidths=(3.0, 6.0),
        num_filters=2,
        hidden_size=4,
    )
    model = random_model(config, 0, torch.float32)
    encoder, decoder = se.SegmentEncoder(model, 3.0), se.SegmentDecoder(model)
    x = np.zeros((2, 48_000), np.float32)
    segments = encoder.push(x) + encoder.flush()
    assert [segment.codes.shape for segment in segments] == [(2, 150), (2, 2)]
    first = decoder.push(segments[0])
    assert first.shape == (2, 47_520)
    assert isinstance(first, np.ndarray)
    assert decoder.push(segments[1]).shape[-1] + decoder.flush().shape[-1] == 640
    assert (encoder.delay_samples, decoder.delay_samples) == (48_000 - 320, 480)


def test_each_model_names_the_class_it_streams_through() -> None:
    by_segment = random_model(small_config(chunk_length_s=0.1, overlap=0.1), 0)
    by_sample = random_model(small_config(), 0)
    whole_only = random_model(small_config(norm_type="time_group_norm"), 0)
    circular = random_model(small_config(pad_mode="circular"), 0)
    kbps = by_sample.config.target_bandwidths[0]
    for make in (lambda m: se.StreamingEncoder(m, kbps), se.StreamingDecoder, lambda m: se.StreamPool(m, 2)):
        with pytest.raises(se.StreamError, match="use SegmentEncoder and SegmentDecoder"):
            make(by_segment)
        with pytest.raises(se.StreamError, match=r"cannot stream, use EncodecModel\.encode"):
            make(whole_only)
        with pytest.raises(se.StreamError, match="circular"):
            make(circular)
    for make in (lambda m: se.SegmentEncoder(m, kbps), se.SegmentDecoder):
        with pytest.raises(se.StreamError, match="use StreamingEncoder and StreamingDecoder"):
            make(by_sample)
        with pytest.raises(se.StreamError, match=r"use EncodecModel\.encode"):
            make(whole_only)


def test_bad_segments_are_refused() -> None:
    config = small_config(chunk_length_s=0.01, overlap=0.1, normalize=True)
    model = random_model(config, 0)
    decoder = se.SegmentDecoder(model)
    codes = torch.zeros(1, 1, 1, dtype=torch.int64)
    scale = torch.ones(1, 1)
    bad = {
        "needs its scale": Segment(codes, None),
        "finite": Segment(codes, torch.full((1, 1), torch.nan)),
        "frames, got 0": Segment(codes[..., :0], scale),
        "frames, got 99": Segment(codes.expand(1, 1, 99), scale),
        "out of range": Segment(codes + 16, scale),
    }
    for message, segment in bad.items():
        with pytest.raises(se.StreamError, match=message):
            decoder.push(segment)
    decoder.push(Segment(codes, scale))
