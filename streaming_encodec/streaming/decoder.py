"""``StreamingDecoder``: codes in, samples out, a frame's sound the moment its codes are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.model.find import AnyModel
from streaming_encodec.stepping.arrays import joined
from streaming_encodec.stepping.engine import Engine, EngineOrName
from streaming_encodec.stepping.half import Half, decoder_half
from streaming_encodec.stepping.silence import decoder_after_silence
from streaming_encodec.streaming.io import Form, take_codes, take_latent
from streaming_encodec.streaming.stream import Stream
from streaming_encodec.types import AnyArray, Floats

if TYPE_CHECKING:
    from torch import Tensor


class StreamingDecoder(Stream):
    """Decodes a stream of codes (or a batch of ``batch_size`` streams) as the offline model would decode all of them.

    Args:
        model: a model that streams by samples (others take ``SegmentDecoder``), or its name.
        start: ``"silence"`` as if the codes of ``silence_frames`` zero frames, with as many codebooks as the first
            frame has, went before; or ``"exact"`` as the offline model starts: the first sound after ``start_frames``.
        batch_size: streams in step.
        frames_per_step: frames that go through the network at once.
        engine: a name out of ``engines``, or an engine of this model that streams share.

    Raises:
        StreamError: the model cannot stream by samples, or a setting is out of range.
        MissingExtraError: the engine needs a package that is not installed.
    """

    _kind = "decoder"

    def __init__(
        self,
        model: AnyModel,
        start: str = "silence",
        batch_size: int = 1,
        frames_per_step: int = 1,
        engine: EngineOrName = "auto",
    ) -> None:
        super().__init__(model, start, batch_size, frames_per_step, engine)
        self.reset()

    # -- the stream -----------------------------------------------------------------------------------------

    @overload
    def push(self, codes: Tensor) -> Tensor: ...
    @overload
    def push(self, codes: NDArray[Any]) -> Floats: ...
    def push(self, codes: AnyArray) -> AnyArray:
        """Decode codes; returns the samples that they complete.

        Args:
            codes: whole numbers, torch or numpy [B, K, f], or numpy [K, f] for one stream; any f ≥ 0, and any K from
                1 to the model's: it may change from frame to frame, fewer codebooks sound coarser.

        Returns:
            Samples [B, C, n] in the model's dtype (numpy [C, n] for unbatched numpy), n ≥ 0.

        Raises:
            StreamError: wrong shape or dtype, or a code out of range. The stream is then as it was before.
        """
        return self._push(codes, None)

    @overload
    def push_together(self, codes: Tensor) -> Tensor: ...
    @overload
    def push_together(self, codes: NDArray[Any]) -> Floats: ...
    def push_together(self, codes: AnyArray) -> AnyArray:
        """As `push`, with all of ``codes``' frames in one step, however many they are.

        The weights go through the caches once for all of them. The samples are those of `push` but for rounding.
        """
        return self._push(codes, max(1, codes.shape[-1]))

    @overload
    def push_latent(self, latent: Tensor, num_codebooks: int | None = None) -> Tensor: ...
    @overload
    def push_latent(self, latent: NDArray[Any], num_codebooks: int | None = None) -> Floats: ...
    def push_latent(self, latent: AnyArray, num_codebooks: int | None = None) -> AnyArray:
        """Take latent frames [B, D, f] (numpy [D, f] for one stream) in place of codes, as concealment makes them up.

        ``num_codebooks`` only matters to a stream that starts with them, for the silence before it.

        Raises:
            StreamError: wrong shape, or values that no codes stand for. The stream is then as it was before.
        """
        taken, form = take_latent(latent, self.batch_size, self.config, self.engine.arrays)
        return form.give(self._advance(taken, num_codebooks or self.config.num_quantizers))

    def flush(self) -> AnyArray:
        """End the stream: returns the remaining samples, in the form of the last push. A new stream begins after it."""
        samples = self._half.finish(self._state)
        form = self._form
        self.reset()
        return form.give(self._joined([] if samples is None else [samples]))

    def reset(self) -> None:
        """Start a new stream; settings stay."""
        self._form: Form = self._first_form()
        # Which silence went before shows with the first codes.
        self._state = self._half.begin(self.batch_size)

    # -- figures --------------------------------------------------------------------------------------------

    @property
    def delay_samples(self) -> int:
        """Samples by which the sound is late: trimmed transposed convolutions, lookahead, a step not yet full."""
        return self._half.timing.delay_outputs + (self.frames_per_step - 1) * self._half.outputs_per_frame

    @property
    def start_frames(self) -> int:
        """Frames before the first sound."""
        return self._half.start_inputs if self.start == "exact" else self._half.step_inputs

    def warm_up(self, num_codebooks: int | None = None) -> None:
        """Run one step and discard it, so that the first real step is not slow."""
        before, form = self._state, self._form
        shape = (self.batch_size, num_codebooks or self.config.num_quantizers)
        for frames in (self._half.start_inputs, self._half.step_inputs):
            self.push(np.zeros((*shape, frames), np.int64))
        self._state, self._form = before, form

    # -- inside ---------------------------------------------------------------------------------------------

    def _make_half(self, engine: Engine, frames_per_step: int) -> Half:
        return decoder_half(engine, frames_per_step)

    def _push(self, codes: AnyArray, frames: int | None) -> AnyArray:
        taken, form = take_codes(codes, self.batch_size, self.config, self.engine.arrays)
        samples = self._advance(self.engine.quantizer.decode(taken), taken.shape[1], frames)
        self._form = form
        return form.give(samples)

    def _advance(self, latent: AnyArray, num_codebooks: int, frames: int | None = None) -> AnyArray:
        state = self._state
        if self.start == "silence" and state.layers is None and latent.shape[-1]:
            state = decoder_after_silence(self.engine, self._half, self.batch_size, num_codebooks)
        pieces, self._state = self._half.advance(state, latent, frames)
        return self._joined(pieces)

    def _joined(self, pieces: list[AnyArray]) -> AnyArray:
        return joined(
            self.engine.arrays, pieces, self.engine.arrays.zeros(self.batch_size, self.config.audio_channels, 0)
        )
