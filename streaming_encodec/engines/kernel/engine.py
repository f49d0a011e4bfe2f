"""The engine ``kernel`` for torch's models: a stream's start, steps and end in C. CPU and float32.

The reference's tree of states and the kernel's flat row hold the same numbers in the same order, so that a stream goes
from any engine to this one and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streaming_encodec.engines.kernel.codec import KernelCodec, KernelPart, KernelState
from streaming_encodec.engines.kernel.image import Floats
from streaming_encodec.engines.kernel.shared_library import load_library
from streaming_encodec.engines.layout import turn
from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.layers import State
from streaming_encodec.model.plain import plain_weights
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.stepping.half import Stepper
from streaming_encodec.stepping.tree import map_tensors

Codes: TypeAlias = NDArray[np.int64]
KernelStates: TypeAlias = Tensor | KernelState


class KernelEngine(Engine):
    """One ``KernelCodec`` behind a stepper for each direction and a quantiser; ``half`` as there."""

    has_phases = True

    def __init__(self, name: str, model: EncodecModel, half: bool = False) -> None:
        self._half = half
        super().__init__(name, model, lambda _: KernelQuantizer(self.codec), self._make_stepper_of)

    def __reduce__(self) -> tuple[type[KernelEngine], tuple[str, EncodecModel, bool]]:
        # Pickled and copied as its name and its model: what it computes with is made anew where it is used.
        return KernelEngine, (self.name, self.model, self._half)

    @cached_property
    def codec(self) -> KernelCodec:
        """The model in the kernel's layout: a copy of its weights."""
        weights = {name: tensor.detach().numpy() for name, tensor in plain_weights(self.model).items()}
        return KernelCodec.from_weights(self.model.config, weights, self._half)

    @property
    def arithmetic(self) -> str:
        """Names the bits that it gives, the same on every machine."""
        return self.codec.arithmetic

    def _make_stepper_of(self, stack: StreamableStack) -> Stepper:
        part = self.codec.encoder if stack is self.model.encoder else self.codec.decoder
        return KernelStepper(stack, part)


class KernelStepper:
    """A ``PhasedStepper`` (see ``stepping/half.py``).

    Its state is a tensor [B, floats], or one stream's ``KernelState``.
    """

    def __init__(self, stack: StreamableStack, part: KernelPart) -> None:
        self._stack, self._part = stack, part

    def enter(self, layers: State) -> Tensor:
        """The layers' tensors, channels last, one after the other: a row for each stream."""
        return torch.cat([tensor.flatten(1) for tensor in _leaves(turn(layers))], dim=1).float()

    def leave(self, state: KernelStates) -> State:
        """The layers' state for the kernel's."""
        row = torch.from_numpy(state.array) if isinstance(state, KernelState) else state
        rest = row

        def take(like: Tensor) -> Tensor:
            nonlocal rest
            count = math.prod(like.shape[1:])
            taken, rest = rest[:, :count], rest[:, count:]
            return taken.reshape(like.shape)

        like = turn(self._stack.init_state(len(row)))
        return cast(State, turn(map_tensors(take, like)))

    def start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` [B, C, n] → [B, C', n'], and the first state."""
        y, state = self._part.start(_channels_last(x))
        return torch.from_numpy(y).transpose(1, 2), torch.from_numpy(state)

    def step(self, x: Tensor, state: KernelStates) -> tuple[Tensor, Tensor]:
        """``x`` [B, C, n] → [B, C', n']. ``state`` stays as it is."""
        y, after = self._part.step(_channels_last(x), _array(state))
        return torch.from_numpy(y).transpose(1, 2), torch.from_numpy(after)

    def flush(self, x: Tensor, state: KernelStates) -> Tensor:
        """The last inputs ``x`` [B, C, n], any n: what is still owed."""
        return torch.from_numpy(self._part.flush(_channels_last(x), _array(state))).transpose(1, 2)

    def step_array(self, x: Floats, state: KernelStates) -> tuple[Floats, KernelState]:
        """``x`` [C, n] of one stream → [C', n']. ``state`` stays as it is."""
        before = state if isinstance(state, KernelState) else KernelState(np.ascontiguousarray(state.numpy()))
        y, after = self._part.plan(1, x.shape[1]).step(x.T, before)
        return y[0].T, after


class KernelQuantizer:
    """``ResidualVectorQuantizer`` in C."""

    def __init__(self, codec: KernelCodec) -> None:
        self._codec = codec

    def encode(self, latent: Tensor, num_codebooks: int) -> Tensor:
        """``latent`` [B, D, F] → codes [B, num_codebooks, F], int64."""
        batch, size, frames = latent.shape
        codes = self._codec.search(_channels_last(latent).reshape(batch * frames, size), num_codebooks)
        return torch.from_numpy(codes.astype(np.int64).reshape(batch, frames, num_codebooks).transpose(0, 2, 1))

    def encode_array(self, latent: Floats, num_codebooks: int) -> Codes:
        """``latent`` [D, F] → codes [num_codebooks, F]."""
        return self._codec.search(latent.T, num_codebooks).T.astype(np.int64)

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, K, F], any K up to the checkpoint's → latent [B, D, F]."""
        batch, num_codebooks, frames = codes.shape
        rows = codes.numpy().transpose(0, 2, 1).reshape(batch * frames, num_codebooks)
        latent = self._codec.lookup(rows).reshape(batch, frames, self._codec.config.hidden_size)
        return torch.from_numpy(latent).transpose(1, 2)

    def decode_array(self, codes: Codes) -> Floats:
        """codes [K, F] → latent [D, F]."""
        return self._codec.lookup(codes.T).T


def check_runs(model: EncodecModel) -> None:
    """Raise ``StreamError`` unless the model is float32 on the CPU, ``MissingExtraError`` where there is no library."""
    load_library()
    weight = next(model.parameters())
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise StreamError(
            f"the kernel computes in float32 on the CPU, this model is {weight.dtype} on {weight.device}:"
            " use engine='fused', or model.float().cpu()"
        )


def _channels_last(x: Tensor) -> Floats:
    array: Floats = x.detach().transpose(1, 2).contiguous().numpy()
    return array


def _array(state: KernelStates) -> Floats:
    return state.array if isinstance(state, KernelState) else state.numpy()


def _leaves(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    else:
        for branch in tree:
            yield from _leaves(branch)
