"""The layout that the fast engines share: channels last, ``[B, T, C]`` where the layers have ``[B, C, T]``.

A frame's samples times a channel count are then one row of a matrix, so that convolutions become matrix
products. The tree of a state keeps its structure; only its arrays turn.
"""

from __future__ import annotations

from typing import Any

from streaming_encodec.model.states import LstmState
from streaming_encodec.stepping.arrays import Arrays
from streaming_encodec.stepping.tree import map_arrays


def turn(layers: Any, arrays: Arrays) -> Any:
    """The layers' state in channels-last layout, or back. Shares no memory with its argument."""
    if isinstance(layers, LstmState):
        return map_arrays(arrays.copy, layers)
    if not isinstance(layers, tuple):
        return arrays.copy(layers.swapaxes(1, 2))
    branches = [turn(branch, arrays) for branch in layers]
    return type(layers)(*branches) if hasattr(layers, "_fields") else tuple(branches)
