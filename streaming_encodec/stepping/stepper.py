"""What an engine has for each direction, and for the codes between them."""

from __future__ import annotations

from typing import Any, Protocol

from streaming_encodec.model.states import State
from streaming_encodec.types import AnyArray


class Stepper(Protocol):
    """One direction of a network over a stream: its first inputs, those in between, the last.

    Its states are values of a kind of its own: no call changes one. ``enter`` and ``leave`` translate them to the
    layers' own state, the same for all engines. Arrays are of the engine's kind, [B, C, n].
    """

    def zero_state(self, batch: int) -> State:
        """The layers' state before the first input."""
        ...

    def enter(self, layers: State) -> Any:
        """The stepper's state for the layers', whose arrays may be of either kind; shares no memory with them."""
        ...

    def leave(self, state: Any) -> State:
        """The layers' state for the stepper's; shares no memory with it."""
        ...

    def choose(self, rows: list[bool], yes: Any, no: Any) -> Any:
        """The state that has these rows of ``yes``, and the others of ``no``."""
        ...

    def whole(self, x: AnyArray) -> AnyArray:
        """A stream that is all there, as the offline model takes it, however short."""
        ...

    def start(self, x: AnyArray) -> tuple[AnyArray, Any]:
        """The first inputs, with the offline model's left padding; and the state after them."""
        ...

    def step(self, x: AnyArray, state: Any) -> tuple[AnyArray, Any]:
        """Whole frames' inputs → their outputs and the state after them."""
        ...

    def flush(self, x: AnyArray, state: Any) -> AnyArray:
        """The last inputs, any number, with the offline model's right padding: all outputs still owed."""
        ...


class Quantizer(Protocol):
    """Latents to codes and back."""

    def encode(self, latent: AnyArray, num_codebooks: int) -> AnyArray:
        """``latent`` [B, D, F] → codes [B, num_codebooks, F], int64."""
        ...

    def decode(self, codes: AnyArray) -> AnyArray:
        """codes [B, K, F], any K up to the model's → latent [B, D, F]."""
        ...
