"""Folders in Hugging Face layout (``config.json``, ``model.safetensors``): read with care, written whole.

Weight norm may be spelled in either of torch's ways or be folded already; the model holds plain weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from streaming_encodec.audio.atomic import AtomicFiles
from streaming_encodec.errors import CheckpointError, ConfigError, FileFormatError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.weight_norm import DIRECTION_SUFFIXES, MAGNITUDE_SUFFIXES, fold, unfold

if TYPE_CHECKING:
    from streaming_encodec.model.encodec import EncodecModel

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

# What training keeps beside each codebook; inference needs none of it.
_TRAINING_BUFFERS = (".inited", ".cluster_size", ".embed_avg")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NAMES_IN_MESSAGE = 5


# -- in ------------------------------------------------------------------------------------------------------


def load_folder(folder: str | Path) -> EncodecModel:
    """Load a folder in Hugging Face layout, in float32 (float64 where the file is).

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, too many, of another shape or
            not finite; the message names file and tensor.
    """
    folder = Path(folder)
    try:
        config = EncodecConfig.from_json(folder / CONFIG_NAME)
    except ConfigError as error:
        raise CheckpointError(f"{folder} holds no EnCodec model: {error}") from error
    path = folder / WEIGHTS_NAME
    return build_model(config, read_safetensors(path), str(path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a ``.safetensors`` file. Raises ``CheckpointError`` where it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist: a model folder needs {CONFIG_NAME} and {WEIGHTS_NAME}"
            " (pickled weights such as pytorch_model.bin are never read: save them again as safetensors)"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}): fetch it again") from error


def build_model(config: EncodecConfig, tensors: Mapping[str, Tensor], source: str) -> EncodecModel:
    """A model with these weights, each one checked.

    Args:
        config: the architecture.
        tensors: weights under Hugging Face's names, weight norm in any spelling.
        source: the file that they come from, for messages.

    Raises:
        CheckpointError: as in ``load_folder``.
    """
    from streaming_encodec.model.encodec import EncodecModel

    weights = _fold_all(tensors, source)
    with torch.device("meta"):  # neither memory nor random numbers for weights that are about to be replaced
        model = EncodecModel(config)
    expected = model.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        raise CheckpointError(f"{source} does not fit its configuration: it lacks {_listed(missing)}")
    unexpected = sorted(weights.keys() - expected.keys())
    if unexpected:
        raise CheckpointError(f"{source} does not fit its configuration: it has {_listed(unexpected)} too many")
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            shapes = f"{list(weight.shape)}, but its configuration wants {list(expected[name].shape)}"
            raise CheckpointError(f"{source}: tensor {name} is {shapes}")
    dtype = torch.float64 if any(w.dtype == torch.float64 for w in tensors.values()) else torch.float32
    # A copy each: the file stays mapped to memory as long as a tensor points into it.
    state = {name: weight.to(dtype, copy=True).contiguous() for name, weight in weights.items()}
    for name, weight in state.items():
        if not bool(weight.isfinite().all()):
            raise CheckpointError(f"{source}: tensor {name} holds values beyond {dtype}: the file is damaged")
    model.load_state_dict(state, assign=True)
    return model.eval()


def _fold_all(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    # Plain weights under plain names.
    plain: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        if name.endswith(_TRAINING_BUFFERS):
            continue
        _check_tensor(name, tensor, source)
        part, base = _split(name)
        if part is None:
            plain[name] = tensor
        elif part in pairs.setdefault(base, {}):
            raise CheckpointError(f"{source} holds {base}.weight in two spellings: {name} is one too many")
        else:
            pairs[base][part] = (name, tensor)
    for base, pair in pairs.items():
        if f"{base}.weight" in plain:
            raise CheckpointError(f"{source} holds {base}.weight both with and without weight norm")
        if len(pair) == 1:
            raise CheckpointError(f"{source}: tensor {next(iter(pair.values()))[0]} has no counterpart (g and v)")
        plain[f"{base}.weight"] = _fold_pair(*pair["g"], *pair["v"], source)
    return plain


def _fold_pair(g_name: str, g: Tensor, v_name: str, v: Tensor, source: str) -> Tensor:
    if v.dim() < 2 or v.numel() == 0:
        raise CheckpointError(f"{source}: tensor {v_name} is {list(v.shape)}, which is no convolution's weight")
    one_a_row = [v.shape[0]] + [1] * (v.dim() - 1)
    if list(g.shape) != one_a_row:
        raise CheckpointError(f"{source}: tensor {g_name} is {list(g.shape)}, but {v_name} wants {one_a_row}")
    weight = fold(g, v)
    if not bool(weight.isfinite().all()):
        raise CheckpointError(f"{source}: tensor {v_name} has a row of zeros, to which {g_name} gives a length")
    return weight


def _split(name: str) -> tuple[str | None, str]:
    for part, suffixes in (("g", MAGNITUDE_SUFFIXES), ("v", DIRECTION_SUFFIXES)):
        for suffix in suffixes:
            if name.endswith(suffix):
                return part, name.removesuffix(suffix)
    return None, name


def _check_tensor(name: str, tensor: Tensor, source: str) -> None:
    if tensor.layout != torch.strided or tensor.dtype not in _FLOATS:
        raise CheckpointError(f"{source}: tensor {name} is {tensor.dtype}, {tensor.layout}: no plain float tensor")
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{source}: tensor {name} holds NaN or infinite values: the file is damaged")


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMES_IN_MESSAGE
    return ", ".join(names[:_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


# -- out -----------------------------------------------------------------------------------------------------


def save_folder(
    model: EncodecModel, folder: str | Path, dtype: torch.dtype | None = None, training_buffers: bool = True
) -> None:
    """Write ``config.json`` and ``model.safetensors`` so that ``transformers`` loads them as its own.

    Both files appear whole or not at all; a folder that is there already keeps what else it holds.

    Args:
        model: what to save.
        folder: made where it does not exist.
        dtype: of the tensors in the file; None keeps the model's. ``torch.float16`` halves the file, and is
            read back as float32 here and by ``transformers``; magnitudes of weight norm stay float32.
        training_buffers: also write what training would keep beside each codebook, all zeros and as large again:
            nobody reads it, but ``transformers`` asks for it. Without, that loads the folder all the same and says so.

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
            (part / CONFIG_NAME).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    except FileFormatError as error:
        raise CheckpointError(f"{error}; choose a folder on a disk with space") from error


def export_tensors(model: EncodecModel, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The model's weights under Hugging Face's names, with weight norm in the published spelling.

    Raises:
        CheckpointError: a weight is not finite in ``dtype``, or ``dtype`` is none that a checkpoint may have.
    """
    if dtype is not None and dtype not in _FLOATS:
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
