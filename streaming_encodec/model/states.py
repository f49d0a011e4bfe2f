"""What the layers remember of a stream, as trees of arrays: torch's or numpy's. Imports neither.

A layer's state is a NamedTuple of arrays, batch first, and a stack's a tuple of such. Their field names are in saved
states (``stepping/state.py``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from streaming_encodec.types import AnyArray

State = tuple[Any, ...]
"""Of a layer, or of a stack of them."""


class ConvState(NamedTuple):
    """What a convolution must remember."""

    history: AnyArray  # [B, C_in, history_length], the last inputs, oldest first


class ConvTransposeState(NamedTuple):
    """What a transposed convolution must remember."""

    overlap: AnyArray  # [B, C_out, kernel - stride], sums that later inputs add to; without bias


class LstmState(NamedTuple):
    """Hidden and cell values of every LSTM layer."""

    hidden: AnyArray  # [B, layers, D]
    cell: AnyArray  # [B, layers, D]


class ResnetState(NamedTuple):
    """State of a residual block."""

    block: State  # of the two convolutions and their ELUs
    delay: AnyArray  # [B, C, lookahead], inputs that wait for the convolutions' lookahead
