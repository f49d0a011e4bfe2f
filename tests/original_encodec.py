"""The original `encodec` package as an oracle, in small sizes and with weights that test something.

It imports torchaudio, only to resample, which no test asks of it: an empty module stands in meanwhile.
"""

import io
import math
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch

_had_torchaudio = "torchaudio" in sys.modules
sys.modules.setdefault("torchaudio", ModuleType("torchaudio"))
# By name: the package has functions that hide its modules of the same name.
_compress = import_module("encodec.compress")
_model = import_module("encodec.model")
_modules = import_module("encodec.modules")
_quantization = import_module("encodec.quantization")
if not _had_torchaudio:
    del sys.modules["torchaudio"]  # or others would take the empty module for the real one

Original = _model.EncodecModel


def small_original(rate: int, seed: int = 0) -> Original:
    """The 24 or 48 kHz architecture with 4 filters and a latent of 16; all else as published."""
    torch.manual_seed(seed)
    stereo = rate == 48_000
    sizes = {
        "channels": 2 if stereo else 1,
        "n_filters": 4,
        "dimension": 16,
        "causal": not stereo,
        "norm": "time_group_norm" if stereo else "weight_norm",
    }
    encoder = _modules.SEANetEncoder(**sizes)
    bandwidths = [3.0, 6.0, 12.0, 24.0] if stereo else [1.5, 3.0, 6.0, 12.0, 24.0]
    books = int(1000 * bandwidths[-1] // (math.ceil(rate / encoder.hop_length) * 10))
    model = Original(
        encoder,
        _modules.SEANetDecoder(**sizes),
        _quantization.ResidualVectorQuantizer(dimension=16, n_q=books, bins=1024),
        bandwidths,
        rate,
        sizes["channels"],
        normalize=stereo,
        segment=1.0 if stereo else None,
        name=f"encodec_{rate // 1000}khz",
    )
    return randomise(model)


def full_original_24khz(seed: int = 0) -> Original:
    """The published 24 kHz model's architecture and size."""
    torch.manual_seed(seed)
    return randomise(Original._get_model([1.5, 3.0, 6.0, 12.0, 24.0], name="encodec_24khz"))


@torch.no_grad()
def randomise(model: Original) -> Original:
    """Non-zero biases and norms, and codebooks made of what they quantise, so that codes vary."""
    for name, parameter in model.named_parameters():
        if "bias" in name or name.endswith("norm.weight"):
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    residual = model.encoder(torch.randn(1, model.channels, 2 * model.sample_rate) * 0.3)[0].T  # [F, D]
    for layer in model.quantizer.vq.layers:
        codebook = layer._codebook
        picked = residual[torch.randint(len(residual), (len(codebook.embed),))]
        codebook.embed.copy_(picked + 0.3 * residual.std() * torch.randn_like(picked))
        codebook.inited.fill_(True)
        residual = residual - codebook.embed[torch.cdist(residual, codebook.embed).argmin(dim=1)]
    return model


def save_th(model: Original, path: Path) -> Path:
    """Write the state dict as the original's checkpoints are."""
    torch.save(model.state_dict(), path)
    return path


def decompress(model: Original, data: bytes) -> torch.Tensor:
    """The original's own reader on `data`, with `model` in place of the published weights: [C, T]."""
    with mock.patch.dict(_compress.MODELS, {model.name: lambda: model}):
        sound, rate = _compress.decompress_from_file(io.BytesIO(data))
    assert rate == model.sample_rate
    return sound


def compress(model: Original, sound: torch.Tensor) -> bytes:
    """The original's own writer on `sound` [C, T]."""
    data: bytes = _compress.compress(model, sound, use_lm=False)
    return data
