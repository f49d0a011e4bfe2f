"""``onnx`` and ``onnx-int8``: the steady step as a graph in ONNX Runtime. CPU and float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from streaming_encodec.engines.graph import INPUT, state_shapes, step_graph
from streaming_encodec.engines.layout import turn
from streaming_encodec.engines.quantizer import FusedQuantizer
from streaming_encodec.engines.quantizer_graph import CODES, RESIDUAL, quantizer_graph
from streaming_encodec.engines.session import Session, open_session, runtime
from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.layers import State
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.streaming.state import map_tensors


class OrtStepper:
    """A ``Stepper`` (see ``streaming/half.py``). Its state is the tuple of those tensors that hold anything.

    A graph is for so many frames: made at the first step with them, which takes a moment (``warm_up``).
    """

    def __init__(self, stack: StreamableStack, int8: bool = False) -> None:
        self._stack, self._int8 = stack, int8
        self._names = list(state_shapes(stack))
        self._sessions: dict[int, Session] = {}

    def enter(self, layers: State) -> tuple[Tensor, ...]:
        """The layers' tensors in the graph's order, channels last."""
        return tuple(tensor for tensor in _leaves(turn(layers)) if tensor.numel())

    def leave(self, state: tuple[Tensor, ...]) -> State:
        """The layers' state for the graph's."""
        batch = state[0].shape[0] if state else 1
        tensors = iter(state)
        like = turn(self._stack.init_state(batch))
        return cast(State, turn(map_tensors(lambda t: next(tensors) if t.numel() else t, like)))

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """``x`` [B, C, n] → [B, C', n']. Tensors of ``state`` stay as they are."""
        feeds = {name: tensor.numpy() for name, tensor in zip(self._names, state, strict=True)}
        feeds[INPUT] = x.transpose(1, 2).numpy()
        session = self._sessions.get(x.shape[-1]) or self._open(x.shape[-1])
        y, *after = session.run(None, feeds)
        return torch.from_numpy(y).transpose(1, 2), tuple(torch.from_numpy(array) for array in after)

    def _open(self, inputs: int) -> Session:
        graph = step_graph(self._stack, inputs, self._int8)
        self._sessions[inputs] = open_session(graph.SerializeToString())
        return self._sessions[inputs]


class OrtQuantizer:
    """``ResidualVectorQuantizer``, its search in ONNX Runtime; a graph for each number of codebooks used."""

    def __init__(self, model: EncodecModel) -> None:
        self._codebooks = model.quantizer.codebooks
        self._sessions: dict[int, Session] = {}
        self.decode = FusedQuantizer(model.quantizer).decode

    def encode(self, latent: Tensor, num_codebooks: int) -> Tensor:
        """``latent`` [B, D, F] → codes [B, num_codebooks, F], int64."""
        batch, dim, frames = latent.shape
        if num_codebooks not in self._sessions:
            tables = [codebook.embed.numpy() for codebook in self._codebooks[:num_codebooks]]
            self._sessions[num_codebooks] = open_session(quantizer_graph(tables).SerializeToString())
        rows = latent.transpose(1, 2).reshape(-1, dim).numpy()
        codes: Any = self._sessions[num_codebooks].run([CODES], {RESIDUAL: rows})[0]  # [B * F, K]
        return torch.from_numpy(codes).view(batch, frames, num_codebooks).transpose(1, 2)


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
