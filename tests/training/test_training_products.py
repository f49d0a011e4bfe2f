"""Encoder and decoder as matrix products: the layers' own results and gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.training import products
from streaming_encodec.training.config import VOICE_24KHZ

SMALL = dataclasses.replace(
    VOICE_24KHZ, num_filters=4, upsampling_ratios=(2, 3, 4), hidden_size=8, codebook_dim=8, pad_mode="constant"
)
CONFIGS = {
    "voice": SMALL,
    "dilated": dataclasses.replace(SMALL, num_residual_layers=3, residual_kernel_size=4),
    "shortcut": dataclasses.replace(SMALL, use_conv_shortcut=True, num_lstm_layers=2),
    "no LSTM": dataclasses.replace(SMALL, num_lstm_layers=0, kernel_size=5, last_kernel_size=3),
    "wide": dataclasses.replace(SMALL, num_filters=48, upsampling_ratios=(8, 10), compress=3),
    "stereo": dataclasses.replace(SMALL, audio_channels=2),
}


def model_of(config: EncodecConfig) -> EncodecModel:
    torch.manual_seed(3)
    return EncodecModel(config).train()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_results_and_all_gradients_are_the_layers(config: EncodecConfig) -> None:
    model = model_of(config)
    samples = torch.randn(3, config.audio_channels, 16 * config.hop_length) * 0.3

    def by_layers(x: Tensor) -> Tensor:
        return model.decoder(model.encoder(x))

    def by_products(x: Tensor) -> Tensor:
        latent = products.run(model.encoder.layers, x, torch.float32)
        return products.run(model.decoder.layers, latent, torch.float32)

    expected, wanted = gradients(model, by_layers, samples)
    output, got = gradients(model, by_products, samples)
    assert torch.allclose(output, expected, atol=1e-5)
    assert got.keys() == wanted.keys()
    assert len(wanted) > 10
    for name, gradient in wanted.items():
        assert torch.allclose(got[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())), name


def gradients(
    model: nn.Module, network: Callable[[Tensor], Tensor], samples: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    x = samples.clone().requires_grad_()
    output = network(x)
    torch.autograd.backward((output * torch.linspace(-1.0, 1.0, output.shape[-1])).square().sum())
    assert x.grad is not None
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return output.detach(), found | {"samples": x.grad}


def test_bfloat16_follows_float32() -> None:
    model = model_of(VOICE_24KHZ)
    samples = torch.randn(2, 1, 4800) * 0.1
    _, exact = gradients(model, lambda x: products.run(model.encoder.layers, x, torch.float32), samples)
    _, rough = gradients(model, lambda x: products.run(model.encoder.layers, x, torch.bfloat16), samples)
    for name, gradient in exact.items():
        assert float(F.cosine_similarity(rough[name].flatten(), gradient.flatten(), dim=0)) > 0.98, name


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (3, 1, 4), (7, 1, 1), (1, 1, 1), (8, 4, 1), (7, 3, 1)]
)
@pytest.mark.parametrize("outputs", [3, 300])
def test_a_convolution_of_any_shape(kernel: int, stride: int, dilation: int, outputs: int) -> None:
    torch.manual_seed(kernel)
    x = torch.randn(2, 24, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(outputs, 5, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(outputs, dtype=torch.float64, requires_grad=True)
    left = (kernel - 1) * dilation + 1 - stride
    wanted = F.conv1d(F.pad(F.elu(x.transpose(1, 2)), (left, 0)), weight, bias, stride, 0, dilation).transpose(1, 2)
    got = products.convolve(x, weight, bias, stride, dilation, elu=True)
    assert torch.allclose(got, wanted, atol=1e-10)
    pull = torch.randn(wanted.shape, dtype=torch.float64)
    expected = torch.autograd.grad((wanted * pull).sum(), (x, weight, bias))
    for one, other in zip(torch.autograd.grad((got * pull).sum(), (x, weight, bias)), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def test_only_causal_layers_without_group_norm_have_this_form() -> None:
    assert products.can_run(VOICE_24KHZ)
    changes = ({"use_causal_conv": False}, {"norm_type": "time_group_norm"}, {"trim_right_ratio": 0.5})
    for change in (*changes, {"pad_mode": "reflect"}):
        assert not products.can_run(dataclasses.replace(VOICE_24KHZ, **change))
