"""``onnx`` and ``onnx-int8``: the steady step as a graph in ONNX Runtime. CPU and float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streaming_encodec.engines.layout import turn
from streaming_encodec.engines.onnx.graph import INPUT, state_shapes, step_graph
from streaming_encodec.engines.onnx.quantizer_graph import CODES, RESIDUAL, quantizer_graph
from streaming_encodec.engines.onnx.session import Session, open_session, runtime
from streaming_encodec.engines.onnx.single_stream import SingleRunner, States
from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.layers import State
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.stepping.tree import map_tensors

Floats: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.int64]


class OrtStepper:
    """A ``Stepper`` (see ``stepping/half.py``). Its state is the sequence of those tensors that hold anything.

    A graph is for so many frames: made at the first step with them, which takes a moment (``warm_up``). One
    stream alone has its own kind of graph.
    """

    def __init__(self, stack: StreamableStack, int8: bool = False) -> None:
        self._stack, self._int8 = stack, int8
        self._shapes = state_shapes(stack)
        self._sessions: dict[int, Session] = {}
        self._single: dict[int, SingleRunner] = {}

    def enter(self, layers: State) -> tuple[Tensor, ...]:
        """The layers' tensors in the graph's order, channels last."""
        return tuple(tensor for tensor in _leaves(turn(layers)) if tensor.numel())

    def leave(self, state: States) -> State:
        """The layers' state for the graph's."""
        tensors = tuple(state)
        batch = tensors[0].shape[0] if tensors else 1
        rest = iter(tensors)
        like = turn(self._stack.init_state(batch))
        return cast(State, turn(map_tensors(lambda t: next(rest) if t.numel() else t, like)))

    def step(self, x: Tensor, state: States) -> tuple[Tensor, States]:
        """``x`` [B, C, n] → [B, C', n']. ``state`` stays as it is."""
        batch, _, inputs = x.shape
        if batch == 1:
            y, after = self.step_array(x.numpy()[0], state)
            return torch.from_numpy(y[None]), after
        feeds = {name: tensor.numpy() for name, tensor in zip(self._shapes, state, strict=True)}
        feeds[INPUT] = x.transpose(1, 2).numpy()
        session = self._sessions.get(inputs) or self._open(inputs)
        y, *arrays = session.run(None, feeds)
        return torch.from_numpy(y).transpose(1, 2), tuple(torch.from_numpy(array) for array in arrays)

    def step_array(self, x: Floats, state: States) -> tuple[Floats, States]:
        """``x`` [C, n] of one stream → [C', n']. ``state`` stays as it is."""
        runner = self._single.get(x.shape[1]) or self._open_single(x.shape[1])
        y, after = runner.step(x.T, state)
        return y.T, after

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

    def encode(self, latent: Tensor, num_codebooks: int) -> Tensor:
        """``latent`` [B, D, F] → codes [B, num_codebooks, F], int64."""
        batch, dim, frames = latent.shape
        codes = self._search(latent.numpy().transpose(0, 2, 1).reshape(-1, dim), num_codebooks)
        return torch.from_numpy(codes.reshape(batch, frames, num_codebooks).transpose(0, 2, 1))

    def encode_array(self, latent: Floats, num_codebooks: int) -> Codes:
        """``latent`` [D, F] → codes [num_codebooks, F]."""
        return self._search(latent.T, num_codebooks).T

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, K, F], any K up to the checkpoint's → latent [B, D, F]."""
        vectors = self._flat[codes.numpy() + self._offsets[: codes.shape[1]]]  # [B, K, F, D]
        return torch.from_numpy(vectors.sum(axis=1).transpose(0, 2, 1))

    def decode_array(self, codes: Codes) -> Floats:
        """codes [K, F] → latent [D, F]."""
        vectors: Floats = self._flat[codes + self._offsets[: len(codes)]].sum(axis=0)  # [F, D]
        return vectors.T

    def _search(self, rows: Floats, num_codebooks: int) -> Codes:
        session = self._sessions.get(num_codebooks) or self._open(num_codebooks)
        codes: Codes = session.run([CODES], {RESIDUAL: rows})[0]  # [rows, K]
        return codes

    def _open(self, num_codebooks: int) -> Session:
        graph = quantizer_graph(list(self._tables[:num_codebooks]), with_rest=False, int8=self._int8)
        self._sessions[num_codebooks] = open_session(graph.SerializeToString())
        return self._sessions[num_codebooks]


def check_runs(model: EncodecModel) -> None:
    """Raise ``StreamError`` unless the model is float32 on the CPU; see ``runtime`` too."""
    runtime()
    weight = next(model.parameters())
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise StreamError(
            f"the onnx engines compute in float32 on the CPU, this model is {weight.dtype} on"
            f" {weight.device}: use engine='fused', or model.float().cpu()"
        )


def _leaves(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    else:
        for branch in tree:
            yield from _leaves(branch)
