"""One stream's steps in ONNX Runtime without a copy that is not needed.

A *track* owns everything that a stream's step reads and writes: input, output, and the state twice, as two
*sides*. A step reads one side and writes the other; the runtime is told the addresses once. That a state is a
value (law 4) nevertheless holds: a side whose state somebody still has is never written to, another track is
taken instead.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from streaming_encodec.engines.onnx.session import Session
from streaming_encodec.types import Floats

# Tracks kept for streams to come, for each number of inputs; those beyond go with their stream.
_MOST_KEPT = 4


class SingleState:
    """A state that lies in a track; as a sequence, copies of its arrays, [1, ...] as the layers' are."""

    __slots__ = ("__weakref__", "side", "track")

    def __init__(self, track: _Track, side: int) -> None:
        self.track, self.side = track, side

    def __len__(self) -> int:
        return len(self.track.states[self.side])

    def __iter__(self) -> Iterator[Floats]:
        for array, shape in zip(self.track.states[self.side], self.track.shapes, strict=True):
            yield array.reshape(1, *shape).copy()


States: TypeAlias = tuple[Floats, ...] | SingleState


class _Track:
    """Memory for a stream's steps, and the session's bindings to it."""

    def __init__(self, session: Session, shapes: Sequence[tuple[int, ...]]) -> None:
        self.session, self.shapes = session, shapes
        first, *states = session.get_inputs()
        last, *afters = session.get_outputs()
        self.input, self.output = (np.zeros(value.shape, np.float32) for value in (first, last))
        # The state is the end of what the graph gives out.
        wholes = [[np.zeros(value.shape, np.float32) for value in afters] for _ in range(2)]
        self.states = [
            [whole[len(whole) - state.shape[0] :] for whole, state in zip(side, states, strict=True)] for side in wholes
        ]
        self.lock = threading.Lock()
        self._users: Sequence[Callable[[], SingleState | None]] = (_nobody, _nobody)
        self.bindings = []
        for side in range(2):
            binding = session.io_binding()
            feeds = [(first, self.input), *zip(states, self.states[side], strict=True)]
            results = [(last, self.output), *zip(afters, wholes[1 - side], strict=True)]
            for bind, pairs in ((binding.bind_input, feeds), (binding.bind_output, results)):
                for value, array in pairs:
                    bind(value.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self.bindings.append(binding)
        self._wholes = wholes  # the bindings know addresses only

    def begin(self) -> tuple[SingleState, SingleState]:
        """The states of both sides of a track that is new."""
        states = SingleState(self, 0), SingleState(self, 1)
        self._users = [weakref.ref(state) for state in states]
        return states

    def claim(self, side: int) -> SingleState | None:
        """A state for this side, unless one exists."""
        with self.lock:
            if self._users[side]() is not None:
                return None
            state = SingleState(self, side)
            users = list(self._users)
            users[side] = weakref.ref(state)
            self._users = users
            return state


class SingleRunner:
    """Steps of single streams through one session, whose graph is for one number of inputs."""

    def __init__(self, session: Session, shapes: Sequence[tuple[int, ...]]) -> None:
        self._session, self._shapes = session, shapes
        self._kept: list[_Track] = []

    def step(self, x: Floats, state: States) -> tuple[Floats, SingleState]:
        """``x`` [n, C] and a state of one stream → [n', C'] and the state after it."""
        after = None
        if isinstance(state, SingleState) and state.track.session is self._session:
            before, after = state, state.track.claim(1 - state.side)
        if after is None:
            before, after = self._enter(state)
        track = after.track
        track.input[...] = x
        self._session.run_with_iobinding(track.bindings[before.side])
        return track.output.copy(), after

    def _enter(self, state: States) -> tuple[SingleState, SingleState]:
        """The state in an unused track, and the state that a step will make of it."""
        for track in self._kept:
            before, after = track.claim(0), track.claim(1)
            if before is not None and after is not None:
                break
        else:
            track = _Track(self._session, self._shapes)
            before, after = track.begin()
            if len(self._kept) < _MOST_KEPT:
                self._kept.append(track)
        for array, given in zip(track.states[0], state, strict=True):
            array[...] = given.reshape(array.shape)
        return before, after


def _nobody() -> None:
    return None
