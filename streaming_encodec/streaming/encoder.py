"""``StreamingEncoder``: samples in, codes out, a frame the moment it is complete."""

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
    plain_samples,
)
from streaming_encodec.stepping.engine import EngineOrName, find_engine
from streaming_encodec.stepping.half import HalfState, encoder_half
from streaming_encodec.stepping.silence import encoder_after_silence, silence_frames
from streaming_encodec.stepping.tree import StreamState
from streaming_encodec.streaming.io import Array, Form, take_samples
from streaming_encodec.streaming.snapshot import portable, restore, snapshot, working

_MADE = ("_half", "_direct", "_like")
"""What is made anew from model and engine."""


class StreamingEncoder:
    """Encodes a stream (or ``batch_size`` streams in step) as the offline model would encode the whole of it.

    Pushes of any size give the same codes, to the last bit: they depend on the samples alone.

    Args:
        model: a model that streams by samples (the 24 and 32 kHz ones; others take ``SegmentEncoder``).
        bandwidth: kbps, one of the model's ``target_bandwidths``; None is the lowest.
        start: ``"silence"`` as if ``silence_frames`` zero frames went before, the first code after one frame; or
            ``"exact"`` as the offline model starts, the first codes after ``start_samples``.
        batch_size: streams in step.
        frames_per_step: frames that go through the network at once; more cost less each and come later.
        engine: a name out of ``engines``, such as ``"fused"``, or an engine of this model that streams share.

    Raises:
        StreamError: the model cannot stream by samples, or a setting is out of range.
        MissingExtraError: the engine needs a package that is not installed.
        ConfigError: the bandwidth is not one of the model's.
    """

    def __init__(
        self,
        model: EncodecModel,
        bandwidth: float | None = 6.0,
        start: str = "silence",
        batch_size: int = 1,
        frames_per_step: int = 1,
        engine: EngineOrName = "eager",
    ) -> None:
        self.model = model = plain_model(model)
        self.start = check_start(start)
        self.batch_size = check_count("batch_size", batch_size)
        self.engine = find_engine(engine, model)
        self._half = encoder_half(model, frames_per_step, self.engine.encoder)
        self.bandwidth = bandwidth
        self._state: HalfState
        self.reset()

    # -- the stream -----------------------------------------------------------------------------------------

    def push(self, pcm: Array) -> Array:
        """Take samples, give the codes of the frames they complete.

        Args:
            pcm: torch or numpy [B, C, n], or for one stream numpy [C, n] or [n]; any n ≥ 0, floating point.

        Returns:
            Codes int64 [B, K, f], f ≥ 0 (numpy [K, f] for unbatched numpy), K the active codebooks.

        Raises:
            StreamError: wrong shape or dtype, NaN, infinity, or a sample beyond ±100 (40 dB above full scale): it
                would stay in the state for ever. The stream is then as it was before.
        """
        if self._direct is not None and self._state.layers is not None:
            samples = plain_samples(pcm, self._half.channels)
            if samples is not None:
                return self._push_plain(samples, *self._direct)
        return self._push(pcm)

    @torch.no_grad()
    def flush(self) -> Array:
        """End the stream: the codes still owed, in the form of the last push. The stream starts anew after it."""
        latent = self._half.finish(self._state)
        codes = self._quantise([] if latent is None else [latent])
        form = self._form
        self.reset()
        return form.give(codes)

    @torch.no_grad()
    def reset(self) -> None:
        """Forget everything heard; settings stay."""
        self._form = Form()
        self._state = self._fresh()

    # -- the state as a value -------------------------------------------------------------------------------

    def state(self) -> StreamState:
        """A snapshot, which later pushes do not change."""
        return snapshot(self._half, self._state, "encoder", self.engine.fingerprint, self.start, self._num_codebooks)

    @torch.no_grad()
    def load_state(self, state: StreamState) -> None:
        """Go on from a snapshot, with its bandwidth. Raises ``StreamError`` where it is not of such a stream."""
        most = self.model.config.num_quantizers
        self._state = restore(self._half, state, "encoder", self.engine.fingerprint, self.batch_size, most)
        self._num_codebooks = state.num_codebooks
        self.start = state.start

    # -- settings and figures -------------------------------------------------------------------------------

    @property
    def bandwidth(self) -> float:
        """Target bandwidth in kbps; set it at any time, it takes effect at the next frame."""
        config = self.model.config
        return next(b for b in config.target_bandwidths if config.num_codebooks_for(b) >= self._num_codebooks)

    @bandwidth.setter
    def bandwidth(self, kbps: float | None) -> None:
        self._num_codebooks = self.model.config.num_codebooks_for(kbps)

    @property
    def num_codebooks(self) -> int:
        """Active codebooks K."""
        return self._num_codebooks

    @property
    def frames_per_step(self) -> int:
        """Frames that go through the network at once."""
        return self._half.frames_per_step

    @property
    def delay_samples(self) -> int:
        """Samples that must follow a frame's own before its code comes: lookahead, and waiting for a full step."""
        return self._half.lookahead_inputs + (self.frames_per_step - 1) * self._half.inputs_per_frame

    @property
    def start_samples(self) -> int:
        """Samples before the first code."""
        if self.start == "exact":
            return self._half.start_inputs
        return self._half.step_inputs + self._half.lookahead_inputs

    @property
    def silence_frames(self) -> int:
        """Zero frames that ``start="silence"`` assumes before the stream."""
        return silence_frames(self.model)

    def warm_up(self) -> None:
        """Run a step and forget it, so that the first real one is not the slow one."""
        before, form = replace(self._state), self._form
        for inputs in (self._half.start_inputs, self._half.step_inputs):
            zeros = self._like.new_zeros(self.batch_size, self._half.channels, inputs)
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
        self._half = encoder_half(self.model, frames_per_step, self.engine.encoder)
        self._state = working(self._half, kept["_state"])

    # -- inside ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _push(self, pcm: Array) -> Array:
        samples, form = take_samples(pcm, self.batch_size, self.model.config, self._like)
        latents, self._state = self._half.advance(self._state, samples)
        self._form = form
        return form.give(self._quantise(latents))

    def _push_plain(self, samples: Floats, stepper: ArrayStepper, quantizer: ArrayQuantizer) -> Codes:
        latents, self._state = advance(stepper.step_array, self._half.step_inputs, self._state, samples)
        self._form = PLAIN
        codes = [quantizer.encode_array(latent, self._num_codebooks) for latent in latents]
        return joined(codes, self._num_codebooks, np.int64)

    @cached_property
    def _direct(self) -> tuple[ArrayStepper, ArrayQuantizer] | None:
        return array_parts(self.engine.encoder, self.engine.quantizer, self.batch_size)

    def _fresh(self) -> HalfState:
        if self.start == "exact":
            return self._half.begin(self.batch_size)
        return encoder_after_silence(self.engine, self._half, self.batch_size)

    def _quantise(self, latents: list[Tensor]) -> Tensor:
        # One piece at a time: equal shapes make equal bits.
        codes = [self.engine.quantizer.encode(latent, self._num_codebooks) for latent in latents]
        if len(codes) == 1:
            return codes[0].contiguous()
        empty = torch.empty(self.batch_size, self._num_codebooks, 0, dtype=torch.int64, device=self._like.device)
        return torch.cat([empty, *codes], dim=-1)

    @cached_property
    def _like(self) -> Tensor:
        # Kept: to walk the modules at every push would cost more than a small model's quantiser.
        return next(self.model.parameters())
