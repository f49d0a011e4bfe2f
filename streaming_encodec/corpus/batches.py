"""Many recordings at once on one device: the way to use a graphics card.

Recordings are taken by length, longest first, into a pool of streams. Each is encoded as alone: the offline start, a
second of sound a step, and its own end. A batch always has the same shape, so that no recording changes another's
codes; on another device, or in a batch of another size, sums are rounded otherwise, and some codes differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streaming_encodec.corpus.codec import FRAMES_PER_STEP
from streaming_encodec.corpus.encoding import Encoding, RecordingEncoder, Sounds, join_pieces
from streaming_encodec.corpus.formats.base import one_line
from streaming_encodec.corpus.recordings import Recording
from streaming_encodec.errors import ConfigError, StreamingEncodecError
from streaming_encodec.extras import needs_torch
from streaming_encodec.model.checkpoints.named import PUBLISHED
from streaming_encodec.wire.ecdc import EcdcBlock

if TYPE_CHECKING:
    from streaming_encodec.streaming.pool import StreamPool
    from streaming_encodec.types import Pcm

_MOST_PENDING = 2 * FRAMES_PER_STEP


class BatchEncoder:
    """A model on a device of torch.

    Args:
        model: a name that `open_model` takes.
        bandwidth: kbps.
        engine: an engine of torch; `auto` is `fused`.
        device: a name of torch's, such as `cuda` or `cuda:1`.
        batch: streams at once; of no effect on a model of segments, whose batch is one segment.

    Raises:
        MissingExtraError: torch is not installed. ConfigError: it has no such device.
        CheckpointError, StreamError: as `open_model` and `find_engine`.
    """

    def __init__(self, model: str, bandwidth: float, engine: str, device: str, batch: int) -> None:
        with needs_torch(f"the device {device}"):
            import torch

            from streaming_encodec.model.encodec import EncodecModel
        network = EncodecModel.from_pretrained(PUBLISHED.get(model, model))
        try:
            network = network.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"torch has no device {device!r} here: {one_line(error)}") from error
        self._config = network.config
        self._bandwidth = bandwidth
        self._pool: StreamPool | None = None
        self._alone: RecordingEncoder | None = None
        if network.config.streams_by_sample:
            from streaming_encodec.streaming.pool import StreamPool

            name = "fused" if engine == "auto" else engine
            self._pool = StreamPool(
                network,
                batch,
                "encoder",
                bandwidth,
                "exact",
                FRAMES_PER_STEP,
                max_pending_frames=2 * _MOST_PENDING,
                engine=name,
            )
        else:
            self._alone = RecordingEncoder(network, bandwidth, None)

    @property
    def arithmetic(self) -> str | None:
        """Which arithmetic makes its codes; None for the layers' own."""
        return None if self._pool is None else self._pool.engine.arithmetic

    def encode(
        self, recordings: Sequence[Recording], fail: Callable[[Recording, str], None]
    ) -> Iterator[tuple[Recording, Encoding]]:
        """The codes of recordings, in their order. Those that cannot be read go to `fail`."""
        done: dict[int, Encoding | None] = {}
        given = 0
        for place, result in self._results(recordings):
            done[place] = result if isinstance(result, Encoding) else None
            if isinstance(result, str):
                fail(recordings[place], result)
            while given in done:
                encoding = done.pop(given)
                if encoding is not None:
                    yield recordings[given], encoding
                given += 1

    def _results(self, recordings: Sequence[Recording]) -> Iterator[tuple[int, Encoding | str]]:
        if self._pool is None:
            yield from self._one_by_one(recordings)
            return
        waiting = sorted(range(len(recordings)), key=lambda place: (-_length(recordings[place]), place))
        running: dict[int, _Running] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._pool.slots:
                    place = waiting.pop(0)
                    running[self._pool.open()] = _Running(place, recordings[place], self._config)
                for slot, stream in list(running.items()):
                    result = self._feed(self._pool, slot, stream)
                    if result is not None:
                        del running[slot]
                        self._pool.close(slot)
                        yield stream.place, result
                for slot, codes in self._pool.tick().items():
                    running[slot].pieces.append(_plain(codes))
        finally:
            for slot in self._pool.open_slots:
                self._pool.close(slot)

    def _feed(self, pool: StreamPool, slot: int, stream: _Running) -> Encoding | str | None:
        """Push until the slot can tick; at the end of its sound, give the codes, and for one unreadable the error."""
        try:
            while slot not in pool.ready:
                block = next(stream.blocks, None)
                if block is None:
                    stream.pieces.append(_plain(pool.flush(slot)))
                    return stream.encoding(self._config.num_codebooks_for(self._bandwidth))
                stream.samples += block.shape[1]
                pool.push(slot, block)
        except (StreamingEncodecError, OSError) as error:
            return one_line(error)
        return None

    def _one_by_one(self, recordings: Sequence[Recording]) -> Iterator[tuple[int, Encoding | str]]:
        assert self._alone is not None
        for place, recording in enumerate(recordings):
            try:
                yield place, self._alone.encode(recording)
            except (StreamingEncodecError, OSError) as error:
                yield place, one_line(error)


class _Running:
    """A recording in a slot."""

    def __init__(self, place: int, recording: Recording, config: Any) -> None:
        self.place, self._config = place, config
        self.blocks: Iterator[Pcm] = Sounds(config).blocks(recording)
        self.pieces: list[EcdcBlock] = []
        self.samples = 0

    def encoding(self, num_codebooks: int) -> Encoding:
        return join_pieces(self.pieces, num_codebooks, self.samples, self._config)


def _plain(codes: Any) -> EcdcBlock:
    array = codes if isinstance(codes, np.ndarray) else codes.cpu().numpy()
    return EcdcBlock(array[0] if array.ndim == 3 else array, None)


def _length(recording: Recording) -> float:
    """Its length as far as it is known without decoding: seconds, or bytes where the list gives no duration."""
    if recording.duration_s is not None:
        return recording.duration_s
    if recording.member is not None:
        return float(recording.member.size)
    try:
        return float(Path(recording.audio).stat().st_size)
    except OSError:
        return 0.0
