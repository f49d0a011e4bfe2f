"""Tensors in a file: names, types and shapes are read and checked first, values only if these fit.

A header of a few bytes can claim gigabytes. So names, types and shapes are compared with the architecture before a
value is touched. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from streaming_encodec.errors import CheckpointError
from streaming_encodec.json_text import read_json
from streaming_encodec.model.safetensors_file import FLOAT_CODES, SafetensorsFile

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
WEIGHTS_NAMES = (WEIGHTS_NAME, INDEX_NAME)

_MOST_SHARDS = 256
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.safetensors")


@dataclass(frozen=True)
class StoredTensor:
    """A floating-point tensor that is known by its description."""

    shape: tuple[int, ...]
    is_double: bool
    load: Callable[[], NDArray[Any]]
    """Its values, bfloat16 as float32."""


@contextmanager
def open_tensors(folder: Path) -> Iterator[dict[str, StoredTensor]]:
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
        file = stack.enter_context(SafetensorsFile(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}): fetch it again") from error
    codes = file.dtypes
    for name, code in codes.items():
        if code not in FLOAT_CODES:
            raise CheckpointError(f"{path}: tensor {name} is {code}: no plain float tensor")
    return {
        name: StoredTensor(shape, codes[name] == "F64", partial(_read, file, name, path))
        for name, shape in file.shapes.items()
    }


def _read(file: SafetensorsFile, name: str, path: Path) -> NDArray[Any]:
    try:
        return file.read(name)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: tensor {name} cannot be read ({error}): fetch it again") from error
