"""One direction of the codec as pure functions over a state: the laws live here, the façades only hold the state.

A *half* is the encoder (inputs are samples, outputs latent frames) or the decoder (the other way round). A stream
goes through three phases:

1. start: inputs wait until every layer's left padding is decided (``start_inputs``), then go through ``start`` at
   once. A stream that starts in silence skips this phase: it takes the state that silence leaves behind.
2. steady: exactly ``step_inputs`` inputs at a time go through the stepper, whatever the caller's blocks were. Equal
   shapes make equal bits: that is why the output cannot depend on how the samples were cut.
3. finish: what is left goes through ``flush`` with the offline model's right padding; a stream that ends before it
   started goes through ``whole``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streaming_encodec.errors import StreamError
from streaming_encodec.model.architecture import Timing, decoder_timing, encoder_timing
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.stepping.arrays import Arrays
from streaming_encodec.stepping.checks import check_count
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.stepping.stepper import Stepper
from streaming_encodec.types import AnyArray


@dataclass(frozen=True, slots=True)
class HalfState:
    """Everything a stream remembers between two calls."""

    pending: AnyArray  # [B, C, n]: inputs that do not yet fill a step
    layers: Any | None  # the stepper's state; None before the stream has started
    skip: int = 0  # outputs that still belong to the silence before the stream


@dataclass(frozen=True)
class Half:
    """One direction of a model, ready to stream."""

    stepper: Stepper
    arrays: Arrays
    timing: Timing
    channels: int  # of the input
    inputs_per_frame: int
    outputs_per_frame: int
    frames_per_step: int

    @property
    def step_inputs(self) -> int:
        """Inputs of one steady step."""
        return self.frames_per_step * self.inputs_per_frame

    @property
    def start_inputs(self) -> int:
        """Inputs before the first output of a stream with the offline model's own start."""
        return self.timing.start_inputs

    @property
    def most_skip(self) -> int:
        """The most outputs that the silence before a stream can still produce, which the stream drops."""
        frames = -(-self.start_inputs // self.inputs_per_frame) + 1
        return frames * self.outputs_per_frame + self.timing.delay_outputs

    def begin(self, batch: int) -> HalfState:
        """A stream with the offline model's own start."""
        return HalfState(self.arrays.zeros(batch, self.channels, 0), None)

    def advance(self, state: HalfState, x: AnyArray, frames: int | None = None) -> tuple[list[AnyArray], HalfState]:
        """Take inputs [B, C, n], any n ≥ 0; give the outputs that became complete, a piece for each step.

        ``frames``: that go through in a step, where that is another number than ``frames_per_step``.
        """
        size = (frames or self.frames_per_step) * self.inputs_per_frame
        layers, pieces, used = state.layers, [], 0
        if layers is not None and x.shape[-1] == size and not state.pending.shape[-1] and not state.skip:
            # A live stream in step with its source: what follows, without its copies.
            y, layers = self.stepper.step(x, layers)
            return [y], HalfState(state.pending, layers)
        pending = self.arrays.join((state.pending, x)) if state.pending.shape[-1] else x
        if layers is None and pending.shape[-1] >= self.start_inputs:
            used = self.start_inputs
            y, layers = self.stepper.start(pending[..., :used])
            pieces.append(y)
        if layers is not None:
            while pending.shape[-1] - used >= size:
                y, layers = self.stepper.step(pending[..., used : used + size], layers)
                used += size
                pieces.append(y)
        pieces, skip = _drop(pieces, state.skip)
        # The copy keeps neither the caller's array nor a long chunk alive.
        return pieces, HalfState(self.arrays.copy(pending[..., used:]), layers, skip)

    def finish(self, state: HalfState) -> AnyArray | None:
        """The outputs still owed at the end of the stream; None where nothing was ever pushed."""
        if state.layers is not None:
            y = self.stepper.flush(state.pending, state.layers)
        elif state.pending.shape[-1]:
            y = self.stepper.whole(state.pending)
        else:
            return None
        return y[..., min(state.skip, y.shape[-1]) :]

    def after(self, inputs: AnyArray) -> HalfState:
        """The state after these inputs (at least ``start_inputs``), gone through in two steps.

        For the silence before a stream, whose outputs nobody hears: those not yet given out become ``skip``.
        """
        y, layers = self.stepper.start(inputs[..., : self.start_inputs])
        given = y.shape[-1]
        rest = inputs[..., self.start_inputs :]
        whole = rest.shape[-1] - rest.shape[-1] % self.inputs_per_frame
        if whole:
            y, layers = self.stepper.step(rest[..., :whole], layers)
            given += y.shape[-1]
        owed = -(-inputs.shape[-1] // self.inputs_per_frame) * self.outputs_per_frame
        return HalfState(self.arrays.copy(rest[..., whole:]), layers, owed - given)


def encoder_half(engine: Engine, frames_per_step: int = 1) -> Half:
    """The encoder of an engine's model. Raises ``StreamError`` where it cannot stream by samples."""
    config = engine.config
    frames_per_step = check_streams(config, frames_per_step)
    sizes = (config.audio_channels, config.hop_length, 1)
    return Half(engine.encoder, engine.arrays, encoder_timing(config), *sizes, frames_per_step)


def decoder_half(engine: Engine, frames_per_step: int = 1) -> Half:
    """The decoder; its inputs are latent frames [B, D, f]."""
    config = engine.config
    frames_per_step = check_streams(config, frames_per_step)
    sizes = (config.hidden_size, 1, config.hop_length)
    return Half(engine.decoder, engine.arrays, decoder_timing(config), *sizes, frames_per_step)


def check_streams(config: EncodecConfig, frames_per_step: int = 1) -> int:
    """``frames_per_step``; ``StreamError`` with the class to use instead where a model cannot stream by samples."""
    frames_per_step = check_count("frames_per_step", frames_per_step)
    if config.chunk_length is not None:
        raise StreamError(
            f"this model works on segments of {config.chunk_length_s:g} s and cannot stream by samples:"
            " use SegmentEncoder and SegmentDecoder"
        )
    if not config.streams_by_sample:
        raise StreamError(
            "this model normalises over its whole input and has no segments (chunk_length_s is not set):"
            " it cannot stream, use EncodecModel.encode and decode"
        )
    if config.pad_mode == "circular":
        raise StreamError(
            "pad_mode 'circular' takes the end of the input for its beginning: it cannot stream,"
            " use EncodecModel.encode and decode"
        )
    return frames_per_step


def _drop(pieces: list[AnyArray], skip: int) -> tuple[list[AnyArray], int]:
    kept = []
    for piece in pieces:
        cut = min(skip, piece.shape[-1])
        skip -= cut
        if cut < piece.shape[-1]:
            kept.append(piece[..., cut:])
    return kept, skip
