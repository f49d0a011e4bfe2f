"""The other layers of EnCodec with both faces (see ``conv.py``): ELU, LSTM with skip, residual block, and a stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.conv import StreamableConv1d
from streaming_encodec.model.states import LstmState, ResnetState, State


class Streamable(Protocol):
    """The streaming face of every layer."""

    def init_state(self, batch: int) -> State: ...
    def start_outputs(self, n: int) -> int | None: ...
    def start(self, x: Tensor) -> tuple[Tensor, Any]: ...
    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]: ...
    def flush(self, x: Tensor, state: Any) -> Tensor: ...


class Elu(nn.ELU):
    """ELU, without state."""

    def init_state(self, batch: int) -> State:
        return ()

    def start_outputs(self, n: int) -> int | None:
        return n

    def start(self, x: Tensor) -> tuple[Tensor, State]:
        return self(x), ()

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self(x), state

    def flush(self, x: Tensor, state: State) -> Tensor:
        return cast(Tensor, self(x))


class ResidualLstm(nn.Module):
    """``lstm(x) + x`` along time. The step is plain matrix products: graph compilers break on ``nn.LSTM``."""

    def __init__(self, dimension: int, num_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dimension, dimension, num_layers)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, D, T] → [B, D, T]."""
        by_time = x.permute(2, 0, 1)
        outputs: Tensor = self.lstm(by_time)[0]
        return (outputs + by_time).permute(1, 2, 0)

    def init_state(self, batch: int) -> LstmState:
        """Zeros, as ``nn.LSTM`` starts."""
        weight = next(self.lstm.parameters())
        zeros = weight.new_zeros(batch, self.lstm.num_layers, self.lstm.hidden_size)
        return LstmState(zeros, zeros.clone())

    def start_outputs(self, n: int) -> int | None:
        return n if n >= 1 else None

    def start(self, x: Tensor) -> tuple[Tensor, LstmState]:
        return self.step(x, self.init_state(x.shape[0]))

    def step(self, x: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        """``x`` [B, D, n], n ≥ 1 → [B, D, n]."""
        y = x.transpose(1, 2)  # [B, n, D]
        hiddens, cells = [], []
        for layer in range(self.lstm.num_layers):
            w_in, w_rec, b_in, b_rec = self._weights(layer)
            gates_in = y @ w_in.T + (b_in + b_rec)  # [B, n, 4D]
            hidden, cell = state.hidden[:, layer], state.cell[:, layer]  # [B, D]
            outputs = []
            for t in range(y.shape[1]):
                gates = gates_in[:, t] + hidden @ w_rec.T  # [B, 4D]
                i, f, g, o = gates.chunk(4, dim=-1)
                cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
                hidden = torch.sigmoid(o) * torch.tanh(cell)
                outputs.append(hidden)
            y = torch.stack(outputs, dim=1)  # [B, n, D]
            hiddens.append(hidden)
            cells.append(cell)
        return y.transpose(1, 2) + x, LstmState(torch.stack(hiddens, dim=1), torch.stack(cells, dim=1))

    def flush(self, x: Tensor, state: LstmState) -> Tensor:
        return self.step(x, state)[0] if x.shape[-1] else x

    def _weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        names = ("weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l")
        w_in, w_rec, b_in, b_rec = (cast(Tensor, getattr(self.lstm, f"{name}{layer}")) for name in names)
        return w_in, w_rec, b_in, b_rec


class ResnetBlock(nn.Module):
    """ELU, conv, ELU, 1x1 conv, added to the input (through a 1x1 conv where ``use_conv_shortcut``)."""

    def __init__(self, config: EncodecConfig, dim: int, dilation: int) -> None:
        super().__init__()
        hidden = dim // config.compress
        first = StreamableConv1d(config, dim, hidden, config.residual_kernel_size, dilation=dilation)
        self.block = nn.ModuleList([Elu(), first, Elu(), StreamableConv1d(config, hidden, dim, 1)])
        self.shortcut = StreamableConv1d(config, dim, dim, 1) if config.use_conv_shortcut else nn.Identity()
        self.lookahead = first.lookahead

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C, T] → [B, C, T]."""
        y = x
        for layer in self.block:
            y = layer(y)
        return self._shortcut(x) + y

    def init_state(self, batch: int) -> ResnetState:
        first = cast(StreamableConv1d, self.block[1])
        delay = first.conv.weight.new_zeros(batch, first.conv.in_channels, self.lookahead)
        return ResnetState(init_states(self._layers, batch), delay)

    def start_outputs(self, n: int) -> int | None:
        return start_outputs(self._layers, n)

    def start(self, x: Tensor) -> tuple[Tensor, ResnetState]:
        y, states = start_layers(self._layers, x)
        now = x.shape[-1] - self.lookahead
        return self._shortcut(x[..., :now]) + y, ResnetState(states, x[..., now:])

    def step(self, x: Tensor, state: ResnetState) -> tuple[Tensor, ResnetState]:
        y, states = step_layers(self._layers, x, state.block)
        waited = torch.cat((state.delay, x), dim=-1)
        now = x.shape[-1]
        return self._shortcut(waited[..., :now]) + y, ResnetState(states, waited[..., now:])

    def flush(self, x: Tensor, state: ResnetState) -> Tensor:
        y = flush_layers(self._layers, x, state.block)
        return self._shortcut(torch.cat((state.delay, x), dim=-1)) + y

    def _shortcut(self, x: Tensor) -> Tensor:
        # torch refuses to convolve nothing
        return cast(Tensor, self.shortcut(x)) if x.shape[-1] else x

    @property
    def _layers(self) -> Sequence[Streamable]:
        return cast(Sequence[Streamable], self.block)


# -- a stack of layers: used by the residual block, the encoder and the decoder ------------------------------------


def init_states(layers: Sequence[Streamable], batch: int) -> State:
    """The initial state of each layer."""
    return tuple(layer.init_state(batch) for layer in layers)


def start_outputs(layers: Sequence[Streamable], n: int) -> int | None:
    """Outputs of ``start`` through all layers; None if one of them needs other inputs to start."""
    count: int | None = n
    for layer in layers:
        if count is None:
            return None
        count = layer.start_outputs(count)
    return count


def start_layers(layers: Sequence[Streamable], x: Tensor) -> tuple[Tensor, State]:
    """``start`` through all layers."""
    states = []
    for layer in layers:
        x, state = layer.start(x)
        states.append(state)
    return x, tuple(states)


def step_layers(layers: Sequence[Streamable], x: Tensor, states: State) -> tuple[Tensor, State]:
    """``step`` through all layers."""
    after = []
    for layer, state in zip(layers, states, strict=True):
        x, state = layer.step(x, state)
        after.append(state)
    return x, tuple(after)


def flush_layers(layers: Sequence[Streamable], x: Tensor, states: State) -> Tensor:
    """``flush`` through all layers: the last outputs of one are the last inputs of the next."""
    for layer, state in zip(layers, states, strict=True):
        x = layer.flush(x, state)
    return x
