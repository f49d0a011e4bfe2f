"""Random initial weights, scaled so that each layer keeps the level of the sound.

torch's default halves a signal at every layer, so that a deep codec starts near silence and needs a thousand steps to
reach the level. Here each layer keeps the variance (arXiv 1502.01852, with a gain for ELU), residual branches start
small, and the latent and the output are scaled to their levels with a batch of real speech.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.layers import ResnetBlock

_GAIN = 1.1
_BRANCH = 0.3
_FIRST = 3.0
"""Speech has a level of about 0.1; the first layer raises it to where ELU is nonlinear."""
_OUTPUT = 0.5


@torch.no_grad()
def initialise(model: EncodecModel, batch: Tensor) -> None:
    """Initialize encoder and decoder from torch's global generator; ``batch`` [B, C, T] is speech."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            _draw(module, module.in_channels * module.kernel_size[0])
        elif isinstance(module, nn.ConvTranspose1d):
            # An output sample sums kernel / stride inputs of each channel.
            _draw(module, module.in_channels * module.kernel_size[0] // module.stride[0])
    for module in model.modules():
        if isinstance(module, ResnetBlock):
            _convolutions(module.block)[-1].weight.mul_(_BRANCH)
    first, last = _convolutions(model.encoder.layers)[0], _convolutions(model.encoder.layers)[-1]
    first.weight.mul_(_FIRST)
    last.weight.div_(model.encoder(batch).std())
    output = model.decoder(model.encoder(batch))
    _convolutions(model.decoder.layers)[-1].weight.mul_(_OUTPUT * batch.std() / output.std())


@torch.no_grad()
def deepen(model: EncodecModel, residual_layers: int) -> EncodecModel:
    """``model`` with more residual layers a stage, initialized as identities: the codec's output is unchanged."""
    deep = EncodecModel(replace(model.config, num_residual_layers=residual_layers))
    deep.quantizer.load_state_dict(model.quantizer.state_dict())
    for old_stack, new_stack in ((model.encoder, deep.encoder), (model.decoder, deep.decoder)):
        rest = list(old_stack.layers)
        for layer in new_stack.layers:
            if isinstance(layer, ResnetBlock) and not isinstance(rest[0], ResnetBlock):
                convolutions = _convolutions(layer.block)
                for convolution in convolutions:
                    _draw(convolution, convolution.in_channels * convolution.kernel_size[0])
                convolutions[-1].weight.zero_()
                continue
            layer.load_state_dict(rest.pop(0).state_dict())
    return deep


def _convolutions(module: nn.Module) -> list[nn.Conv1d]:
    kinds = (nn.Conv1d, nn.ConvTranspose1d)
    return [cast(nn.Conv1d, part) for part in module.modules() if isinstance(part, kinds)]


def _draw(conv: nn.Conv1d | nn.ConvTranspose1d, fan_in: int) -> None:
    conv.weight.normal_(std=_GAIN * fan_in**-0.5)
    if conv.bias is not None:
        conv.bias.zero_()
