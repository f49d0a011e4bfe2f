"""Folders in Hugging Face layout (``config.json``, ``model.safetensors``): checked when read, written atomically.

Weight norm may be spelled in either of torch's ways or be folded already; the model holds plain weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from streaming_encodec.audio.files.atomic import AtomicFiles
from streaming_encodec.errors import CheckpointError, ConfigError, FileFormatError
from streaming_encodec.model.checkpoints.weight_norm import DIRECTION_SUFFIXES, MAGNITUDE_SUFFIXES, fold, unfold
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.stored import FLOATS, WEIGHTS_NAME, StoredTensor, described, open_weights, weights_source

if TYPE_CHECKING:
    from streaming_encodec.model.encodec import EncodecModel

CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"

_BITS_IN_OLDER_FILES = 10
"""Bits of a code, as transformers counted until 4.51 for codebooks of any size."""

# What training keeps beside each codebook; inference needs none of it.
_TRAINING_BUFFERS = (".inited", ".cluster_size", ".embed_avg")
_NAMES_IN_MESSAGE = 5


# -- in ------------------------------------------------------------------------------------------------------


def load_folder(folder: str | Path) -> EncodecModel:
    """Load a folder in Hugging Face layout, in float32 (float64 where the file is); its weights may lie in shards.

    Raises:
        CheckpointError: a file is missing or damaged, the model would be too large (see ``size``), or a tensor is
            missing, too many, of another shape or not finite; the message names file and tensor.
    """
    folder = Path(folder)
    try:
        config = EncodecConfig.from_json(folder / CONFIG_NAME)
    except ConfigError as error:
        raise CheckpointError(f"{folder} holds no EnCodec model: {error}") from error
    with open_weights(folder) as tensors:
        return build_model(config, tensors, weights_source(folder))


def build_model(config: EncodecConfig, tensors: Mapping[str, Tensor | StoredTensor], source: str) -> EncodecModel:
    """A model with these weights, each one checked; nothing is read or made before all of them fit.

    Args:
        config: the architecture.
        tensors: weights under Hugging Face's names, weight norm in any spelling.
        source: the file that they come from, for messages.

    Raises:
        CheckpointError: as in ``load_folder``.
    """
    from streaming_encodec.model.encodec import EncodecModel

    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(_TRAINING_BUFFERS)}
    parts = _sorted_by_weight(described(kept, source), source)
    try:
        config = _as_stored(config, parts)
        with torch.device("meta"):  # neither memory nor random numbers for weights that are about to be replaced
            model = EncodecModel(config)
    except ConfigError as error:
        raise CheckpointError(f"{source} is not loaded: {error}") from error
    _check_fit(parts, model.state_dict(), source)
    dtype = torch.float32
    if any(tensor.dtype == torch.float64 for part in parts.values() for _, tensor in part.values()):
        dtype = torch.float64
    model.load_state_dict({name: _load(part, dtype, source) for name, part in parts.items()}, assign=True)
    return model.eval()


_Part = dict[str, tuple[str, StoredTensor]]
"""What makes a weight, by ``g`` and ``v``, or ``weight`` alone: the tensor and its name in the file."""


def _sorted_by_weight(tensors: Mapping[str, StoredTensor], source: str) -> dict[str, _Part]:
    # Under plain names.
    parts: dict[str, _Part] = {}
    for name, tensor in tensors.items():
        kind, base = _split(name)
        part = parts.setdefault(base, {})
        if kind in part:
            raise CheckpointError(f"{source} holds {base} in two spellings: {name} is one too many")
        part[kind] = (name, tensor)
    for base, part in parts.items():
        if "weight" in part and len(part) > 1:
            raise CheckpointError(f"{source} holds {base} both with and without weight norm")
        if "weight" not in part and len(part) == 1:
            raise CheckpointError(f"{source}: tensor {next(iter(part.values()))[0]} has no counterpart (g and v)")
    return parts


def _as_stored(config: EncodecConfig, parts: Mapping[str, _Part]) -> EncodecConfig:
    """The configuration, with as many codebooks as a file of an older ``transformers`` holds."""
    held = sum(name.startswith("quantizer.layers.") and name.endswith(".codebook.embed") for name in parts)
    older = int(1000 * config.target_bandwidths[-1] // (config.frame_rate * _BITS_IN_OLDER_FILES))
    return config.with_stored_codebooks(held) if held == older and held >= 1 else config


def _check_fit(parts: Mapping[str, _Part], expected: Mapping[str, Tensor], source: str) -> None:
    """Raise ``CheckpointError`` where names or shapes are others than the architecture's."""
    missing = sorted(expected.keys() - parts.keys())
    if missing:
        raise CheckpointError(f"{source} does not fit its configuration: it lacks {_listed(missing)}")
    unexpected = sorted(parts.keys() - expected.keys())
    if unexpected:
        raise CheckpointError(f"{source} does not fit its configuration: it has {_listed(unexpected)} too many")
    for base, part in parts.items():
        wanted = list(expected[base].shape)
        for kind, (name, tensor) in part.items():
            if kind == "g":
                wanted_here = [wanted[0]] + [1] * (len(wanted) - 1)
            else:
                wanted_here = wanted
            if list(tensor.shape) != wanted_here:
                shapes = f"{list(tensor.shape)}, but its configuration wants {wanted_here}"
                raise CheckpointError(f"{source}: tensor {name} is {shapes}")


def _load(part: _Part, dtype: torch.dtype, source: str) -> Tensor:
    tensors = {}
    for kind, (name, tensor) in part.items():
        tensors[kind] = tensor.load()
        if not bool(tensors[kind].isfinite().all()):
            raise CheckpointError(f"{source}: tensor {name} holds NaN or infinite values: the file is damaged")
    name = next(iter(part.values()))[0]
    if "weight" in part:
        weight = tensors["weight"]
    else:
        weight = fold(tensors["g"], tensors["v"])
        if not bool(weight.isfinite().all()):
            g, v = part["g"][0], part["v"][0]
            raise CheckpointError(f"{source}: tensor {v} has a row of zeros, to which {g} gives a length")
    # A copy: the file stays mapped to memory as long as a tensor points into it.
    weight = weight.to(dtype, copy=True).contiguous()
    if not bool(weight.isfinite().all()):
        raise CheckpointError(f"{source}: tensor {name} holds values beyond {dtype}: the file is damaged")
    return weight


def _split(name: str) -> tuple[str, str]:
    for part, suffixes in (("g", MAGNITUDE_SUFFIXES), ("v", DIRECTION_SUFFIXES)):
        for suffix in suffixes:
            if name.endswith(suffix):
                return part, name.removesuffix(suffix) + ".weight"
    return "weight", name


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMES_IN_MESSAGE
    return ", ".join(names[:_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


# -- out -----------------------------------------------------------------------------------------------------


def save_folder(
    model: EncodecModel, folder: str | Path, dtype: torch.dtype | None = None, training_buffers: bool = True
) -> None:
    """Write a folder that ``transformers`` loads as its own: configuration, weights, and what ``AutoProcessor`` reads.

    All files appear whole or not at all; a folder that is there already keeps what else it holds.

    Args:
        model: what to save.
        folder: made where it does not exist.
        dtype: of the tensors in the file; None keeps the model's. ``torch.float16`` halves the file, and is
            read back as float32 here and by ``transformers``; magnitudes of weight norm stay float32.
        training_buffers: also write what training would keep beside each codebook, all zeros and as large again:
            they are never read, but ``transformers`` expects them. Without, it loads the folder with a warning.

    Raises:
        CheckpointError: a weight is not finite in that dtype, or the folder cannot be written.
    """
    folder = Path(folder)
    tensors = export_tensors(model, dtype)
    if not training_buffers:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(_TRAINING_BUFFERS)}
    compute = torch.promote_types(next(iter(model.state_dict().values())).dtype, torch.float32)
    values = {**model.config.to_dict(), "dtype": str(compute).removeprefix("torch.")}
    try:
        with AtomicFiles(folder, last=CONFIG_NAME) as part:
            save_file(tensors, part / WEIGHTS_NAME, metadata={"format": "pt"})
            _write_json(part / PREPROCESSOR_NAME, _preprocessor(model.config))
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


def export_tensors(model: EncodecModel, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The model's weights under Hugging Face's names, with weight norm in the published spelling.

    Raises:
        CheckpointError: a weight is not finite in ``dtype``, or ``dtype`` is none that a checkpoint may have.
    """
    if dtype is not None and dtype not in FLOATS:
        raise CheckpointError(f"weights cannot be saved as {dtype}: choose float16, bfloat16, float32 or float64")
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        weight = value.detach().cpu().to(dtype or value.dtype)
        if not bool(weight.isfinite().all()):
            raise CheckpointError(f"tensor {name} is not finite in {weight.dtype}: this model cannot be saved so")
        if name.endswith(".conv.weight") and model.config.norm_type == "weight_norm":
            g, v = unfold(weight, weight.dtype)
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
