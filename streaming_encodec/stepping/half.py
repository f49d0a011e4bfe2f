"""One direction of the codec as pure functions over a state: the laws live here, the façades only hold the state.

A *half* is the encoder (inputs are samples, outputs latent frames) or the decoder (the other way round). A stream
goes through three phases:

1. start: inputs wait until every layer's left padding is decided (``start_inputs``), then go through ``start`` at
   once. A stream that starts in silence skips this phase: it takes the state that silence leaves behind.
2. steady: exactly ``step_inputs`` inputs at a time go through the stepper, whatever the caller's blocks were. Equal
   shapes make equal bits: that is why the output cannot depend on how the samples were cut.
3. finish: what is left goes through ``flush`` with the offline model's right padding; a stream that ends before it
   started is the offline model's business altogether.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.layers import State
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.stepping.checks import check_count

# No EnCodec needs more frames than this before its paddings are decided; a search that gets here is a bug.
_MOST_START_FRAMES = 100_000


class Stepper(Protocol):
    """A way to run the steady step. Engines keep their own state; ``enter`` and ``leave`` translate it."""

    def enter(self, layers: State) -> Any:
        """The stepper's state for the reference state of the layers; must not keep or change that one."""
        ...

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """``frames_per_step`` frames' inputs → their outputs and the state after them."""
        ...

    def leave(self, state: Any) -> State:
        """The reference state for the stepper's one; must not share memory with it."""
        ...


@runtime_checkable
class PhasedStepper(Stepper, Protocol):
    """A ``Stepper`` that computes a stream's start and end too. Others leave them to the layers."""

    def start(self, x: Tensor) -> tuple[Tensor, Any]:
        """The first inputs, as ``StreamableStack.start``, and the stepper's state after them."""
        ...

    def flush(self, x: Tensor, state: Any) -> Tensor:
        """The last inputs, as ``StreamableStack.flush``."""
        ...


class ReferenceStepper:
    """The layers' own ``step``: never changes a tensor in place, so its state is a value as it is."""

    def __init__(self, stack: StreamableStack) -> None:
        self.step = stack.step

    def enter(self, layers: State) -> State:
        return layers

    def leave(self, state: State) -> State:
        return state


@dataclass(frozen=True)
class HalfState:
    """Everything a stream remembers between two calls."""

    pending: Tensor  # [B, C, n]: inputs that do not yet fill a step
    layers: Any | None  # the stepper's state; None before the stream has started
    skip: int = 0  # outputs that still belong to the silence before the stream


@dataclass(frozen=True)
class Half:
    """One direction of a model, ready to stream."""

    stack: StreamableStack
    stepper: Stepper
    channels: int  # of the input
    inputs_per_frame: int
    outputs_per_frame: int
    frames_per_step: int
    start_inputs: int
    lookahead_inputs: int  # inputs beyond a frame's own that the steady stream waits for
    delay_outputs: int  # outputs that the steady stream is late (transposed convs trimmed on the left)

    @property
    def step_inputs(self) -> int:
        """Inputs of one steady step."""
        return self.frames_per_step * self.inputs_per_frame

    @property
    def most_skip(self) -> int:
        """Outputs that the silence before a stream can owe, and so the most that a stream has to drop."""
        frames = -(-self.start_inputs // self.inputs_per_frame) + 1
        return frames * self.outputs_per_frame + self.delay_outputs

    def begin(self, batch: int) -> HalfState:
        """A stream with the offline model's own start."""
        return HalfState(next(self.stack.parameters()).new_zeros(batch, self.channels, 0), None)

    def advance(self, state: HalfState, x: Tensor) -> tuple[list[Tensor], HalfState]:
        """Take inputs [B, C, n], any n ≥ 0; give the outputs that became complete, a piece for each step."""
        layers, pieces, used = state.layers, [], 0
        if layers is not None and x.shape[-1] == self.step_inputs and not state.pending.shape[-1] and not state.skip:
            # A live stream in step with its source: what follows, without its copies.
            y, layers = self.stepper.step(x, layers)
            return [y], HalfState(state.pending, layers)
        pending = torch.cat((state.pending, x), dim=-1)
        if layers is None and pending.shape[-1] >= self.start_inputs:
            used = self.start_inputs
            y, layers = self.start(pending[..., :used])
            pieces.append(y)
        if layers is not None:
            while pending.shape[-1] - used >= self.step_inputs:
                y, layers = self.stepper.step(pending[..., used : used + self.step_inputs], layers)
                used += self.step_inputs
                pieces.append(y)
        pieces, skip = _drop(pieces, state.skip)
        # The copy keeps neither the caller's array nor a long chunk alive.
        return pieces, HalfState(pending[..., used:].clone(), layers, skip)

    def finish(self, state: HalfState) -> Tensor | None:
        """The outputs still owed at the end of the stream; None where nothing was ever pushed."""
        if state.layers is not None:
            y = self._flush(state.pending, state.layers)
        elif state.pending.shape[-1]:
            y = self.stack(state.pending)
        else:
            return None
        return y[..., min(state.skip, y.shape[-1]) :]

    def start(self, x: Tensor) -> tuple[Tensor, Any]:
        """``start_inputs`` inputs with the offline model's left padding; and the stepper's state after them."""
        if isinstance(self.stepper, PhasedStepper):
            return self.stepper.start(x)
        y, reference = self.stack.start(x)
        return y, self.stepper.enter(reference)

    def _flush(self, x: Tensor, layers: Any) -> Tensor:
        if isinstance(self.stepper, PhasedStepper):
            return self.stepper.flush(x, layers)
        return self.stack.flush(x, self.stepper.leave(layers))

    def after(self, inputs: Tensor) -> HalfState:
        """The state after these inputs (at least ``start_inputs``), gone through in two steps.

        For the silence before a stream, whose outputs nobody hears: those not yet given out become ``skip``.
        """
        y, layers = self.start(inputs[..., : self.start_inputs])
        given = y.shape[-1]
        rest = inputs[..., self.start_inputs :]
        whole = rest.shape[-1] - rest.shape[-1] % self.inputs_per_frame
        if whole:
            y, layers = self.stepper.step(rest[..., :whole], layers)
            given += y.shape[-1]
        owed = -(-inputs.shape[-1] // self.inputs_per_frame) * self.outputs_per_frame
        return HalfState(rest[..., whole:].clone(), layers, owed - given)


def encoder_half(model: EncodecModel, frames_per_step: int = 1, stepper: Stepper | None = None) -> Half:
    """The encoder of ``model`` as a half. Raises ``StreamError`` where it cannot stream by samples."""
    frames_per_step = check_streams(model, frames_per_step)
    hop, lookahead = model.config.hop_length, model.encoder.lookahead_samples
    frames = next(
        frames
        for frames in range(1, _MOST_START_FRAMES)
        if model.encoder.start_outputs(lookahead + frames * hop) is not None
    )
    return Half(
        stack=model.encoder,
        stepper=stepper or ReferenceStepper(model.encoder),
        channels=model.config.audio_channels,
        inputs_per_frame=hop,
        outputs_per_frame=1,
        frames_per_step=frames_per_step,
        start_inputs=lookahead + frames * hop,
        lookahead_inputs=lookahead,
        delay_outputs=0,
    )


def decoder_half(model: EncodecModel, frames_per_step: int = 1, stepper: Stepper | None = None) -> Half:
    """The decoder of ``model`` as a half; its inputs are latent frames [B, D, f]."""
    frames_per_step = check_streams(model, frames_per_step)
    hop = model.config.hop_length
    frames, outputs = next(
        (frames, outputs)
        for frames in range(1, _MOST_START_FRAMES)
        if (outputs := model.decoder.start_outputs(frames)) is not None
    )
    return Half(
        stack=model.decoder,
        stepper=stepper or ReferenceStepper(model.decoder),
        channels=model.config.hidden_size,
        inputs_per_frame=1,
        outputs_per_frame=hop,
        frames_per_step=frames_per_step,
        start_inputs=frames,
        lookahead_inputs=0,
        delay_outputs=frames * hop - outputs,
    )


def check_streams(model: EncodecModel, frames_per_step: int = 1) -> int:
    """``frames_per_step``; ``StreamError`` with the class to use instead where a model cannot stream by samples."""
    config = model.config
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


def _drop(pieces: list[Tensor], skip: int) -> tuple[list[Tensor], int]:
    kept = []
    for piece in pieces:
        cut = min(skip, piece.shape[-1])
        skip -= cut
        if cut < piece.shape[-1]:
            kept.append(piece[..., cut:])
    return kept, skip
