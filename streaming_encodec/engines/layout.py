"""The layout that the fast engines share: channels last, ``[B, T, C]`` where the layers have ``[B, C, T]``.

A frame's samples times a channel count are then one row of a matrix, so that convolutions become matrix
products. The tree of a state keeps its structure; only its tensors turn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from streaming_encodec.model.conv import ConvState, ConvTransposeState
from streaming_encodec.model.layers import LstmState, ResnetState, State


def turn(layers: State) -> Any:
    """The state of the layers, channels last; or back. Shares no memory with what it was made of."""
    if isinstance(layers, ConvState):
        return ConvState(_turned(layers.history))
    if isinstance(layers, ConvTransposeState):
        return ConvTransposeState(_turned(layers.overlap))
    if isinstance(layers, ResnetState):
        return ResnetState(turn(layers.block), _turned(layers.delay))
    if isinstance(layers, LstmState):
        return LstmState(layers.hidden.clone(), layers.cell.clone())
    return tuple(turn(state) for state in layers)


def _turned(tensor: Tensor) -> Tensor:
    # clone: the transpose of one column is contiguous already, and would share memory
    return tensor.transpose(1, 2).clone(memory_format=torch.contiguous_format)
