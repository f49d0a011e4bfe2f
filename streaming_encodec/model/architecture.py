"""The layers of an EnCodec model (SEANet, arXiv 2009.02095) as plain numbers: what each sees, remembers and waits for.

``seanet.py`` builds the same layers in torch, and the kernel computes from these. From them follow, without torch, the
names and shapes of the weights, a stream's state, and how long a stream must wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.geometry import ConvGeometry, trim_right
from streaming_encodec.model.states import ConvState, ConvTransposeState, LstmState, ResnetState, State
from streaming_encodec.types import Floats

CONV, TRANSPOSED, LSTM, RESIDUAL = range(4)
_PADS = {"constant": 0, "reflect": 1, "replicate": 2, "circular": 3}  # the last one for no stream

# No EnCodec needs more frames than this before its paddings are decided; a search that gets here is a bug.
_MOST_START_FRAMES = 100_000


@dataclass(frozen=True)
class Layer:
    """As ``Layer`` in ``kernel.c``, field by field."""

    kind: int
    elu: int
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    history: int = 0
    lookahead: int = 0
    trim: int = 0
    pad: int = 0
    matrix: int = 0
    count: int = 0
    state: int = 0

    @property
    def state_floats(self) -> int:
        """What it remembers of a stream."""
        if self.kind == TRANSPOSED:
            return self.stride * self.outputs
        if self.kind == LSTM:
            return 2 * self.count * self.inputs
        delay = self.lookahead if self.kind == RESIDUAL else 0
        return (self.history + delay) * self.inputs

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Inputs and outputs of its matrices."""
        if self.kind == TRANSPOSED:
            return [(self.inputs, 2 * self.stride * self.outputs)]
        if self.kind == LSTM:
            return [(self.inputs, 4 * self.inputs)] * (2 * self.count)
        first = (self.kernel * self.inputs, self.outputs)
        if self.kind == CONV:
            return [first]
        return [first, (self.outputs, self.inputs), *[(self.inputs, self.inputs)] * self.count]


@dataclass(frozen=True)
class Part:
    """Encoder or decoder: its layers, channels at both ends, and the floats of a stream's state."""

    layers: tuple[Layer, ...]
    inputs: int
    outputs: int
    state_floats: int


# -- which layers there are: an ELU goes along with the layer after it --------------------------------------------


@lru_cache(maxsize=32)
def make_parts(config: EncodecConfig) -> tuple[Part, Part]:
    """Encoder and decoder of a configuration."""
    encoder = _part(_encoder_layers(config), 0)
    return encoder, _part(_decoder_layers(config), sum(len(layer.shapes) for layer in encoder.layers))


def _part(layers: Iterator[Layer], matrix: int) -> Part:
    placed, state = [], 0
    for layer in layers:
        placed.append(replace(layer, matrix=matrix, state=state))
        matrix += len(layer.shapes)
        state += layer.state_floats
    return Part(tuple(placed), placed[0].inputs, placed[-1].outputs, state)


def _encoder_layers(config: EncodecConfig) -> Iterator[Layer]:
    dim = config.num_filters
    yield _conv(config, 0, config.audio_channels, dim, config.kernel_size)
    for ratio in reversed(config.upsampling_ratios):
        yield from _residuals(config, dim)
        yield _conv(config, 1, dim, 2 * dim, 2 * ratio, ratio)
        dim *= 2
    yield from _lstm(config, dim)
    yield _conv(config, 1, dim, config.hidden_size, config.last_kernel_size)


def _decoder_layers(config: EncodecConfig) -> Iterator[Layer]:
    dim = config.num_filters * 2 ** len(config.upsampling_ratios)
    yield _conv(config, 0, config.hidden_size, dim, config.kernel_size)
    yield from _lstm(config, dim)
    for ratio in config.upsampling_ratios:
        trim = ratio - trim_right(config, ratio)
        yield Layer(TRANSPOSED, 1, dim, dim // 2, kernel=2 * ratio, stride=ratio, trim=trim)
        dim //= 2
        yield from _residuals(config, dim)
    yield _conv(config, 1, dim, config.audio_channels, config.last_kernel_size)


def _conv(config: EncodecConfig, elu: int, inputs: int, outputs: int, kernel: int, stride: int = 1) -> Layer:
    geometry = ConvGeometry(kernel, stride, 1, config.use_causal_conv, config.pad_mode)
    seen = (kernel, stride, 1, geometry.history_length, geometry.lookahead)
    return Layer(CONV, elu, inputs, outputs, *seen, pad=_PADS[config.pad_mode])


def _residuals(config: EncodecConfig, dim: int) -> Iterator[Layer]:
    for j in range(config.num_residual_layers):
        kernel, dilation = config.residual_kernel_size, config.dilation_growth_rate**j
        geometry = ConvGeometry(kernel, 1, dilation, config.use_causal_conv, config.pad_mode)
        seen = (kernel, 1, dilation, geometry.history_length, geometry.lookahead)
        shortcuts = int(config.use_conv_shortcut)
        yield Layer(RESIDUAL, 1, dim, dim // config.compress, *seen, pad=_PADS[config.pad_mode], count=shortcuts)


def _lstm(config: EncodecConfig, dim: int) -> Iterator[Layer]:
    if config.num_lstm_layers:
        yield Layer(LSTM, 0, dim, dim, count=config.num_lstm_layers)


# -- what a stream waits for ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """How long one direction of a stream waits, in its inputs and outputs."""

    start_inputs: int
    """Inputs before the first output where a stream starts as the offline model does: every padding is decided."""
    lookahead_inputs: int
    """Inputs beyond a frame's own that the steady stream waits for."""
    delay_outputs: int
    """Outputs that the steady stream is late: transposed convolutions trimmed on the left."""


@lru_cache(maxsize=32)
def encoder_timing(config: EncodecConfig) -> Timing:
    """Of samples to latent frames."""
    layers, hop = make_parts(config)[0].layers, config.hop_length
    lookahead, rate = 0, 1
    for layer in layers:
        lookahead += layer.lookahead * rate
        rate *= layer.stride
    starts = (lookahead + frames * hop for frames in range(1, _MOST_START_FRAMES))
    return Timing(next(n for n in starts if _start_outputs(layers, n, config) is not None), lookahead, 0)


@lru_cache(maxsize=32)
def decoder_timing(config: EncodecConfig) -> Timing:
    """Of latent frames to samples."""
    layers = make_parts(config)[1].layers
    counts = ((frames, _start_outputs(layers, frames, config)) for frames in range(1, _MOST_START_FRAMES))
    frames, outputs = next((frames, outputs) for frames, outputs in counts if outputs is not None)
    return Timing(frames, 0, frames * config.hop_length - outputs)


def _start_outputs(layers: Sequence[Layer], n: int, config: EncodecConfig) -> int | None:
    """Outputs for the first ``n`` inputs; None where they do not decide what the offline model pads with."""
    least = 0 if config.pad_mode == "constant" else 1
    for layer in layers:
        if layer.kind in (TRANSPOSED, LSTM):
            if n < 1:
                return None
            n = n * layer.stride - layer.trim
            continue
        geometry = ConvGeometry(layer.kernel, layer.stride, layer.dilation, config.use_causal_conv, config.pad_mode)
        decided = geometry.reflected if config.pad_mode == "reflect" else least
        if n < max(decided, layer.lookahead) or (n - layer.lookahead) % layer.stride:
            return None
        n = (n - layer.lookahead) // layer.stride
        if layer.kind == RESIDUAL and n < least:
            return None
    return n


# -- what it remembers ---------------------------------------------------------------------------------------------


def zero_state(part: Part, batch: int) -> State:
    """The state of layers that have seen nothing: zeros, in ``seanet.py``'s order of layers."""
    states: list[State] = []

    def zeros(channels: int, length: int) -> Floats:
        return np.zeros((batch, channels, length), np.float32)

    for layer in part.layers:
        if layer.elu and layer.kind in (CONV, TRANSPOSED):
            states.append(())  # the ELU, there a layer of its own
        if layer.kind == CONV:
            states.append(ConvState(zeros(layer.inputs, layer.history)))
        elif layer.kind == TRANSPOSED:
            states.append(ConvTransposeState(zeros(layer.outputs, layer.stride)))
        elif layer.kind == LSTM:
            states.append(LstmState(zeros(layer.count, layer.inputs), zeros(layer.count, layer.inputs)))
        else:
            first, second = ConvState(zeros(layer.inputs, layer.history)), ConvState(zeros(layer.outputs, 0))
            states.append(ResnetState(((), first, (), second), zeros(layer.inputs, layer.lookahead)))
    return tuple(states)


# -- its weights ---------------------------------------------------------------------------------------------------


def named_layers(config: EncodecConfig) -> Iterator[tuple[str, Layer]]:
    """All layers with their names in checkpoints, such as ``encoder.layers.3``."""
    for name, part in zip(("encoder", "decoder"), make_parts(config), strict=True):
        index = 0
        for layer in part.layers:
            index += layer.elu if layer.kind in (CONV, TRANSPOSED) else 0  # there a layer of its own
            yield f"{name}.layers.{index}", layer
            index += 1


def codebook_names(config: EncodecConfig) -> list[str]:
    """The codebooks' names in checkpoints, coarse first."""
    return [f"quantizer.layers.{k}.codebook.embed" for k in range(config.num_quantizers)]


def weight_shapes(config: EncodecConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every plain weight (no weight norm)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inputs: int, outputs: int, kernel: int, transposed: bool = False) -> None:
        shapes[f"{name}.conv.weight"] = (inputs, outputs, kernel) if transposed else (outputs, inputs, kernel)
        shapes[f"{name}.conv.bias"] = (outputs,)
        if config.norm_type == "time_group_norm":
            shapes[f"{name}.norm.weight"] = shapes[f"{name}.norm.bias"] = (outputs,)

    for name, layer in named_layers(config):
        inputs, outputs = layer.inputs, layer.outputs
        if layer.kind == LSTM:
            for i in range(layer.count):
                for kind in ("ih", "hh"):
                    shapes[f"{name}.lstm.weight_{kind}_l{i}"] = (4 * inputs, inputs)
                    shapes[f"{name}.lstm.bias_{kind}_l{i}"] = (4 * inputs,)
        elif layer.kind == RESIDUAL:
            conv(f"{name}.block.1", inputs, outputs, layer.kernel)
            conv(f"{name}.block.3", outputs, inputs, 1)
            if layer.count:
                conv(f"{name}.shortcut", inputs, inputs, 1)
        else:
            conv(name, inputs, outputs, layer.kernel, layer.kind == TRANSPOSED)
    return shapes | dict.fromkeys(codebook_names(config), (config.codebook_size, config.hidden_size))
