"""What the engines on torch's models share; and ``eager``, the layers' own step: the reference."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.find import CodecModel, torch_model
from streaming_encodec.model.plain import weights_version
from streaming_encodec.model.quantizer import ResidualVectorQuantizer
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.model.states import State
from streaming_encodec.stepping.arrays import Arrays
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.stepping.stepper import Quantizer, Stepper
from streaming_encodec.stepping.torch_arrays import TorchArrays
from streaming_encodec.stepping.tree import zip_arrays

_EAGER = "eager"


class TorchEngine(Engine):
    """``eager``, and the base of engines that take their weights from a model of torch.

    Args:
        name: which engine.
        model: an ``EncodecModel``, or a folder, which is loaded.
        network: the model in torch, where it is there already.
    """

    def __init__(self, name: str, model: CodecModel, network: EncodecModel | None = None) -> None:
        self.network = network or torch_model(model)
        super().__init__(name, model, self._make_arrays())

    @property
    def arithmetic(self) -> str | None:
        return None if self.name == _EAGER else self.name

    @cached_property
    def reference(self) -> Engine:
        # Silence is the layers' business, so that all these engines start alike.
        return self if self.name == _EAGER else TorchEngine(_EAGER, self.model, self.network)

    @property
    def weights_now(self) -> tuple[object, tuple[object, ...]]:
        return self.network, weights_version(self.network)

    def _make_arrays(self) -> Arrays:
        return TorchArrays(next(self.network.parameters()))

    def _make_quantizer(self) -> Quantizer:
        return LayersQuantizer(self.network.quantizer)

    def _make_encoder(self) -> Stepper:
        return self._make_stepper(self.network.encoder)

    def _make_decoder(self) -> Stepper:
        return self._make_stepper(self.network.decoder)

    def _make_stepper(self, stack: StreamableStack) -> Stepper:
        return LayersStepper(stack)


class LayersStepper:
    """The layers' own phases: their ``step`` never changes a tensor in place, so its state is a value as it is."""

    def __init__(self, stack: StreamableStack) -> None:
        self._stack = stack

    def zero_state(self, batch: int) -> State:
        return self._stack.init_state(batch)

    def enter(self, layers: State) -> Any:
        return layers

    def leave(self, state: Any) -> State:
        return cast(State, state)

    def choose(self, rows: list[bool], yes: State, no: State) -> State:
        arrays = TorchArrays(next(self._stack.parameters()))
        return cast(State, zip_arrays(lambda one, other: arrays.choose(rows, one, other), yes, no))

    @torch.no_grad()
    def whole(self, x: Tensor) -> Tensor:
        return cast(Tensor, self._stack(x))

    @torch.no_grad()
    def start(self, x: Tensor) -> tuple[Tensor, Any]:
        y, layers = self._stack.start(x)
        return y, self.enter(layers)

    @torch.no_grad()
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self._stack.step(x, state)

    @torch.no_grad()
    def flush(self, x: Tensor, state: Any) -> Tensor:
        return self._stack.flush(x, self.leave(state))


class LayersQuantizer:
    """The layers' own search and sum."""

    def __init__(self, quantizer: ResidualVectorQuantizer) -> None:
        self._quantizer = quantizer

    @torch.no_grad()
    def encode(self, latent: Tensor, num_codebooks: int) -> Tensor:
        return self._quantizer.encode(latent, num_codebooks)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        return self._quantizer.decode(codes)
