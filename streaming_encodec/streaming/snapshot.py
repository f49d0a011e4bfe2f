"""Between a stream's working state and its snapshot."""

from __future__ import annotations

from dataclasses import replace

from streaming_encodec.errors import StreamError
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.stepping.arrays import as_numpy, as_tensor
from streaming_encodec.stepping.checks import check_start
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.stepping.half import Half, HalfState
from streaming_encodec.stepping.state import StreamState
from streaming_encodec.stepping.tree import map_arrays, named_arrays, unflatten


def snapshot(engine: Engine, half: Half, state: HalfState, kind: str, start: str, num_codebooks: int) -> StreamState:
    """The value of a working state, sharing no memory with it; in tensors for a model of torch, else in numpy."""
    arrays = {"pending": state.pending}
    if state.layers is not None:
        arrays |= dict(named_arrays(half.stepper.leave(state.layers), "layers"))
    given = as_numpy if isinstance(engine.model, ModelFolder) else as_tensor
    return StreamState(
        kind=kind,
        model=engine.fingerprint,
        start=start,
        frames_per_step=half.frames_per_step,
        num_codebooks=num_codebooks,
        skip=state.skip,
        started=state.layers is not None,
        tensors={name: given(half.arrays.copy(array)) for name, array in arrays.items()},
    )


def portable(half: Half, state: HalfState) -> HalfState:
    """A working state as the layers have it, for a pickle or a copy: engines keep theirs in memory of their own."""
    layers = None if state.layers is None else map_arrays(half.arrays.copy, half.stepper.leave(state.layers))
    return replace(state, pending=half.arrays.copy(state.pending), layers=layers)


def working(half: Half, state: HalfState) -> HalfState:
    """Back from ``portable``."""
    return state if state.layers is None else replace(state, layers=half.stepper.enter(state.layers))


def restore(
    engine: Engine, half: Half, state: StreamState, kind: str, batch: int, most_codebooks: int = 0
) -> HalfState:
    """The working state of a snapshot. Raises ``StreamError`` where no such stream can go on from it.

    ``most_codebooks``: that an encoder may have active; a decoder has none of its own.
    """
    if not isinstance(state, StreamState):
        raise StreamError(f"pass what state() gave or StreamState.load read, not {type(state).__name__}")
    if state.kind != kind:
        raise StreamError(f"this is the state of a streaming {state.kind}, not of a streaming {kind}")
    check_start(state.start)
    if state.model != engine.fingerprint:
        raise StreamError(f"the state belongs to another model ({state.model}, this one is {engine.fingerprint})")
    if state.frames_per_step != half.frames_per_step:
        raise StreamError(
            f"the state was taken at {state.frames_per_step} frames per step, this stream runs at"
            f" {half.frames_per_step}: make a stream with frames_per_step={state.frames_per_step}"
        )
    state.check()
    if state.num_codebooks > most_codebooks:
        raise StreamError(f"the state has {state.num_codebooks} codebooks, this stream takes {most_codebooks} at most")
    if state.skip > half.most_skip:
        raise StreamError(f"the state drops {state.skip} outputs, no stream drops more than {half.most_skip}")
    if state.batch_size != batch:
        raise StreamError(f"the state holds {state.batch_size} streams, this object {batch}")
    pending = state.tensors["pending"]
    if pending.ndim != 3 or pending.shape[1] != half.channels:
        raise StreamError(f"the state's pending inputs are {list(pending.shape)}, not [{batch}, {half.channels}, n]")
    layers = None
    if state.started:
        like = half.stepper.zero_state(batch)
        known = {name for name, _ in named_arrays(like, "layers")} | {"pending"}
        if odd := sorted(state.tensors.keys() - known):
            raise StreamError(f"the state's {odd[0]} is none of this stream's")
        layers = half.stepper.enter(map_arrays(half.arrays.copy, unflatten(state.tensors, like, "layers")))
    return HalfState(half.arrays.copy(pending), layers, state.skip)
