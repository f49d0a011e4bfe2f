"""Writing a model as a folder in Hugging Face layout, and checking weights that are in memory. Needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from streaming_encodec.audio.files.atomic import AtomicFiles
from streaming_encodec.errors import CheckpointError, FileFormatError
from streaming_encodec.model.checkpoints.pretrained import CONFIG_NAME
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.stored import WEIGHTS_NAME, StoredTensor
from streaming_encodec.model.weights import TRAINING_BUFFERS, PlainWeights, row_norms

PREPROCESSOR_NAME = "preprocessor_config.json"

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def weights_in_memory(config: EncodecConfig, tensors: Mapping[str, Tensor], source: str) -> PlainWeights:
    """Tensors under Hugging Face's names as the plain weights of a model; ``source`` is for messages.

    Raises:
        CheckpointError: they do not fit the configuration, or one is no plain float tensor.
    """
    return PlainWeights(config, {name: _in_memory(name, tensor, source) for name, tensor in tensors.items()}, source)


def _in_memory(name: str, tensor: Tensor, source: str) -> StoredTensor:
    """Raises ``CheckpointError`` unless the tensor is dense, of floats, and as large as it says."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in _FLOATS:
        raise CheckpointError(
            f"{source}: tensor {name} is {tensor.dtype}, {tensor.layout}, on {tensor.device}: no plain float tensor"
        )
    held = tensor.untyped_storage().nbytes() if tensor.numel() else 0
    if tensor.numel() * tensor.element_size() > held:
        raise CheckpointError(
            f"{source}: tensor {name} says that it is {list(tensor.shape)}, but holds only {held} bytes: save its"
            " contiguous() copy"
        )
    plain = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return StoredTensor(tuple(tensor.shape), tensor.dtype == torch.float64, lambda: plain.detach().cpu().numpy())


def save_folder(
    config: EncodecConfig,
    weights: Mapping[str, Tensor],
    folder: str | Path,
    dtype: torch.dtype | None = None,
    training_buffers: bool = True,
) -> None:
    """Write a folder that ``transformers`` loads as its own: configuration, weights, and what ``AutoProcessor`` reads.

    All files appear whole or not at all; a folder that is there already keeps what else it holds.

    Args:
        config: the architecture.
        weights: a model's ``state_dict()``.
        folder: made where it does not exist.
        dtype: of the tensors in the file; None keeps the model's. ``torch.float16`` halves the file, and is
            read back as float32 here and by ``transformers``; magnitudes of weight norm stay float32.
        training_buffers: also write what training would keep beside each codebook, all zeros and as large again:
            they are never read, but ``transformers`` expects them. Without, it loads the folder with a warning.

    Raises:
        CheckpointError: a weight is not finite in that dtype, or the folder cannot be written.
    """
    folder = Path(folder)
    tensors = export_tensors(config, weights, dtype)
    if not training_buffers:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(TRAINING_BUFFERS)}
    compute = torch.promote_types(next(iter(weights.values())).dtype, torch.float32)
    values = {**config.to_dict(), "dtype": str(compute).removeprefix("torch.")}
    try:
        with AtomicFiles(folder, last=CONFIG_NAME) as part:
            save_file(tensors, part / WEIGHTS_NAME, metadata={"format": "pt"})
            _write_json(part / PREPROCESSOR_NAME, _preprocessor(config))
            _write_json(part / CONFIG_NAME, values)
    except FileFormatError as error:
        raise CheckpointError(f"{error}; choose a folder on a disk with space") from error


def _preprocessor(config: EncodecConfig) -> dict[str, Any]:
    """What ``transformers`` needs to know to make the model's inputs: its ``EncodecFeatureExtractor``'s fields."""
    return {
        "chunk_length_s": config.chunk_length_s,
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": config.audio_channels,
        "overlap": config.overlap,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": config.sampling_rate,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def export_tensors(
    config: EncodecConfig, weights: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """A model's weights under Hugging Face's names, with weight norm in the published spelling.

    Raises:
        CheckpointError: a weight is not finite in ``dtype``, or ``dtype`` is none that a checkpoint may have.
    """
    if dtype is not None and dtype not in _FLOATS:
        raise CheckpointError(f"weights cannot be saved as {dtype}: choose float16, bfloat16, float32 or float64")
    tensors: dict[str, Tensor] = {}
    for name, value in weights.items():
        weight = value.detach().cpu().to(dtype or value.dtype)
        if not bool(weight.isfinite().all()):
            raise CheckpointError(f"tensor {name} is not finite in {weight.dtype}: this model cannot be saved so")
        if name.endswith(".conv.weight") and config.norm_type == "weight_norm":
            g, v = _unfold(weight)
            tensors[f"{name}_g"], tensors[f"{name}_v"] = g.contiguous(), v.contiguous()
            continue
        tensors[name] = weight.clone(memory_format=torch.contiguous_format)
        if name.endswith(".codebook.embed"):
            # transformers asks for training's buffers. Zeros, as it starts them: they compress to nothing.
            stem = name.removesuffix("embed")
            tensors[f"{stem}inited"] = torch.ones(1)
            tensors[f"{stem}cluster_size"] = weight.new_zeros(weight.shape[0])
            tensors[f"{stem}embed_avg"] = torch.zeros_like(weight)
    return tensors


def _unfold(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``g`` (at least float32) and ``v`` of plain weights, so that folding them gives back ``weight``.

    A zero row has no direction: it gets a vector of ones with magnitude zero, where dividing zero by zero would make
    NaN of it.
    """
    norm = torch.from_numpy(row_norms(weight.double().numpy())).reshape(-1, *[1] * (weight.dim() - 1))
    v = torch.where(norm == 0, torch.ones_like(weight), weight)
    return norm.to(torch.promote_types(weight.dtype, torch.float32)), v
