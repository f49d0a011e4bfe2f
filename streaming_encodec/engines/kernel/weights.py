"""A model's folder as plain weights, a tensor at a time: without torch, and without all of them in memory at once.

The file is read, not mapped: mapped pages would count as memory twice, here and in the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.errors import CheckpointError
from streaming_encodec.json_text import parse_json

_DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
_MOST_HEAD_BYTES = 1 << 22  # two hundred tensors take 30,000
_FOLDED_AT_ONCE = 1 << 14  # numbers, in float64


class FolderWeights(Mapping[str, NDArray[Any]]):
    """The plain weights of a ``.safetensors`` file, under Hugging Face's names; each is read when asked for.

    Weight norm is folded in float64 in a fixed order, as ``checkpoints/weight_norm.py`` does it: to the same bits.

    Raises:
        CheckpointError: the file is missing or damaged, or a tensor is not finite.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: BinaryIO = path.open("rb")
            self._first, self._head = _read_head(self._file)
        except FileNotFoundError:
            raise CheckpointError(f"{path} does not exist: give a model's folder") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise CheckpointError(f"{path} is damaged or no safetensors file ({error}): fetch it again") from error

    def close(self) -> None:
        """No more weights are wanted."""
        self._file.close()

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self._head:
            return self._read(name)
        stem, _, last = name.rpartition(".")
        whole = f"{stem}.parametrizations.{last}.original"
        for g_name, v_name in ((f"{name}_g", f"{name}_v"), (f"{whole}0", f"{whole}1")):  # torch's two spellings
            if g_name in self._head and v_name in self._head:
                g, v = self._read(g_name), self._read(v_name)
                if g.shape != (len(v), *[1] * (v.ndim - 1)):
                    raise CheckpointError(
                        f"{self._path}: {g_name} is {g.shape}, which does not fit {v_name}, {v.shape}"
                    )
                return self._finite(_fold(g, v), v_name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._head)

    def __len__(self) -> int:
        return len(self._head)

    def _read(self, name: str) -> NDArray[Any]:
        try:
            tensor = _read_tensor(self._file, self._first, self._head[name])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise CheckpointError(
                f"{self._path}: tensor {name} cannot be read ({error}): fetch the file again"
            ) from error
        return self._finite(tensor, name)

    def _finite(self, tensor: NDArray[Any], name: str) -> NDArray[Any]:
        if tensor.dtype == np.float16:  # as whole numbers: numpy's own look takes ten times as long
            finite = not ((tensor.view(np.uint16) & 0x7C00) == 0x7C00).any()
        else:
            finite = bool(np.isfinite(tensor).all())
        if not finite:
            raise CheckpointError(f"{self._path}: tensor {name} gives NaN or infinite values: the file is damaged")
        return tensor


def _read_head(file: BinaryIO) -> tuple[int, dict[str, Any]]:
    """Where the tensors' bytes begin, and what the head says of each."""
    size = int.from_bytes(file.read(8), "little")
    if not 2 <= size <= _MOST_HEAD_BYTES:
        raise ValueError(f"a head of {size} bytes")
    head = parse_json(file.read(size))
    if not isinstance(head, dict):
        raise TypeError("the head is no JSON object")
    head.pop("__metadata__", None)
    if 8 + size + max((entry["data_offsets"][1] for entry in head.values()), default=0) > file.seek(0, 2):
        raise ValueError("it ends before its last tensor")
    return 8 + size, head


def _read_tensor(file: BinaryIO, first: int, entry: dict[str, Any]) -> NDArray[Any]:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    is_brain = entry["dtype"] == "BF16"
    dtype = np.dtype(np.uint16 if is_brain else _DTYPES[entry["dtype"]]).newbyteorder("<")
    if min((begin, *shape)) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{end - begin} bytes for {shape}")
    file.seek(first + begin)
    content = file.read(end - begin)
    if len(content) != end - begin:
        raise ValueError("the file ends before it")
    numbers = np.frombuffer(content, dtype).reshape(shape)
    if is_brain:
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)


def _fold(g: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    """``g`` [R, 1, …] times ``v`` [R, …] over its rows' norms; ``v`` itself where that is what it gives."""
    rows = v.reshape(len(v), -1)
    several = max(1, _FOLDED_AT_ONCE // max(1, rows.shape[1]))
    norms = [_norms(rows[at : at + several].astype(np.float64)) for at in range(0, len(rows), several)]
    norm = np.concatenate(norms).reshape(g.shape)
    precision = np.promote_types(g.dtype, np.float32)
    same = norm.astype(precision) == g.astype(precision)
    if same.all():
        return v
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(same, 1.0, g.astype(np.float64) / norm)
        weight: NDArray[Any] = (v.astype(np.float64) * ratio).astype(np.promote_types(v.dtype, np.float32))
    return weight


def _norms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    terms = np.square(rows, out=rows)
    while terms.shape[1] > 1:
        # Sums by pairs, one whole array at a time: a library's own sum depends on its vector width.
        half = terms.shape[1] // 2
        pairs = terms[:, :half] + terms[:, half : 2 * half]
        terms = pairs if terms.shape[1] == 2 * half else np.concatenate((pairs, terms[:, 2 * half :]), axis=1)
    norms: NDArray[np.float64] = np.sqrt(terms)
    return norms
