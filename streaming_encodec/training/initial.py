"""Weights to start from: signals keep their level through the untrained codec.

The frameworks' usual start shrinks a signal by almost half in each layer and adds random biases: after twenty
layers the latent knows nothing of the sound, and the phase takes thousands of steps to be found. Here
variance is kept from layer to layer (arXiv 1502.01852) and biases are zero, so that the start is close to a
linear transform.
"""

from __future__ import annotations

import torch
from torch import nn

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.layers import ResnetBlock

LEVEL_GAIN = 3.0
"""Speech has a level near 0.1; the first layer lifts it to where ELU bends, the last one lowers it."""

BRANCH_GAIN = 0.5
"""A residual branch starts weaker than what it is added to."""


@torch.no_grad()
def initialise(model: EncodecModel) -> None:
    """Draw all convolution weights anew from torch's global generator; the LSTMs keep torch's start."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            _draw(module, module.in_channels * module.kernel_size[0])
        elif isinstance(module, nn.ConvTranspose1d):
            # An output sample sums kernel / stride inputs of each channel.
            _draw(module, module.in_channels * module.kernel_size[0] // module.stride[0])
    for module in model.modules():
        if isinstance(module, ResnetBlock):
            _convolutions(module.block)[-1].weight.mul_(BRANCH_GAIN)
    _convolutions(model.encoder)[0].weight.mul_(LEVEL_GAIN)
    _convolutions(model.decoder)[-1].weight.div_(LEVEL_GAIN)


def _convolutions(module: nn.Module) -> list[nn.Conv1d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv1d)]


def _draw(conv: nn.Conv1d | nn.ConvTranspose1d, fan_in: int) -> None:
    conv.weight.normal_(std=fan_in**-0.5)
    if conv.bias is not None:
        conv.bias.zero_()
