"""``StreamingEncoder``: samples in, codes out, a frame the moment it is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.model.find import AnyModel
from streaming_encodec.stepping.arrays import joined
from streaming_encodec.stepping.engine import Engine, EngineOrName
from streaming_encodec.stepping.half import Half, HalfState, encoder_half
from streaming_encodec.stepping.silence import encoder_after_silence
from streaming_encodec.stepping.state import StreamState
from streaming_encodec.streaming.io import take_samples
from streaming_encodec.streaming.stream import Stream
from streaming_encodec.types import AnyArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor


class StreamingEncoder(Stream):
    """Encodes a stream (or a batch of ``batch_size`` streams) as the offline model would encode the whole sound.

    Pushes of any size give the same codes, to the last bit: they depend on the samples alone.

    Args:
        model: a model that streams by samples (the 24 and 32 kHz ones; others take ``SegmentEncoder``), or its name.
        bandwidth: kbps, one of the model's ``target_bandwidths``; None is the nearest to 6.
        start: ``"silence"`` as if ``silence_frames`` zero frames went before, the first code after one frame; or
            ``"exact"`` as the offline model starts, the first codes after ``start_samples``.
        batch_size: streams in step.
        frames_per_step: frames that go through the network at once; more cost less each and come later.
        engine: a name out of ``engines``, or an engine of this model that streams share.

    Raises:
        StreamError: the model cannot stream by samples, or a setting is out of range.
        MissingExtraError: the engine needs a package that is not installed.
        ConfigError: the bandwidth is not one of the model's.
    """

    _kind = "encoder"

    def __init__(
        self,
        model: AnyModel,
        bandwidth: float | None = None,
        start: str = "silence",
        batch_size: int = 1,
        frames_per_step: int = 1,
        engine: EngineOrName = "auto",
    ) -> None:
        super().__init__(model, start, batch_size, frames_per_step, engine)
        self.bandwidth = bandwidth
        self.reset()

    # -- the stream -----------------------------------------------------------------------------------------

    @overload
    def push(self, pcm: Tensor) -> Tensor: ...
    @overload
    def push(self, pcm: NDArray[Any]) -> IntArray: ...
    def push(self, pcm: AnyArray) -> AnyArray:
        """Encode samples; returns the codes of the frames that they complete.

        Args:
            pcm: torch or numpy [B, C, n], or for one stream numpy [C, n] or [n]; any n ≥ 0, floating point. Any object
                with a buffer that says its type counts as numpy.

        Returns:
            IntArray int64 [B, K, f], f ≥ 0 (numpy [K, f] for unbatched numpy), K the active codebooks.

        Raises:
            StreamError: wrong shape or dtype, NaN, infinity, or a sample beyond ±100 (40 dB above full scale): it
                would stay in the state for ever. The stream is then as it was before.
        """
        samples, form = take_samples(pcm, self.batch_size, self.config, self.engine.arrays)
        latents, self._state = self._half.advance(self._state, samples)
        self._form = form
        return form.give(self._quantise(latents))

    def flush(self) -> AnyArray:
        """End the stream: returns the remaining codes, in the form of the last push. A new stream begins after it."""
        latent = self._half.finish(self._state)
        codes = self._quantise([] if latent is None else [latent])
        form = self._form
        self.reset()
        return form.give(codes)

    def reset(self) -> None:
        """Start a new stream; settings stay."""
        self._form = self._first_form()
        self._state = self._fresh()

    def load_state(self, state: StreamState) -> None:
        """Continue from a snapshot, with its bandwidth. Raises ``StreamError`` if it is not of such a stream."""
        super().load_state(state)
        self._active_codebooks = state.num_codebooks

    # -- settings and figures -------------------------------------------------------------------------------

    @property
    def bandwidth(self) -> float:
        """Target bandwidth in kbps; set it at any time, it takes effect at the next frame. None is the nearest to 6."""
        config = self.config
        return next(b for b in config.target_bandwidths if config.num_codebooks_for(b) >= self._active_codebooks)

    @bandwidth.setter
    def bandwidth(self, kbps: float | None) -> None:
        config = self.config
        self._active_codebooks = config.num_codebooks_for(config.usual_bandwidth if kbps is None else kbps)

    @property
    def num_codebooks(self) -> int:
        """Active codebooks K."""
        return self._active_codebooks

    @property
    def delay_samples(self) -> int:
        """Samples that must follow a frame's own before its code comes: lookahead, and waiting for a full step."""
        return self._half.timing.lookahead_inputs + (self.frames_per_step - 1) * self._half.inputs_per_frame

    @property
    def start_samples(self) -> int:
        """Samples before the first code."""
        if self.start == "exact":
            return self._half.start_inputs
        return self._half.step_inputs + self._half.timing.lookahead_inputs

    def warm_up(self) -> None:
        """Run one step and discard it, so that the first real step is not slow."""
        before, form = self._state, self._form
        for inputs in (self._half.start_inputs, self._half.step_inputs):
            self.push(np.zeros((self.batch_size, self._half.channels, inputs), np.float32))
        self._state, self._form = before, form

    # -- inside ---------------------------------------------------------------------------------------------

    def _make_half(self, engine: Engine, frames_per_step: int) -> Half:
        return encoder_half(engine, frames_per_step)

    @property
    def _most_codebooks(self) -> int:
        return self.config.num_quantizers

    def _fresh(self) -> HalfState:
        if self.start == "exact":
            return self._half.begin(self.batch_size)
        return encoder_after_silence(self.engine, self._half, self.batch_size)

    def _quantise(self, latents: list[AnyArray]) -> AnyArray:
        # One piece at a time: equal shapes make equal bits.
        books = self._active_codebooks
        codes = [self.engine.quantizer.encode(latent, books) for latent in latents]
        return joined(self.engine.arrays, codes, self.engine.arrays.no_codes(self.batch_size, books))
