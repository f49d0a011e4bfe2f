"""Weights to start from: an untrained codec that already is a transform codec.

From random weights a codec first learns the phase of the lowest harmonics and climbs from there, for
thousands of steps. But a block transform is a stack of strided convolutions: each layer turns the transforms
of short blocks into that of the block they make up. So the layers start as such a stack, small noise beside
it: the encoder gives the lowest cosine coefficients of each frame, the decoder turns them back into samples,
and training begins from speech that is carried up to 3 kHz. What is above, and all that a linear map can't
do, is left to training.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.layers import ResidualLstm, ResnetBlock
from streaming_encodec.training.config import StartConfig

Matrix = npt.NDArray[np.float64]


@torch.no_grad()
def initialise(model: EncodecModel, start: StartConfig) -> None:
    """Set all weights of encoder and decoder, drawing from torch's global generator."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            _draw(module, start.noise, module.in_channels * module.kernel_size[0])
        elif isinstance(module, nn.ConvTranspose1d):
            # An output sample sums kernel / stride inputs of each channel.
            _draw(module, start.noise, module.in_channels * module.kernel_size[0] // module.stride[0])
    for module in model.modules():
        if isinstance(module, ResnetBlock):
            _main_convolutions(module.block)[-1].weight.mul_(start.noise)
            if not isinstance(module.shortcut, nn.Identity):
                _identity(_main_convolutions(module.shortcut)[0], start.noise)
        elif isinstance(module, ResidualLstm):
            for weight in module.lstm.parameters():
                weight.mul_(0.0 if weight.dim() == 1 else start.lstm_gain)
    weights = _emphasis(model, start)
    _set_encoder(model, start, weights)
    _set_decoder(model, start, weights)


def _set_encoder(model: EncodecModel, start: StartConfig, weights: Tensor) -> None:
    first, *strided, last = _main_convolutions(model.encoder.layers)
    first.weight[0] *= 0.0
    first.weight[0, :, -1] = start.level / first.in_channels
    block, held = 1, 1
    for conv in strided:
        ratio = conv.stride[0]
        matrix, held_after = _merge(block, held, ratio, conv.out_channels)
        # The second half of the taps is the block itself, the first half the one before it.
        taps = torch.from_numpy(matrix).to(conv.weight).view(held_after, ratio, held).transpose(1, 2)
        conv.weight[:held_after] = start.noise * conv.weight[:held_after]
        conv.weight[:held_after, :held, ratio:] += taps
        block, held = block * ratio, held_after
    last.weight /= start.noise * start.level  # the free part of the latent as loud as the carried one
    for index, weight in enumerate(weights.tolist()):
        last.weight[index] *= 0.0
        last.weight[index, index, -1] = weight


def _set_decoder(model: EncodecModel, start: StartConfig, weights: Tensor) -> None:
    first, *strided, last = _main_convolutions(model.decoder.layers)
    first.weight *= start.noise  # noise in a high coefficient is loud hiss
    for index, weight in enumerate(weights.tolist()):
        first.weight[index] *= 0.0
        first.weight[index, index, -1] = 1.0 / weight
    block = model.config.hop_length
    for conv in strided:
        ratio = conv.stride[0]
        block //= ratio
        held = min(conv.out_channels, block)
        matrix, _ = _merge(block, held, ratio, conv.in_channels)
        # The first half of the taps is the block itself, the second half reaches into the next one.
        taps = torch.from_numpy(matrix).to(conv.weight).view(-1, ratio, held).transpose(1, 2)
        conv.weight[:, :held] *= start.noise
        conv.weight[: len(taps), :held, :ratio] += taps
    last.weight *= start.noise
    last.weight[:, 0] *= 0.0
    last.weight[:, 0, -1] = 1.0 / start.level


def _merge(block: int, held: int, ratio: int, channels: int) -> tuple[Matrix, int]:
    """From the lowest ``held`` coefficients of ``ratio`` blocks to those of the block they make up.

    Returns the matrix ``[n, ratio * held]`` (time-major) and n, as many as ``channels`` can hold.
    """
    long, short = cosine_transform(block * ratio), cosine_transform(block)[:held]
    kept = min(channels, block * ratio)
    return long[:kept] @ np.kron(np.eye(ratio), short.T), kept


def cosine_transform(size: int) -> Matrix:
    """The orthonormal DCT-II as a matrix: row k is the cosine of k half-periods a block."""
    k, n = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    matrix: Matrix = np.cos(np.pi * k * (2 * n + 1) / (2 * size)) * np.sqrt(2.0 / size)
    matrix[0] /= np.sqrt(2.0)
    return matrix


def _emphasis(model: EncodecModel, start: StartConfig) -> Tensor:
    """Weights of the coefficients in the latent: the quantiser sees 0.5 to 2 kHz as more than its energy."""
    config = model.config
    carried = min(int(start.carried_share * config.hidden_size), config.hop_length)
    hertz = torch.arange(carried) * config.sampling_rate / (2.0 * config.hop_length)
    return (0.5 + hertz / 1000.0).clamp_max(2.0) / start.level


def _main_convolutions(module: nn.Module) -> list[nn.Conv1d]:
    """The convolutions of a stack in order, without those inside its residual blocks."""
    inside = {id(m) for block in module.modules() if isinstance(block, ResnetBlock) for m in block.modules()}
    kinds = (nn.Conv1d, nn.ConvTranspose1d)
    return [cast(nn.Conv1d, m) for m in module.modules() if isinstance(m, kinds) and id(m) not in inside]


def _identity(conv: nn.Conv1d, noise: float) -> None:
    conv.weight.mul_(noise)
    channels = range(conv.in_channels)
    conv.weight[channels, channels, 0] += 1.0


def _draw(conv: nn.Conv1d | nn.ConvTranspose1d, noise: float, fan_in: int) -> None:
    conv.weight.normal_(std=noise * fan_in**-0.5)
    if conv.bias is not None:
        conv.bias.zero_()
