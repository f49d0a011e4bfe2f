"""Models as torch hands them round: compiled, wrapped, in other precisions, exported; streams pickled and copied."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from strategies import random_model, random_samples, small_config
from torch import nn
from torch.nn.utils import parametrizations

import streaming_encodec as se
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.engines import make_engine
from streaming_encodec.model.find import fingerprint

CONFIG = small_config()
SEGMENTS = small_config(chunk_length_s=0.01, overlap=0.1, normalize=True, norm_type="time_group_norm")
KBPS = CONFIG.target_bandwidths[-1]
ENGINES = ("eager", "fused", "onnx", "onnx-int8", "kernel", "kernel-fp16")


def model() -> se.EncodecModel:
    return random_model(CONFIG, 0, torch.float32)


def sound(seed: int = 0, frames: int = 20) -> np.ndarray[Any, Any]:
    return random_samples(CONFIG, 1, frames * CONFIG.hop_length + 5, seed)[0].float().numpy()


# -- wrappers ------------------------------------------------------------------------------------------------


def test_a_compiled_or_spread_model_is_the_same_model(tmp_path: Path) -> None:
    plain = model()
    x, wanted = sound(), se.StreamingEncoder(plain, KBPS).push(sound())
    for wrapped in (
        torch.compile(plain, backend="eager"),
        nn.DataParallel(plain),
        torch.compile(nn.DataParallel(plain)),
    ):
        assert fingerprint(wrapped) == fingerprint(plain)
        assert stream_format(wrapped) == stream_format(plain)
        for engine in ("eager", "fused", "auto", make_engine("fused", wrapped)):
            assert np.array_equal(se.StreamingEncoder(wrapped, KBPS, engine=engine).push(x)[..., :5], wanted[..., :5])
        assert se.StreamPool(wrapped, 1, bandwidth=KBPS).open() == 0
        assert se.VoiceEncoder(24_000, model=wrapped, bandwidth=None).encode(x[0])
        se.VoiceDecoder(24_000, model=wrapped)
    half = copy.deepcopy(plain)
    half.encoder = torch.compile(half.encoder, backend="eager")
    half.decoder = torch.compile(half.decoder, backend="eager")
    assert fingerprint(half) == fingerprint(plain)
    assert se.SegmentEncoder(torch.compile(random_model(SEGMENTS, 0), backend="eager"), None).push(x) is not None


class _Adapter(nn.Module):
    """As adapters of low rank do it: the layer is kept, something is added."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.base, self.down = conv, nn.Conv1d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride)
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.down(x)


def test_weights_that_are_not_the_models_own_are_one_clear_error() -> None:
    parametrised, adapted = model(), model()
    parametrizations.weight_norm(parametrised.encoder.layers[0].conv)
    adapted.encoder.layers[0].conv = _Adapter(adapted.encoder.layers[0].conv)
    for odd in (parametrised, adapted):
        for attempt in (
            fingerprint,
            stream_format,
            lambda m: make_engine("fused", m),
            lambda m: make_engine("onnx", m),
        ):
            with pytest.raises(se.StreamError, match="merge adapters and remove parametrizations"):
                attempt(odd)


@pytest.mark.parametrize(
    "what", [nn.Linear(1, 1), torch.fx.symbolic_trace(nn.ELU()), None, 5, b"voice-24khz", nn.Module]
)
def test_what_is_no_model_says_so(what: Any) -> None:
    for make in (se.StreamingEncoder, se.StreamingDecoder, se.StreamPool, se.SegmentEncoder, se.SegmentDecoder):
        with pytest.raises(se.StreamError, match="takes an EncodecModel, not"):
            make(what)
    for make in (fingerprint, lambda m: make_engine("fused", m), stream_format):
        with pytest.raises(se.StreamError, match="takes an EncodecModel, not"):
            make(what)
    if not isinstance(what, str | None):
        for make in (se.VoiceEncoder, se.VoiceDecoder):
            with pytest.raises(se.StreamError, match="takes an EncodecModel, not"):
                make(24_000, model=what)


# -- precisions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("engine", ["eager", "fused", "auto"])
def test_a_model_of_any_precision_streams_to_numpy_and_to_packets(dtype: torch.dtype, engine: str) -> None:
    low = se.EncodecModel.from_pretrained("voice-24khz").to(dtype)
    voice = 0.3 * np.sin(np.arange(320 * 10) / 9).astype(np.float32)
    codes = se.StreamingEncoder(low, 6.0, engine=engine).push(voice)
    heard = se.StreamingDecoder(low, engine=engine).push(codes)
    assert heard.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert heard.shape == (1, 3200)
    pool = se.StreamPool(low, 1, "decoder", engine=engine)
    pool.push(pool.open(), codes)
    assert pool.tick()[0].dtype == heard.dtype
    packets = se.VoiceEncoder(24_000, model=low, engine=engine).encode(voice)
    decoder = se.VoiceDecoder(24_000, model=low, engine=engine)
    for packet in packets:
        decoder.push(packet)
    assert decoder.pull(1600).dtype == np.int16
    assert np.abs(decoder.decode_lost(480)).max() >= 0
    state = se.StreamingEncoder(low, 6.0, engine=engine).state()
    assert state.tensors["pending"].dtype == dtype


def test_segments_of_a_low_precision() -> None:
    low = random_model(SEGMENTS, 0, torch.bfloat16)
    encoder, decoder = se.SegmentEncoder(low, None), se.SegmentDecoder(low)
    (first, *_) = encoder.push(sound(frames=60))
    assert first.scale.dtype == np.float32
    assert decoder.push(first).dtype == np.float32


# -- torch.export --------------------------------------------------------------------------------------------


class _Encode(nn.Module):
    def __init__(self, model: se.EncodecModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.encode(x, bandwidth=self.model.config.target_bandwidths[1]).audio_codes


class _Decode(_Encode):
    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.model.decode(codes).audio_values


def test_the_whole_model_is_exported() -> None:
    whole = model()
    x = random_samples(CONFIG, 1, 400, 3).float()
    with torch.no_grad():
        wanted, codes = whole(x), _Encode(whole)(x)
        exported = torch.export.export(whole, (x,)).module()(x)
        assert torch.equal(exported.audio_codes, wanted.audio_codes)
        torch.testing.assert_close(exported.audio_values, wanted.audio_values)
        assert torch.equal(torch.export.export(_Encode(whole), (x,)).module()(x), codes)
        decoded = torch.export.export(_Decode(whole), (codes,)).module()(codes)
        torch.testing.assert_close(decoded, whole.decode(codes).audio_values)


# -- pickles and copies --------------------------------------------------------------------------------------


def through_pickle(stream: Any) -> Any:
    return pickle.loads(pickle.dumps(stream))  # noqa: S301 - our own


WAYS = {"pickle": through_pickle, "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("start", ["silence", "exact"])
def test_a_stream_goes_on_in_its_copy(engine: str, way: str, start: str) -> None:
    plain, x = model(), sound(frames=40)
    encoder = se.StreamingEncoder(plain, KBPS, start, frames_per_step=2, engine=engine)
    decoder = se.StreamingDecoder(plain, start, engine=engine)
    at = 0
    for size in (0, 7, 333, 1000):
        decoder.push(encoder.push(x[:, at : at + size]))
        at += size
        other_encoder, other_decoder = WAYS[way](encoder), WAYS[way](decoder)
        assert other_encoder.model is not plain
        codes = encoder.push(x[:, at : at + 90])
        assert np.array_equal(other_encoder.push(x[:, at : at + 90]), codes)
        at += 90
        assert np.array_equal(other_decoder.push(codes), decoder.push(codes))
    assert np.array_equal(other_encoder.flush(), encoder.flush())
    assert np.array_equal(other_decoder.flush(), decoder.flush())
    assert other_encoder.bandwidth == KBPS


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_pool_goes_on_in_its_copy(engine: str, way: str) -> None:
    pool = se.StreamPool(model(), 3, bandwidth=KBPS, engine=engine)
    slots = [pool.open(), pool.open()]
    for slot in slots:
        pool.push(slot, sound(slot, 9 + slot))
    pool.tick()
    other = WAYS[way](pool)
    for _ in range(6):
        got, wanted = other.tick(), pool.tick()
        assert got.keys() == wanted.keys()
        assert all(np.array_equal(got[slot], wanted[slot]) for slot in wanted)


@pytest.mark.parametrize("way", WAYS)
def test_segments_and_voices_go_on_in_their_copies(way: str) -> None:
    encoder = se.SegmentEncoder(random_model(SEGMENTS, 0), None)
    encoder.push(sound(frames=5))
    other = WAYS[way](encoder)
    for one, copied in zip(encoder.push(sound(1, 60)), other.push(sound(1, 60)), strict=True):
        assert np.array_equal(one.codes, copied.codes)
    voice = se.VoiceEncoder(16_000, model=model(), bandwidth=None, redundant_frames=1, engine="fused")
    voice.encode(sound()[0])
    other = WAYS[way](voice)
    assert other.encode(sound(1)[0]) == voice.encode(sound(1)[0])
    with pytest.raises(se.StreamError, match="cannot be pickled or copied"):
        WAYS[way](se.VoiceDecoder(16_000, model=model(), engine="fused"))


def _encode_there(encoder: se.StreamingEncoder, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    torch.set_num_threads(1)
    codes: np.ndarray[Any, Any] = encoder.push(x)
    return codes


def test_a_stream_goes_on_in_a_spawned_process() -> None:
    encoder = se.StreamingEncoder(model(), KBPS, engine="fused")
    encoder.push(sound())
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        there = workers.apply(_encode_there, (encoder, sound(1)))
    assert np.array_equal(there, encoder.push(sound(1)))
