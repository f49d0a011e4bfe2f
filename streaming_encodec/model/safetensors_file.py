"""A ``.safetensors`` file of floats, read with care and a tensor at a time. Imports no torch.

The file is read, not mapped: mapped pages would count as memory twice, here and where its values go.
"""

from __future__ import annotations

import math
import mmap
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.json_text import parse_json

_DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
_BRAIN = "BF16"
FLOAT_CODES = (*_DTYPES, _BRAIN)
_MOST_HEAD_BYTES = 1 << 22  # two hundred tensors take 30,000
_MOST_AXES = 8
_LARGE_BYTES = 1 << 18


class SafetensorsFile:
    """An open file: what its head says, checked against its size, and its tensors when they are asked for.

    Raises:
        FileNotFoundError, OSError: as ``open``. ValueError: the file is damaged, or something else.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = open(path, "rb")  # noqa: SIM115
        try:
            self._first, head = _read_head(self._file)
            self.metadata = _metadata(head.pop("__metadata__", None))
            """The texts that the file holds beside its tensors."""
            self._entries = {name: _entry(name, value) for name, value in head.items()}
            ends = [end for _, _, _, end in self._entries.values()]
            if self._first + max(ends, default=0) > self._file.seek(0, 2):
                raise ValueError("it ends before its last tensor")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """No more tensors are wanted."""
        self._file.close()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape."""
        return {name: shape for name, (_, shape, _, _) in self._entries.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        """Every tensor's name and type, as the format spells it: ``F32`` and the like."""
        return {name: code for name, (code, _, _, _) in self._entries.items()}

    def read(self, name: str) -> NDArray[Any]:
        """A tensor; bfloat16, which numpy has not, as float32. Raises ``OSError``, ``ValueError`` if it is damaged."""
        code, shape, begin, end = self._entries[name]
        if code not in _DTYPES and code != _BRAIN:
            raise ValueError(f"it is {code}, no plain floats")
        dtype = np.dtype(np.uint16 if code == _BRAIN else _DTYPES[code]).newbyteorder("<")
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{end - begin} bytes for {shape}")
        self._file.seek(self._first + begin)
        content = _memory(end - begin)
        if self._file.readinto(content) != len(content):
            raise ValueError("the file ends before it")
        numbers = np.frombuffer(content, dtype).reshape(shape)
        if code == _BRAIN:
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)


def _memory(size: int) -> bytearray | mmap.mmap:
    """So many bytes, which numpy may write to; where they are many, the system has them back when they are let go."""
    if size < _LARGE_BYTES or sys.platform == "win32":
        return bytearray(size)
    # Private: a process that forks must not share its weights with the other one.
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _read_head(file: Any) -> tuple[int, dict[str, Any]]:
    """Where the tensors' bytes begin, and what the head says of each."""
    size = int.from_bytes(file.read(8), "little")
    if not 2 <= size <= _MOST_HEAD_BYTES:
        raise ValueError(f"a header of {size} bytes")
    head = parse_json(file.read(size))
    if not isinstance(head, dict):
        raise ValueError("the head is no JSON object")
    return 8 + size, head


def _metadata(value: Any) -> dict[str, str]:
    texts = {} if value is None else value
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("its metadata are no texts by name")
    return texts


def _entry(name: str, value: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape, and first and last byte of a tensor."""
    try:
        code, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"tensor {name[:100]} is not described") from error
    numbers = (*shape, begin, end)
    are_whole = all(type(number) is int and number >= 0 for number in numbers)
    if not isinstance(code, str) or len(shape) > _MOST_AXES or not are_whole or end < begin:
        raise ValueError(f"tensor {name[:100]} is not described")
    return code, shape, begin, end
