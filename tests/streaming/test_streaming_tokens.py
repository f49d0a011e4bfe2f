"""Codes of language models: the sound is the decoder's, and it comes with the codes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from call_kit import tiny_model

from streaming_encodec import StreamingDecoder, tokens_to_speech
from streaming_encodec.errors import CheckpointError, StreamError
from streaming_encodec.model.encodec import EncodecModel

SIZE, HOP = 64, 320
SILENT = np.zeros((1, 0), np.float32)


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return tiny_model()


def codes(frames: int, codebooks: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, SIZE, (codebooks, frames))


def decoded(model: EncodecModel, *parts: np.ndarray) -> np.ndarray:
    decoder = StreamingDecoder(model)
    return np.concatenate([SILENT, *(decoder.push(part) for part in parts)], axis=1)


def spoken(pieces: Any) -> np.ndarray:
    return np.concatenate([SILENT, *pieces], axis=-1)


@pytest.mark.parametrize("step", [1, 2, 7, 40])
@pytest.mark.parametrize("kind", ["numpy", "torch", "int32"])
def test_pieces_of_any_length(model: EncodecModel, step: int, kind: str) -> None:
    said = codes(40)
    form = {"numpy": lambda x: x, "torch": torch.from_numpy, "int32": lambda x: x.astype(np.int32)}[kind]
    heard = spoken(tokens_to_speech((form(said[:, at : at + step]) for at in range(0, 40, step)), model))
    assert np.allclose(heard, decoded(model, said), atol=1e-5)


def test_a_vector_is_a_frame(model: EncodecModel) -> None:
    said = codes(5)
    assert np.allclose(spoken(tokens_to_speech(iter(said.T), model)), decoded(model, said), atol=1e-5)


def test_the_first_sound_comes_with_the_first_frame(model: EncodecModel) -> None:
    """Also where the model hands over many at once, and before the next is asked for."""
    asked = 0

    def tokens() -> Iterator[np.ndarray]:
        nonlocal asked
        for at in range(3):
            asked += 1
            yield codes(100, seed=at)

    speech = tokens_to_speech(tokens(), model)
    assert asked == 0
    assert next(speech).shape == (1, HOP)
    assert asked == 1
    assert sum(piece.shape[1] for piece in speech) == 299 * HOP


async def test_an_async_generator_is_not_kept_waiting(model: EncodecModel) -> None:
    said = codes(10)
    given: list[int] = []

    async def tokens() -> AsyncIterator[np.ndarray]:
        for at in range(10):
            given.append(at)
            await asyncio.sleep(0)
            yield said[:, at : at + 1]

    heard = []
    async for piece in tokens_to_speech(tokens(), model):
        heard.append(piece)
        assert len(heard) == len(given)  # each frame's sound before the next frame
    assert np.allclose(spoken(heard), decoded(model, said), atol=1e-5)


@pytest.mark.parametrize("delays", [range(4), (0, 0, 0, 0), (0, 1, 1, 1), (2, 0, 5, 1)])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_delayed_codebooks(model: EncodecModel, delays: Any, step: int) -> None:
    """MusicGen's: codebook k of a frame comes k steps later; pads (64, a code that is none) stand before and after."""
    said, longest = codes(20, 4), max(delays)
    pattern = np.full((4, 20 + longest), SIZE)
    for k, late in enumerate(delays):
        pattern[k, late : late + 20] = said[k]
    items = [pattern[:, at : at + step] for at in range(0, pattern.shape[1], step)]
    heard = list(tokens_to_speech(iter(items), model, delays=delays))
    assert np.allclose(spoken(heard), decoded(model, said), atol=1e-5)


def test_the_first_sound_of_delayed_codebooks_comes_with_the_last_of_them(model: EncodecModel) -> None:
    pattern = np.full((4, 23), SIZE)
    for k in range(4):
        pattern[k, k : k + 20] = codes(20, 4)[k]
    taken = 0

    def tokens() -> Iterator[np.ndarray]:
        nonlocal taken
        for at in range(23):
            taken += 1
            yield pattern[:, at : at + 1]

    next(tokens_to_speech(tokens(), model, delays=range(4)))
    assert taken == 4


def test_a_pattern_that_breaks_off_ends_coarser(model: EncodecModel) -> None:
    pattern = np.full((4, 20), SIZE)
    said = codes(20, 4)
    for k in range(4):
        pattern[k, k:] = said[k, : 20 - k]
    heard = spoken(tokens_to_speech(iter([pattern]), model, delays=range(4)))
    coarser = [said[: 3 - at, 17 + at : 18 + at] for at in range(3)]
    assert np.allclose(heard, decoded(model, said[:, :17], *coarser), atol=1e-5)


def test_barks_coarse_and_fine_codes(model: EncodecModel) -> None:
    said = codes(30)
    joined = tokens_to_speech(((said[:2, at : at + 5], said[2:, at : at + 5]) for at in range(0, 30, 5)), model)
    assert np.allclose(spoken(joined), decoded(model, said), atol=1e-5)
    coarse = tokens_to_speech(iter([said[:2]]), model)
    assert np.allclose(spoken(coarse), decoded(model, said[:2]), atol=1e-5)


@pytest.mark.parametrize("pad", [-1, SIZE, 10_000, -(2**40)])
def test_codes_that_are_none(model: EncodecModel, pad: int) -> None:
    said = codes(12)
    said[3:, 4] = pad  # the finer ones of a frame
    said[2, 6] = pad  # one in the middle: those after it refine what is not there
    said[0, 8] = pad  # a frame without its first
    said[:, 10:] = pad  # the end
    heard = spoken(tokens_to_speech(iter([said]), model))
    parts = [said[:, :4], said[:3, 4:5], said[:, 5:6], said[:2, 6:7], said[:, 7:8], said[:, 9:10]]
    assert np.allclose(heard, decoded(model, *parts), atol=1e-5)


def test_rows_of_a_batch_are_independent_and_end_when_they_do(model: EncodecModel) -> None:
    first, second = codes(20, seed=1), codes(20, seed=2)
    second[:, 12:] = SIZE
    both = np.stack([first, second])
    speech = tokens_to_speech((both[..., at : at + 4] for at in range(0, 20, 4)), model)
    heard = np.concatenate(list(speech), axis=-1)
    assert heard.shape == (2, 1, 20 * HOP)
    assert np.allclose(heard[0], decoded(model, first), atol=1e-5)
    assert np.allclose(heard[1, :, : 12 * HOP], decoded(model, second[:, :12]), atol=1e-5)
    assert not heard[1, :, 12 * HOP :].any()


def test_nothing_gives_nothing(model: EncodecModel) -> None:
    assert list(tokens_to_speech(iter([]), model)) == []
    assert list(tokens_to_speech(iter([codes(0)]), model)) == []
    assert list(tokens_to_speech(iter([np.full((8, 5), -1)]), model)) == []


@pytest.mark.parametrize(
    ("items", "options", "says"),
    [
        ([np.zeros((8, 2))], {}, "whole numbers"),
        ([np.zeros((1, 8, 2, 1), int)], {}, r"\[K, T\]"),
        ([np.zeros((40, 2), int)], {}, "40 codebooks"),
        ([np.zeros((2, 8, 1), int), np.zeros((3, 8, 1), int)], {}, "changed"),
        ([np.zeros((8, 1), int), np.zeros((1, 8, 1), int)], {}, "changed"),
        ([(np.zeros((2, 3), int), np.zeros((6, 4), int))], {}, "differ"),
        ([()], {}, "tuple"),
        (["codes"], {}, "numpy array"),
        ([np.zeros((8, 2), int)], {"delays": range(4)}, "4 delays for 8"),
    ],
)
def test_what_cannot_be_spoken(model: EncodecModel, items: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(StreamError, match=says):
        list(tokens_to_speech(iter(items), model, **options))


@pytest.mark.parametrize("delays", [[], [-1], [0.5], [10**6]])
def test_delays_that_cannot_be_are_refused_at_once(model: EncodecModel, delays: Any) -> None:
    with pytest.raises(StreamError, match="delays"):
        tokens_to_speech(iter([]), model, delays=delays)


def test_a_missing_model_and_no_generator_are_refused_at_once(model: EncodecModel) -> None:
    with pytest.raises(CheckpointError):
        tokens_to_speech(iter([]), "/nothing/there")
    with pytest.raises(StreamError, match="generator"):
        tokens_to_speech(7, model)  # type: ignore[call-overload]
