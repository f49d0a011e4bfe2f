"""The engine ``kernel``: all of a stream in C, in numpy. CPU and float32. Imports no torch.

The layers' tree of states and the kernel's flat row hold the same numbers in the same order, so that a stream goes from
any engine to this one and back.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import cast

import numpy as np

from streaming_encodec.engines.kernel.codec import KernelCodec, KernelPart, KernelState
from streaming_encodec.engines.kernel.self_test import load_library
from streaming_encodec.engines.layout import turn
from streaming_encodec.model.architecture import Part, make_parts, zero_state
from streaming_encodec.model.find import CodecModel
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.model.states import State
from streaming_encodec.stepping.arrays import NumpyArrays
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.stepping.stepper import Quantizer, Stepper
from streaming_encodec.stepping.tree import leaves, map_arrays
from streaming_encodec.types import Floats, IntArray


class KernelEngine(Engine):
    """One ``KernelCodec`` behind a stepper for each direction and a quantiser; ``half`` as there.

    Raises:
        StreamError: the model is not float32 on the CPU. MissingExtraError: there is no library for this machine.
    """

    def __init__(self, name: str, model: CodecModel, half: bool = False) -> None:
        load_library()
        if not isinstance(model, ModelFolder):
            from streaming_encodec.model.plain import check_plain

            check_plain(model, "the kernel computes")
        self._half = half
        super().__init__(name, model, NumpyArrays())

    def __reduce__(self) -> tuple[type[KernelEngine], tuple[str, CodecModel, bool]]:
        # Pickled and copied as its name and its model; the rest is made again where it is used.
        return KernelEngine, (self.name, self.model, self._half)

    @cached_property
    def codec(self) -> KernelCodec:
        """The model in the kernel's layout: a copy of its weights."""
        if isinstance(self.model, ModelFolder):
            with self.model.weights() as weights:
                return KernelCodec.from_weights(weights.config, weights, load_library(), self._half)
        from streaming_encodec.model.plain import numpy_weights

        return KernelCodec.from_weights(self.model.config, numpy_weights(self.model), load_library(), self._half)

    @property
    def arithmetic(self) -> str:
        """Names the bits that it gives, the same on every machine."""
        return self.codec.arithmetic

    def _make_quantizer(self) -> Quantizer:
        return KernelQuantizer(self.codec)

    def _make_encoder(self) -> Stepper:
        return KernelStepper(self.codec.encoder, make_parts(self.config)[0])

    def _make_decoder(self) -> Stepper:
        return KernelStepper(self.codec.decoder, make_parts(self.config)[1])


class KernelStepper:
    """A ``Stepper`` in numpy, whose states are ``KernelState``s."""

    def __init__(self, kernel: KernelPart, part: Part) -> None:
        self._kernel, self._part, self._arrays = kernel, part, NumpyArrays()

    def zero_state(self, batch: int) -> State:
        return zero_state(self._part, batch)

    def enter(self, layers: State) -> KernelState:
        """The layers' arrays, channels last, one after the other: a row for each stream."""
        rows = [array.reshape(len(array), -1) for array in leaves(turn(layers, self._arrays))]
        return KernelState(np.concatenate(rows, axis=1))

    def leave(self, state: KernelState) -> State:
        """The layers' state for the kernel's."""
        rest = state.array

        def take(like: Floats) -> Floats:
            nonlocal rest
            count = math.prod(like.shape[1:])
            taken, rest = rest[:, :count], rest[:, count:]
            return taken.reshape(like.shape)

        like = turn(self.zero_state(len(rest)), self._arrays)
        return cast(State, turn(map_arrays(take, like), self._arrays))

    def choose(self, rows: list[bool], yes: KernelState, no: KernelState) -> KernelState:
        return KernelState(self._arrays.choose(rows, yes.array, no.array))

    def whole(self, x: Floats) -> Floats:
        return self._kernel.whole(x.transpose(0, 2, 1)).transpose(0, 2, 1)

    def start(self, x: Floats) -> tuple[Floats, KernelState]:
        y, state = self._kernel.start(x.transpose(0, 2, 1))
        return y.transpose(0, 2, 1), KernelState(state)

    def step(self, x: Floats, state: KernelState) -> tuple[Floats, KernelState]:
        """``x`` [B, C, n] → [B, C', n']. ``state`` stays as it is."""
        y, after = self._kernel.plan(len(x), x.shape[2]).step(x.transpose(0, 2, 1), state)
        return y.transpose(0, 2, 1), after

    def flush(self, x: Floats, state: KernelState) -> Floats:
        return self._kernel.flush(x.transpose(0, 2, 1), state.array).transpose(0, 2, 1)


class KernelQuantizer:
    """``ResidualVectorQuantizer`` in C."""

    def __init__(self, codec: KernelCodec) -> None:
        self._codec = codec

    def encode(self, latent: Floats, num_codebooks: int) -> IntArray:
        """``latent`` [B, D, F] → codes [B, num_codebooks, F], int64."""
        batch, size, frames = latent.shape
        codes = self._codec.search(latent.transpose(0, 2, 1).reshape(batch * frames, size), num_codebooks)
        return codes.astype(np.int64).reshape(batch, frames, num_codebooks).transpose(0, 2, 1)

    def decode(self, codes: IntArray) -> Floats:
        """codes [B, K, F], any K up to the checkpoint's → latent [B, D, F]."""
        batch, num_codebooks, frames = codes.shape
        rows = codes.transpose(0, 2, 1).reshape(batch * frames, num_codebooks)
        return self._codec.lookup(rows).reshape(batch, frames, self._codec.config.hidden_size).transpose(0, 2, 1)
