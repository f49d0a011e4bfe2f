"""Compares gradients of a reduced precision with float32's on this machine, before a run.

On some CPUs the input gradient of ``ConvTranspose1d`` in bfloat16 is wrong for some shapes, and a run with it
diverges. A run in bfloat16 therefore starts with this comparison.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from streaming_encodec.errors import ConfigError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.training import products

LEAST_COSINE = 0.9
"""bfloat16 keeps 8 bits: with correct kernels the cosine of its gradients to float32's stays above 0.99."""


def codec_gradients(
    config: EncodecConfig,
    device: torch.device,
    dtype: torch.dtype,
    low: torch.dtype | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Gradients of encoder and decoder (float64, on the CPU) of one fixed draw, by parameter name.

    ``low``: products in this precision, computed as in a run on the device.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EncodecModel(config)
    model = model.to(device, dtype).train()
    x = torch.randn(2, config.audio_channels, 6 * config.hop_length, generator=generator) * 0.3
    x = x.to(device, dtype)
    y = products.forward(model.decoder, config, products.forward(model.encoder, config, x, low), low)
    torch.autograd.backward(F.mse_loss(y.to(x.dtype), x))
    return {
        name: parameter.grad.detach().cpu().double()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def least_cosine(one: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[str, float]:
    """The parameter with the lowest cosine between the two gradients, and that cosine."""
    cosines = {
        name: float(F.cosine_similarity(one[name].flatten(), other[name].flatten(), dim=0, eps=1e-30)) for name in one
    }
    worst = min(cosines, key=lambda name: cosines[name])
    return worst, cosines[worst]


def beside_float32(device: torch.device, low: torch.dtype) -> float:
    """Time of a product in ``low`` relative to float32, the best of several runs."""

    def seconds(dtype: torch.dtype) -> float:
        a, b = torch.ones(256, 512, dtype=dtype, device=device), torch.ones(512, 512, dtype=dtype, device=device)
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            float((a @ b)[0, 0])  # waits for the device
            times.append(time.perf_counter() - begin)
        return min(times)

    return seconds(low) / seconds(torch.float32)


def require_sane_gradients(config: EncodecConfig, device: torch.device, low: torch.dtype) -> float:
    """The lowest cosine of gradients in ``low`` to float32's. Raises `ConfigError` if it is too low."""
    exact = codec_gradients(config, device, torch.float32)
    rough = codec_gradients(config, device, torch.float32, low)
    worst, cosine = least_cosine(exact, rough)
    if cosine < LEAST_COSINE:
        raise ConfigError(
            f"{low} gives {worst} a gradient with cosine {cosine:.2f} to float32's on this machine: "
            "train with precision='float32', or change upsampling_ratios or num_filters"
        )
    return cosine
