"""The codec in numpy on the kernel: encoder, decoder and codebooks of one model. Imports no torch.

Values of ``KernelCodec`` are channels last, [batch, length, channels], as ``kernel.c`` has them; a state is [batch,
floats], laid out as its head says. A stream's stepper and quantiser turn them; the layers' tree of states and the
kernel's flat row hold the same numbers in the same order, so that a stream goes from any engine to this one and back.
Bits depend neither on the batch, nor on how many inputs go in at once, nor on the machine.
"""

from __future__ import annotations

import math
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.engines.kernel.image import Image, Weights, make_image
from streaming_encodec.engines.kernel.shared_library import Library
from streaming_encodec.engines.layout import turn
from streaming_encodec.model.architecture import TRANSPOSED, Layer, Part, zero_state
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.states import State
from streaming_encodec.stepping.arrays import NumpyArrays
from streaming_encodec.stepping.tree import leaves, map_arrays
from streaming_encodec.types import Floats, IntArray

Codes: TypeAlias = NDArray[np.int32]

ARITHMETIC = "kernel-1"
"""Name of the arithmetic: files with it have the same bits from every machine. It changes with the arithmetic."""

START, STEP, FLUSH, WHOLE = range(4)

_MOST_PLANS, _MOST_SPARE, _MOST_SPARE_ROWS = 16, 4, 16


class KernelCodec:
    """A model in the kernel's layout. It holds no stream: any number of them, and of threads, may share it.

    Args:
        config: an architecture that streams by samples.
        image: its weights, packed.
        library: what computes, see ``self_test.load_library``.
    """

    def __init__(self, config: EncodecConfig, image: Image, library: Library) -> None:
        self.config = config
        self._library = library
        self.image = image.memory
        self._address = self.image.ctypes.data
        self.arithmetic = ARITHMETIC + ("-fp16" if image.is_rounded else "")
        self._spare: dict[tuple[int, int], list[_Books]] = {}
        self.encoder = KernelPart(self._library, self.image, 0, image.encoder)
        self.decoder = KernelPart(self._library, self.image, 1, image.decoder)

    @classmethod
    def from_weights(cls, config: EncodecConfig, weights: Weights, library: Library, half: bool = False) -> KernelCodec:
        """Of plain weights (no weight norm) under Hugging Face's names.

        ``half``: all of them in float16, also where that rounds them.

        Raises:
            CheckpointError: weights that do not fit the configuration.
        """
        return cls(config, make_image(config, weights, half), library)

    def search(self, latent: Floats, num_codebooks: int) -> Codes:
        """``latent`` [rows, D] → codes [rows, num_codebooks]."""
        rows = len(latent)
        books = self._take(rows, num_codebooks)
        books.latent[...] = latent
        self._library.search(self._address, rows, num_codebooks, books.latent_at, books.codes_at, books.scratch_at)
        codes = books.codes.copy()
        self._give(books)
        return codes

    def lookup(self, codes: NDArray[np.integer]) -> Floats:
        """codes [rows, K] in range, any K up to the model's → latent [rows, D]."""
        rows, num_codebooks = codes.shape
        books = self._take(rows, num_codebooks)
        books.codes[...] = codes
        self._library.lookup(self._address, rows, num_codebooks, books.codes_at, books.latent_at)
        latent = books.latent.copy()
        self._give(books)
        return latent

    def _take(self, rows: int, num_codebooks: int) -> _Books:
        """Memory of this shape, for one caller at a time."""
        try:
            return self._spare[rows, num_codebooks].pop()
        except (KeyError, IndexError):
            return _Books(self.config, rows, num_codebooks)

    def _give(self, books: _Books) -> None:
        """Memory that may be taken again: that of a few small shapes is kept."""
        if len(books.codes) > _MOST_SPARE_ROWS:
            return
        if len(self._spare) >= _MOST_PLANS:
            self._spare = {}
        spare = self._spare.setdefault(books.codes.shape, [])
        if len(spare) < _MOST_SPARE:
            spare.append(books)


class _Books:
    """Latents [rows, D] and codes [rows, K], and where they are."""

    def __init__(self, config: EncodecConfig, rows: int, num_codebooks: int) -> None:
        self.latent: Floats = np.empty((rows, config.hidden_size), np.float32)
        self.codes: Codes = np.empty((rows, num_codebooks), np.int32)
        self._scratch = np.empty(rows * (config.hidden_size + config.codebook_size), np.float32)
        self.latent_at, self.codes_at = self.latent.ctypes.data, self.codes.ctypes.data
        self.scratch_at = self._scratch.ctypes.data


class KernelPart:
    """Encoder (samples to latents) or decoder (latents to samples) of a ``KernelCodec``."""

    def __init__(self, library: Library, image: Floats, number: int, part: Part) -> None:
        self._library, self._image, self._number = library, image, number
        self._address = image.ctypes.data
        self._layers = part.layers
        self.inputs, self.outputs, self.state_floats = part.inputs, part.outputs, part.state_floats
        self._plans: dict[tuple[int, int], _Plan] = {}

    def start(self, x: Floats) -> tuple[Floats, Floats]:
        """The first inputs [B, n, in], as many as the offline padding needs: outputs [B, m, out], state [B, S]."""
        y, state = self._run(START, x, np.empty((len(x), 0), np.float32))
        return y, state

    def step(self, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        """Whole frames [B, n, in] and a state → outputs [B, m, out] and the state after them; ``state`` stays."""
        return self._run(STEP, x, state)

    def flush(self, x: Floats, state: Floats) -> Floats:
        """The last inputs [B, n, in], any n: all remaining outputs."""
        return self._run(FLUSH, x, state)[0]

    def whole(self, x: Floats) -> Floats:
        """A stream that is all there [B, n, in], n ≥ 1, as the offline model takes it: its outputs."""
        return self._run(WHOLE, x, np.empty((len(x), 0), np.float32))[0]

    def plan(self, batch: int, n: int) -> _Plan:
        """Memory for steps of this shape, for many of them."""
        plan = self._plans.get((batch, n))
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans = {}
            plan = self._plans[batch, n] = _Plan(self, batch, n)
        return plan

    def outputs_of(self, phase: int, n: int) -> int:
        """Outputs for a number of inputs of a stream."""
        for layer in self._layers:
            n = _outputs(layer, phase, n)
        return n

    def call(self, phase: int, batch: int, n: int, x: int, y: int, before: int, after: int, scratch: int) -> None:
        """``kernel_run`` with addresses."""
        self._library.run(self._address, self._number, phase, batch, n, x, y, before, after, scratch)

    def scratch(self, batch: int, n: int) -> Floats:
        """Memory for ``call``."""
        return np.empty(self._library.scratch(self._address, self._number, batch, n), np.float32)

    def _run(self, phase: int, x: Floats, state: Floats) -> tuple[Floats, Floats]:
        batch, n, _ = x.shape
        x, state = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(state, np.float32)
        y: Floats = np.empty((batch, self.outputs_of(phase, n), self.outputs), np.float32)
        after: Floats = np.empty((batch, self.state_floats), np.float32)
        scratch = self.scratch(batch, n)
        addresses = [array.ctypes.data for array in (x, y, state, after, scratch)]
        self.call(phase, batch, n, *addresses)
        return y, after


class _Plan:
    """Steps of one shape without a needless copy or look at an address."""

    def __init__(self, part: KernelPart, batch: int, n: int) -> None:
        self._part, self._batch, self._n = part, batch, n
        self._outputs = part.outputs_of(STEP, n)
        self._spare: list[_Workspace] = []

    def step(self, x: Floats, state: KernelState) -> tuple[Floats, KernelState]:
        """As ``KernelPart.step``, for states whose addresses are known."""
        part = self._part
        try:
            workspace = self._spare.pop()  # its own for each thread
        except IndexError:
            workspace = _Workspace(part, self._batch, self._n, self._outputs)
        workspace.x[...] = x
        after = KernelState(np.empty((self._batch, part.state_floats), np.float32))
        part.call(STEP, self._batch, self._n, *workspace.in_out, state.address, after.address, workspace.scratch_at)
        y = workspace.y.copy()
        if len(self._spare) < _MOST_SPARE:
            self._spare.append(workspace)
        return y, after


class KernelState:
    """A state [B, S] and its address. It is never written to after it is made."""

    __slots__ = ("address", "array")

    def __init__(self, array: Floats) -> None:
        self.array, self.address = array, array.ctypes.data


class _Workspace:
    def __init__(self, part: KernelPart, batch: int, n: int, outputs: int) -> None:
        self.x: Floats = np.empty((batch, n, part.inputs), np.float32)
        self.y: Floats = np.empty((batch, outputs, part.outputs), np.float32)
        self._scratch = part.scratch(batch, n)
        self.in_out = self.x.ctypes.data, self.y.ctypes.data
        self.scratch_at = self._scratch.ctypes.data


def _outputs(layer: Layer, phase: int, n: int) -> int:
    if layer.kind == TRANSPOSED:
        return n * layer.stride + {START: -layer.trim, FLUSH: layer.trim}.get(phase, 0)
    if phase == START:
        return (n - layer.lookahead) // layer.stride
    if phase == STEP:
        return n // layer.stride
    return -(-(n + (layer.lookahead if phase == FLUSH else 0)) // layer.stride)


# -- as streams take it: channels first --------------------------------------------------------------------


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
