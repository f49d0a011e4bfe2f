"""What ``StreamingEncoder`` and ``StreamingDecoder`` share: a model, an engine, a stream's state, and its value."""

from __future__ import annotations

from typing import Any, ClassVar

from streaming_encodec.engines.registry import find_engine
from streaming_encodec.model.find import AnyModel
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.stepping.checks import check_count, check_start
from streaming_encodec.stepping.engine import Engine, EngineOrName
from streaming_encodec.stepping.half import Half, HalfState
from streaming_encodec.stepping.silence import silence_codes as codes_of_silence
from streaming_encodec.stepping.silence import silence_frames
from streaming_encodec.stepping.state import StreamState
from streaming_encodec.streaming.io import Form
from streaming_encodec.streaming.snapshot import portable, restore, snapshot, working
from streaming_encodec.types import AnyArray


class Stream:
    """One direction of a model over a stream, or over ``batch_size`` streams in step."""

    _kind: ClassVar[str]

    def __init__(
        self, model: AnyModel, start: str, batch_size: int, frames_per_step: int, engine: EngineOrName
    ) -> None:
        self.start = check_start(start)
        self.batch_size = check_count("batch_size", batch_size)
        self.engine = find_engine(engine, model)
        self.model, self.config = self.engine.model, self.engine.config
        self._half = self._make_half(self.engine, frames_per_step)
        self._state: HalfState
        self._form: Form

    # -- the state as a value -------------------------------------------------------------------------------

    def state(self) -> StreamState:
        """A snapshot, which later pushes do not change."""
        return snapshot(self.engine, self._half, self._state, self._kind, self.start, self._active_codebooks)

    def load_state(self, state: StreamState) -> None:
        """Continue from a snapshot, with its settings. Raises ``StreamError`` if it is not of such a stream."""
        self._state = restore(self.engine, self._half, state, self._kind, self.batch_size, self._most_codebooks)
        self.start = state.start

    def mark(self) -> HalfState:
        """The stream's position, for `rewind` on this object: costs nothing, unlike `state`."""
        return self._state

    def rewind(self, mark: HalfState) -> None:
        """Continue from a mark, as if nothing had been pushed since. Any mark, any number of times."""
        self._state = mark

    # -- figures --------------------------------------------------------------------------------------------

    @property
    def frames_per_step(self) -> int:
        """Frames that go through the network at once."""
        return self._half.frames_per_step

    @property
    def silence_frames(self) -> int:
        """Frames of silence that ``start="silence"`` assumes before the stream."""
        return silence_frames(self.config)

    # -- pickles and copies ---------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Model, settings and the stream's state: in another process it continues with the same output."""
        kept = {name: value for name, value in self.__dict__.items() if name != "_half"}
        return kept | {"_state": portable(self._half, self._state), "_frames_per_step": self.frames_per_step}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        frames_per_step = kept.pop("_frames_per_step")
        self.__dict__.update(kept)
        self._half = self._make_half(self.engine, frames_per_step)
        self._state = working(self._half, kept["_state"])

    # -- inside ---------------------------------------------------------------------------------------------

    _active_codebooks = 0
    """Of an encoder."""

    def _make_half(self, engine: Engine, frames_per_step: int) -> Half:
        raise NotImplementedError

    @property
    def _most_codebooks(self) -> int:
        return 0

    def _first_form(self) -> Form:
        """The form of what comes out before anything went in."""
        if isinstance(self.model, ModelFolder):
            return Form(is_numpy=True, batched=self.batch_size > 1)
        return Form(is_numpy=False)


def silence_codes(model: AnyModel, num_codebooks: int, engine: EngineOrName = "auto") -> AnyArray:
    """The codes [1, K, silence_frames] of the silence before a model's streams: tensors for a model of torch."""
    computing = find_engine(engine, model)
    codes = codes_of_silence(computing, num_codebooks)
    form = Form(is_numpy=isinstance(computing.model, ModelFolder))
    return form.give(computing.arrays.codes(codes).copy() if computing.is_numpy else codes.clone())
