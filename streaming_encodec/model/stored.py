"""Tensors in a file: names, types and shapes are read and checked first, values only if these fit.

A header of a few bytes can claim gigabytes. So names, types and shapes are compared with the architecture before a
value is touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from streaming_encodec.errors import CheckpointError
from streaming_encodec.json_text import read_json

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_FLOAT_CODES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
_OTHER_CODES = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "BOOL": torch.bool}

_MOST_HEADER_BYTES = 1 << 22
"""Of a safetensors file: two hundred tensors take 30,000."""
_MOST_SHARDS = 256
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.safetensors")


@dataclass(frozen=True)
class StoredTensor:
    """A floating-point tensor that is known by its description."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]


def in_memory(name: str, tensor: Tensor, source: str) -> StoredTensor:
    """A tensor that is there. Raises ``CheckpointError`` unless it is dense, of floats, and as large as it says."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.dtype not in FLOATS:
        raise CheckpointError(
            f"{source}: tensor {name} is {tensor.dtype}, {tensor.layout}, on {tensor.device}: no plain float tensor"
        )
    held = tensor.untyped_storage().nbytes() if tensor.numel() else 0
    if tensor.numel() * tensor.element_size() > held:
        raise CheckpointError(
            f"{source}: tensor {name} says that it is {list(tensor.shape)}, but holds only {held} bytes: save its"
            " contiguous() copy"
        )
    return StoredTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def open_safetensors(path: str | Path) -> Any:
    """``safe_open`` for torch, for a file whose header is not too large to be one.

    Raises:
        OSError, SafetensorError, ValueError: the file cannot be read as one.
    """
    with open(path, "rb") as raw:
        header_bytes = int.from_bytes(raw.read(8), "little")
    if header_bytes > _MOST_HEADER_BYTES:
        raise ValueError(f"a header of {header_bytes} bytes")
    return safe_open(path, framework="pt")


@contextmanager
def open_weights(folder: Path) -> Iterator[dict[str, StoredTensor]]:
    """The tensors of a folder's ``model.safetensors``, or of the shards that ``model.safetensors.index.json`` names.

    They can be loaded until the end of the block.

    Raises:
        CheckpointError: files are missing, damaged, or do not fit together.
    """
    whole, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    with ExitStack() as stack:
        if whole.is_file() or not index.is_file():
            yield _open(whole, stack)
            return
        tensors: dict[str, StoredTensor] = {}
        shards = _shards(index)
        for shard, names in shards.items():
            held = _open(folder / shard, stack)
            if held.keys() != names:
                odd = sorted(held.keys() ^ names)[0]
                raise CheckpointError(f"{index} and {shard} do not agree on tensor {odd}: fetch the folder again")
            tensors |= held
        yield tensors


def weights_source(folder: Path) -> str:
    """The name of a folder's weights in messages."""
    whole, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    return str(index if index.is_file() and not whole.is_file() else whole)


def _shards(index: Path) -> dict[str, set[str]]:
    """Which tensors each shard holds. Names of shards are names alone: nothing outside of the folder is opened."""
    try:
        content: Any = read_json(index)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index} cannot be read as JSON: {error}") from error
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no weight_map: fetch the folder again")
    shards: dict[str, set[str]] = {}
    for name, shard in places.items():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise CheckpointError(f"{index}: tensor {name[:200]} is said to be in {str(shard)[:200]!r}, no file's name")
        shards.setdefault(shard, set()).add(name)
    if len(shards) > _MOST_SHARDS:
        raise CheckpointError(f"{index} names {len(shards)} files, {_MOST_SHARDS} are the most")
    return shards


def _open(path: Path, stack: ExitStack) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist: a model folder needs config.json and {WEIGHTS_NAME}"
            " (pickled weights such as pytorch_model.bin are never read: save them again as safetensors)"
        )
    try:
        file = stack.enter_context(open_safetensors(path))
        return {name: _described(file, name, path) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}): fetch it again") from error


def _described(file: Any, name: str, path: Path) -> StoredTensor:
    part = file.get_slice(name)
    code = part.get_dtype()
    if code not in _FLOAT_CODES:
        raise CheckpointError(f"{path}: tensor {name} is {_OTHER_CODES.get(code, code)}: no plain float tensor")

    def load() -> Tensor:
        try:
            tensor: Tensor = file.get_tensor(name)
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: tensor {name} cannot be read ({error}): fetch it again") from error
        return tensor

    return StoredTensor(tuple(part.get_shape()), _FLOAT_CODES[code], load)


def described(tensors: Mapping[str, Tensor | StoredTensor], source: str) -> dict[str, StoredTensor]:
    """All of them by their description; ``CheckpointError`` for one that is no plain float tensor."""
    return {
        name: tensor if isinstance(tensor, StoredTensor) else in_memory(name, tensor, source)
        for name, tensor in tensors.items()
    }
