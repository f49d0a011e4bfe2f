"""``StreamingDecoder``: codes in, samples out, a frame's sound the moment its codes are there."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.plain import plain_model
from streaming_encodec.stepping.checks import check_count, check_start
from streaming_encodec.stepping.direct import (
    PLAIN,
    ArrayQuantizer,
    ArrayStepper,
    Codes,
    Floats,
    advance,
    array_parts,
    joined,
    plain_codes,
)
from streaming_encodec.stepping.engine import EngineOrName, find_engine
from streaming_encodec.stepping.half import Half, HalfState, decoder_half
from streaming_encodec.stepping.silence import decoder_after_silence, silence_frames
from streaming_encodec.stepping.tree import StreamState
from streaming_encodec.streaming.io import Array, Form, take_codes, take_latent
from streaming_encodec.streaming.snapshot import portable, restore, snapshot, working

_MADE = ("_half", "_direct", "_like", "_together")
"""What is made anew from model and engine."""


class StreamingDecoder:
    """Decodes a stream of codes (or ``batch_size`` streams in step) as the offline model would decode the whole.

    Args:
        model: a model that streams by samples (others take ``SegmentDecoder``).
        start: ``"silence"`` as if the codes of ``silence_frames`` zero frames, with as many codebooks as the first
            frame has, went before; or ``"exact"`` as the offline model starts: the first sound after ``start_frames``.
        batch_size: streams in step.
        frames_per_step: frames that go through the network at once.
        engine: a name out of ``engines``, such as ``"fused"``, or an engine of this model that streams share.

    Raises:
        StreamError: the model cannot stream by samples, or a setting is out of range.
        MissingExtraError: the engine needs a package that is not installed.
    """

    def __init__(
        self,
        model: EncodecModel,
        start: str = "silence",
        batch_size: int = 1,
        frames_per_step: int = 1,
        engine: EngineOrName = "eager",
    ) -> None:
        self.model = model = plain_model(model)
        self.start = check_start(start)
        self.batch_size = check_count("batch_size", batch_size)
        self.engine = find_engine(engine, model)
        self._half = decoder_half(model, frames_per_step, self.engine.decoder)
        self._together: dict[int, Half] = {}  # the same with other frames_per_step
        self.reset()

    # -- the stream -----------------------------------------------------------------------------------------

    def push(self, codes: Array) -> Array:
        """Take codes, give the samples that they complete.

        Args:
            codes: whole numbers, torch or numpy [B, K, f], or numpy [K, f] for one stream; any f ≥ 0, and any K from
                1 to the model's: it may change from frame to frame, fewer codebooks sound coarser.

        Returns:
            Samples [B, C, n] in the model's dtype (numpy [C, n] for unbatched numpy), n ≥ 0.

        Raises:
            StreamError: wrong shape or dtype, or a code out of range. The stream is then as it was before.
        """
        if self._direct is not None and self._state.layers is not None:
            config = self.model.config
            plain = plain_codes(codes, config.num_quantizers, config.codebook_size)
            if plain is not None:
                return self._push_plain(plain, *self._direct)
        return self._push(codes)

    def push_together(self, codes: Array) -> Array:
        """As `push`, with all of ``codes``' frames in one step, however many they are.

        The weights go through the caches once for all of them. The samples are those of `push` but for rounding.
        """
        half, frames = self._half, max(1, codes.shape[-1])
        together = self._together.get(frames)
        if together is None:
            together = self._together[frames] = replace(half, frames_per_step=frames)
        self._half = together
        try:
            return self.push(codes)
        finally:
            self._half = half

    @torch.no_grad()
    def push_latent(self, latent: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Take latent frames [B, D, f] in place of codes: what concealment makes up for frames that were lost.

        ``num_codebooks`` only matters to a stream that starts with them, for the silence before it.

        Raises:
            StreamError: wrong shape, or values that no codes stand for. The stream is then as it was before.
        """
        taken = take_latent(latent, self.batch_size, self.model.config, self._like)
        return self._advance(taken, num_codebooks or self.model.config.num_quantizers)

    @torch.no_grad()
    def flush(self) -> Array:
        """End the stream: the samples still owed, in the form of the last push. The stream starts anew after it."""
        samples = self._half.finish(self._state)
        form = self._form
        self.reset()
        return form.give(self._join([] if samples is None else [samples]))

    def reset(self) -> None:
        """Forget everything decoded; settings stay."""
        self._form = Form()
        # Which silence went before shows with the first codes.
        self._state = self._half.begin(self.batch_size)

    # -- the state as a value -------------------------------------------------------------------------------

    def mark(self) -> HalfState:
        """Where the stream is, for `rewind` on this object: costs nothing, unlike `state`."""
        return self._state

    def rewind(self, mark: HalfState) -> None:
        """Go on from where `mark` was taken, as if nothing had been decoded since. Any mark, any number of times."""
        self._state = mark

    def state(self) -> StreamState:
        """A snapshot, which later pushes do not change."""
        return snapshot(self._half, self._state, "decoder", self.engine.fingerprint, self.start, 0)

    @torch.no_grad()
    def load_state(self, state: StreamState) -> None:
        """Go on from a snapshot. Raises ``StreamError`` where it is not of such a stream."""
        self._state = restore(self._half, state, "decoder", self.engine.fingerprint, self.batch_size)
        self.start = state.start

    # -- figures --------------------------------------------------------------------------------------------

    @property
    def frames_per_step(self) -> int:
        """Frames that go through the network at once."""
        return self._half.frames_per_step

    @property
    def delay_samples(self) -> int:
        """Samples by which the sound is late: trimmed transposed convolutions, lookahead, a step not yet full."""
        return self._half.delay_outputs + (self.frames_per_step - 1) * self._half.outputs_per_frame

    @property
    def start_frames(self) -> int:
        """Frames before the first sound."""
        return self._half.start_inputs if self.start == "exact" else self._half.step_inputs

    @property
    def silence_frames(self) -> int:
        """Frames of silence that ``start="silence"`` assumes before the stream."""
        return silence_frames(self.model)

    def warm_up(self, num_codebooks: int | None = None) -> None:
        """Run a step and forget it, so that the first real one is not the slow one."""
        before, form = self._state, self._form
        shape = (self.batch_size, num_codebooks or self.model.config.num_quantizers)
        for frames in (self._half.start_inputs, self._half.step_inputs):
            zeros = torch.zeros(*shape, frames, dtype=torch.int64)
            # The way that live frames go.
            self.push(zeros if self._direct is None else zeros[0].numpy())
        self._state, self._form = before, form

    # -- pickles and copies ---------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Model, settings and the stream as it is: in another process it goes on with the same output."""
        kept = {name: value for name, value in self.__dict__.items() if name not in _MADE}
        return kept | {"_state": portable(self._half, self._state), "_frames_per_step": self.frames_per_step}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        frames_per_step = kept["_frames_per_step"]
        self.__dict__.update({name: value for name, value in kept.items() if name != "_frames_per_step"})
        self._half = decoder_half(self.model, frames_per_step, self.engine.decoder)
        self._state = working(self._half, kept["_state"])
        self._together = {}

    # -- inside ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _push(self, codes: Array) -> Array:
        codes, form = take_codes(codes, self.batch_size, self.model.config, self._like)
        samples = self._advance(self.engine.quantizer.decode(codes), codes.shape[1])
        self._form = form
        return form.give(samples)

    def _push_plain(self, codes: Codes, stepper: ArrayStepper, quantizer: ArrayQuantizer) -> Floats:
        latent = quantizer.decode_array(codes)
        pieces, self._state = advance(stepper.step_array, self._half.step_inputs, self._state, latent)
        self._form = PLAIN
        return joined(pieces, self.model.config.audio_channels, np.float32)

    @cached_property
    def _direct(self) -> tuple[ArrayStepper, ArrayQuantizer] | None:
        return array_parts(self.engine.decoder, self.engine.quantizer, self.batch_size)

    def _advance(self, latent: Tensor, num_codebooks: int) -> Tensor:
        state = self._state
        if self.start == "silence" and state.layers is None and latent.shape[-1]:
            state = decoder_after_silence(self.engine, self._half, self.batch_size, num_codebooks)
        pieces, self._state = self._half.advance(state, latent)
        return self._join(pieces)

    def _join(self, pieces: list[Tensor]) -> Tensor:
        if len(pieces) == 1:
            return pieces[0].contiguous()
        empty = self._like.new_empty(self.batch_size, self.model.config.audio_channels, 0)
        return torch.cat([empty, *pieces], dim=-1)

    @cached_property
    def _like(self) -> Tensor:
        # Kept: to walk the modules at every push would cost more than a small model's quantiser.
        return next(self.model.parameters())
