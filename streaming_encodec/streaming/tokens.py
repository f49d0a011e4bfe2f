"""Codes of a language model to sound, while it makes them: MusicGen's delayed codebooks, Bark's coarse and fine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.errors import StreamError
from streaming_encodec.model.find import AnyModel, find_model
from streaming_encodec.samples import as_array, as_count
from streaming_encodec.stepping.arrays import as_numpy, is_tensor
from streaming_encodec.stepping.engine import EngineOrName
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.io import plain_tensor
from streaming_encodec.types import AnyArray, Pcm

Tokens: TypeAlias = "AnyArray | tuple[AnyArray, ...]"

_MOST_TOGETHER = 25
"""Frames that are decoded before their sound is given: a third of a second, where a model hands over many."""
_MOST_DELAY = 1000
_MOST_ROWS = 256


@overload
def tokens_to_speech(
    tokens: Iterable[Tokens],
    model: AnyModel = ...,
    *,
    delays: Sequence[int] | None = ...,
    engine: EngineOrName = ...,
) -> Iterator[Pcm]: ...
@overload
def tokens_to_speech(
    tokens: AsyncIterable[Tokens],
    model: AnyModel = ...,
    *,
    delays: Sequence[int] | None = ...,
    engine: EngineOrName = ...,
) -> AsyncIterator[Pcm]: ...
def tokens_to_speech(
    tokens: Iterable[Tokens] | AsyncIterable[Tokens],
    model: AnyModel = "facebook/encodec_24khz",
    *,
    delays: Sequence[int] | None = None,
    engine: EngineOrName = "auto",
) -> Iterator[Pcm] | AsyncIterator[Pcm]:
    """Sound of the codes that a generator, or an async generator, gives, as soon as it gives them.

    The first sound comes with the first frame whose codes are complete; pieces join without clicks.

    Args:
        tokens: gives whole numbers, numpy or torch: [K, T], or [B, K, T] for a batch, any T, the same B and K each
            time; [K] is one frame. A tuple of them is joined along K: Bark's coarse and fine codes, ``(coarse [2, T],
            fine [6, T])``. Fewer codebooks than the model has sound coarser, so coarse codes alone will do too.
        model: that of the codes, or its name: EnCodec's 24 kHz one for Bark and VALL-E.
        delays: by how many steps each codebook comes later than its frame begins: ``range(4)`` for MusicGen. None: all
            at once.
        engine: see ``StreamingDecoder``.

    Yields:
        Samples [C, n] (float32), or [B, C, n] for a batch. The rate is the model's.

    A code that the model does not have (a pad, an end token) and those of finer codebooks in its frame are not used; a
    frame whose first code is such a one has no sound: it is left out, and is silence in a batch where other rows go on.

    Raises:
        StreamError: the model cannot stream by samples; while iterating: no whole numbers, or another shape.
        CheckpointError: there is no such model.
    """
    found = find_model(model)
    speaking = _Speaking(lambda: StreamingDecoder(found, engine=engine), found.config.codebook_size, _checked(delays))
    if isinstance(tokens, AsyncIterable):
        return _speak_async(tokens, speaking)
    if not isinstance(tokens, Iterable):
        raise StreamError(f"tokens come from a generator or another iterable, not {type(tokens).__name__}")
    return _speak(tokens, speaking)


def _speak(tokens: Iterable[Tokens], speaking: _Speaking) -> Iterator[Pcm]:
    for item in tokens:
        for frames in speaking.pieces(item):
            yield speaking.decode(frames)
    for frames in speaking.rest():
        yield speaking.decode(frames)
    tail = speaking.tail()
    if tail is not None:
        yield tail


async def _speak_async(tokens: AsyncIterable[Tokens], speaking: _Speaking) -> AsyncIterator[Pcm]:
    # Decoded in another thread: the event loop goes on meanwhile.
    async for item in tokens:
        for frames in speaking.pieces(item):
            yield await asyncio.to_thread(speaking.decode, frames)
    for frames in speaking.rest():
        yield await asyncio.to_thread(speaking.decode, frames)
    tail = await asyncio.to_thread(speaking.tail)
    if tail is not None:
        yield tail


class _Speaking:
    """The state between two items: codes that wait for later codebooks of their frame, and the decoders."""

    def __init__(self, make: Any, codebook_size: int, delays: tuple[int, ...] | None) -> None:
        self._make, self._size, self._delays = make, codebook_size, delays
        first = make()
        first.warm_up(1)  # a slow first frame, or a model that cannot stream, shows now
        self._decoders: list[StreamingDecoder] = [first]
        self._batched: bool | None = None
        self._shape: tuple[int, int] | None = None  # B, K
        self._steps: deque[NDArray[np.int64]] = deque()  # [B, K] each: those that an unfinished frame needs
        self._spoken = False

    def pieces(self, item: Tokens) -> Iterator[NDArray[np.int64]]:
        """The frames [B, K, f] that an item completes, the very first one alone."""
        yield from self._cut(self._undelay(self._take(item)))

    def rest(self) -> Iterator[NDArray[np.int64]]:
        """Frames whose last codebooks never came: they sound coarser."""
        if self._delays and self._shape:
            missing = np.full((*self._shape, max(self._delays)), -1, np.int64)
            yield from self._cut(self._undelay(missing))

    def decode(self, frames: NDArray[np.int64]) -> Pcm:
        """Codes [B, K, f] → [C, n] or [B, C, n]."""
        rows = [self._row(decoder, codes) for decoder, codes in zip(self._decoders, frames, strict=True)]
        if not self._batched:
            return rows[0]
        longest = max(row.shape[1] for row in rows)
        return np.stack([np.pad(row, ((0, 0), (0, longest - row.shape[1]))) for row in rows])

    def tail(self) -> Pcm | None:
        """What the decoders hold back; None where it is nothing."""
        if self._shape is None:
            return None
        channels = self._decoders[0].config.audio_channels  # one that was pushed nothing answers in another form
        rows = [np.asarray(decoder.flush(), np.float32).reshape(channels, -1) for decoder in self._decoders]
        longest = max(row.shape[1] for row in rows)
        if not longest:
            return None
        padded = [np.pad(row, ((0, 0), (0, longest - row.shape[1]))) for row in rows]
        return np.stack(padded) if self._batched else padded[0]

    def _row(self, decoder: StreamingDecoder, codes: NDArray[np.int64]) -> Pcm:
        """One row's frames [K, f]; those without a first code are left out."""
        valid = np.logical_and.accumulate((codes >= 0) & (codes < self._size), axis=0).sum(axis=0)  # codebooks of each
        channels = decoder.config.audio_channels
        parts: list[Pcm] = [np.zeros((channels, 0), np.float32)]
        begin = 0
        while begin < len(valid):
            end = begin + 1
            while end < len(valid) and valid[end] == valid[begin]:
                end += 1
            if valid[begin]:
                parts.append(np.asarray(decoder.push(codes[: valid[begin], begin:end]), np.float32))
            elif self._batched:
                parts.append(np.zeros((channels, (end - begin) * decoder.config.hop_length), np.float32))
            begin = end
        return np.concatenate(parts, axis=1)

    def _take(self, item: Tokens) -> NDArray[np.int64]:
        """An item as [B, K, T]."""
        parts = [_codes(part) for part in (item if isinstance(item, tuple) else (item,))]
        if not parts or len({part.ndim for part in parts}) > 1 or not 1 <= parts[0].ndim <= 3:
            raise StreamError("tokens are [K, T], [B, K, T] or [K], or a tuple of such that are joined along K")
        batched = parts[0].ndim == 3
        axes = [part[None, :, None] if part.ndim == 1 else part[None] if part.ndim == 2 else part for part in parts]
        if len({(part.shape[0], part.shape[2]) for part in axes}) > 1:
            raise StreamError(f"tokens that are joined along K differ in B or T: {[part.shape for part in parts]}")
        codes = np.concatenate(axes, axis=1)
        rows, codebooks = codes.shape[:2]
        if self._shape is None:
            self._begin(rows, codebooks, batched)
        elif (batched, rows) != (self._batched, self._shape[0]) or (self._delays and codebooks != self._shape[1]):
            raise StreamError(f"tokens [B, K, T] changed from B, K = {self._shape} to {(rows, codebooks)}")
        return codes

    def _begin(self, rows: int, codebooks: int, batched: bool) -> None:
        most = self._decoders[0].config.num_quantizers
        if not 1 <= rows <= _MOST_ROWS or not codebooks:
            raise StreamError(f"tokens [B, K, T] have 1 to {_MOST_ROWS} rows and 1 to {most} codebooks")
        if self._delays is not None and len(self._delays) != codebooks:
            raise StreamError(f"{len(self._delays)} delays for {codebooks} codebooks")
        self._shape, self._batched = (rows, codebooks), batched
        self._decoders += [self._make() for _ in range(rows - 1)]

    def _undelay(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Steps [B, K, T], in which codebook k of frame f lies at step f + delays[k] → the frames that are complete."""
        if not self._delays:
            return codes
        self._steps.extend(codes[:, :, at] for at in range(codes.shape[2]))
        longest = max(self._delays)
        frames = []
        while len(self._steps) > longest:
            frames.append(np.stack([self._steps[late][:, k] for k, late in enumerate(self._delays)], axis=1))
            self._steps.popleft()
        return np.stack(frames, axis=2) if frames else codes[:, :, :0]

    def _cut(self, frames: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        at = 0
        most = self._decoders[0].config.num_quantizers
        if frames.shape[1] > most:
            raise StreamError(f"{frames.shape[1]} codebooks, and the model has {most}")
        frames = frames[:, :, ((frames[:, 0] >= 0) & (frames[:, 0] < self._size)).any(axis=0)]
        while at < frames.shape[2]:
            end = at + (_MOST_TOGETHER if self._spoken else 1)
            self._spoken = True
            yield frames[:, :, at:end]
            at = end


def _codes(part: AnyArray) -> NDArray[np.int64]:
    values = as_numpy(plain_tensor(part, "tokens")) if is_tensor(part) else as_array(part, "tokens")
    if values.dtype.kind not in "iu":
        raise StreamError(f"tokens are whole numbers, not {values.dtype}")
    codes: NDArray[np.int64] = values.astype(np.int64)
    return codes


def _checked(delays: Sequence[int] | None) -> tuple[int, ...] | None:
    if delays is None:
        return None
    counts = [as_count(late) for late in delays]
    if not counts or any(late is None or not 0 <= late <= _MOST_DELAY for late in counts):
        raise StreamError(f"delays are a whole number of steps for each codebook, 0 to {_MOST_DELAY}: range(4)")
    return tuple(late for late in counts if late is not None)
