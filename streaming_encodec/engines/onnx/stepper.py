"""``onnx`` and ``onnx-int8``: the steady step as a graph in ONNX Runtime. CPU and float32."""

from __future__ import annotations

from typing import cast

import numpy as np

from streaming_encodec.engines.layout import turn
from streaming_encodec.engines.onnx.graph import INPUT, state_shapes, step_graph
from streaming_encodec.engines.onnx.quantizer_graph import CODES, RESIDUAL, quantizer_graph
from streaming_encodec.engines.onnx.session import Session, open_session, runtime
from streaming_encodec.engines.onnx.single_stream import SingleRunner, States
from streaming_encodec.engines.torch_engine import LayersStepper, TorchEngine
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.find import CodecModel
from streaming_encodec.model.plain import check_plain
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.model.states import State
from streaming_encodec.stepping.arrays import Arrays, NumpyArrays, as_numpy, as_tensor
from streaming_encodec.stepping.stepper import Quantizer, Stepper
from streaming_encodec.stepping.tree import leaves, map_arrays
from streaming_encodec.types import Floats, IntArray


class OrtEngine(TorchEngine):
    """``onnx``, and ``onnx-int8``.

    Raises:
        StreamError: the model is not float32 on the CPU. MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, name: str, model: CodecModel, int8: bool = False) -> None:
        runtime()
        self._int8 = int8
        super().__init__(name, model)
        check_plain(self.network, "the onnx engines compute")

    def _make_arrays(self) -> Arrays:
        return NumpyArrays()

    def _make_quantizer(self) -> Quantizer:
        return OrtQuantizer(self.network, self._int8)

    def _make_stepper(self, stack: StreamableStack) -> Stepper:
        return OrtStepper(stack, self._int8)


class OrtStepper:
    """A ``Stepper`` in numpy; a stream's start and end are the layers'.

    Its state is the sequence of those arrays that hold anything.

    A graph is for so many frames: made at the first step with them, which takes a moment (``warm_up``). One
    stream alone has its own kind of graph.
    """

    def __init__(self, stack: StreamableStack, int8: bool = False) -> None:
        self._stack, self._int8 = stack, int8
        self._layers, self._arrays = LayersStepper(stack), NumpyArrays()
        self._shapes = state_shapes(stack)
        self._sessions: dict[int, Session] = {}
        self._single: dict[int, SingleRunner] = {}

    def zero_state(self, batch: int) -> State:
        return cast(State, map_arrays(as_numpy, self._layers.zero_state(batch)))

    def enter(self, layers: State) -> tuple[Floats, ...]:
        """The layers' arrays in the graph's order, channels last."""
        return tuple(array for array in leaves(turn(layers, self._arrays)) if array.size)

    def leave(self, state: States) -> State:
        """The layers' state for the graph's."""
        arrays = tuple(state)
        batch = len(arrays[0]) if arrays else 1
        rest = iter(arrays)
        like = turn(self.zero_state(batch), self._arrays)
        return cast(State, turn(map_arrays(lambda x: next(rest) if x.size else x, like), self._arrays))

    def choose(self, rows: list[bool], yes: States, no: States) -> States:
        return tuple(self._arrays.choose(rows, one, other) for one, other in zip(yes, no, strict=True))

    def whole(self, x: Floats) -> Floats:
        return as_numpy(self._layers.whole(as_tensor(x)))  # type: ignore[no-any-return]

    def start(self, x: Floats) -> tuple[Floats, States]:
        y, layers = self._layers.start(as_tensor(x))
        return as_numpy(y), self.enter(layers)

    def flush(self, x: Floats, state: States) -> Floats:
        layers = map_arrays(as_tensor, self.leave(state))
        return as_numpy(self._layers.flush(as_tensor(x), layers))  # type: ignore[no-any-return]

    def step(self, x: Floats, state: States) -> tuple[Floats, States]:
        """``x`` [B, C, n] → [B, C', n']. ``state`` stays as it is."""
        batch, _, inputs = x.shape
        if batch == 1:
            runner = self._single.get(inputs) or self._open_single(inputs)
            y, after = runner.step(x[0].T, state)
            return y.T[None], after
        feeds = dict(zip(self._shapes, state, strict=True))
        feeds[INPUT] = x.transpose(0, 2, 1)
        session = self._sessions.get(inputs) or self._open(inputs)
        y, *arrays = session.run(None, feeds)
        return y.transpose(0, 2, 1), tuple(arrays)

    def _open(self, inputs: int) -> Session:
        graph = step_graph(self._stack, inputs, self._int8)
        self._sessions[inputs] = open_session(graph.SerializeToString())
        return self._sessions[inputs]

    def _open_single(self, inputs: int) -> SingleRunner:
        graph = step_graph(self._stack, inputs, self._int8, single=True)
        self._single[inputs] = SingleRunner(open_session(graph.SerializeToString()), list(self._shapes.values()))
        return self._single[inputs]


class OrtQuantizer:
    """``ResidualVectorQuantizer``, its search in ONNX Runtime; a graph for each number of codebooks used.

    int8: the search reads tables of 8 bits. At 6 kbps those of a small model are more bytes than its network.
    """

    def __init__(self, model: EncodecModel, int8: bool = False) -> None:
        self._int8 = int8
        self._tables = np.stack([codebook.embed.numpy() for codebook in model.quantizer.codebooks])  # [K, size, D]
        self._sessions: dict[int, Session] = {}
        self._flat = self._tables.reshape(-1, self._tables.shape[-1])
        self._offsets = np.arange(len(self._tables))[:, None] * self._tables.shape[1]  # [K, 1]

    def encode(self, latent: Floats, num_codebooks: int) -> IntArray:
        """``latent`` [B, D, F] → codes [B, num_codebooks, F], int64."""
        batch, dim, frames = latent.shape
        codes = self._search(latent.transpose(0, 2, 1).reshape(-1, dim), num_codebooks)
        return codes.reshape(batch, frames, num_codebooks).transpose(0, 2, 1)

    def decode(self, codes: IntArray) -> Floats:
        """codes [B, K, F], any K up to the checkpoint's → latent [B, D, F]."""
        vectors: Floats = self._flat[codes + self._offsets[: codes.shape[1]]].sum(axis=1)  # [B, F, D]
        return vectors.transpose(0, 2, 1)

    def _search(self, rows: Floats, num_codebooks: int) -> IntArray:
        session = self._sessions.get(num_codebooks) or self._open(num_codebooks)
        codes: IntArray = session.run([CODES], {RESIDUAL: rows})[0]  # [rows, K]
        return codes

    def _open(self, num_codebooks: int) -> Session:
        graph = quantizer_graph(list(self._tables[:num_codebooks]), with_rest=False, int8=self._int8)
        self._sessions[num_codebooks] = open_session(graph.SerializeToString())
        return self._sessions[num_codebooks]
