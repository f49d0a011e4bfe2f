"""The state of a stream as a value: flat named tensors and a few settings, saved with safetensors.

Law 4: a state taken at any block boundary and restored in another object, process or engine goes on with the same
output. So it holds everything that decides the output but the weights, whose fingerprint it carries instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from streaming_encodec.audio.atomic import write_by
from streaming_encodec.errors import StreamError

_FORMAT = "streaming-encodec-state-1"


def map_tensors(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Apply ``function`` to every tensor of a tree of tuples and NamedTuples."""
    if isinstance(tree, Tensor):
        return function(tree)
    branches = [map_tensors(function, branch) for branch in tree]
    return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)


def zip_tensors(function: Callable[[Tensor, Tensor], Tensor], one: Any, other: Any) -> Any:
    """Apply ``function`` to every pair of tensors of two trees of the same structure."""
    if isinstance(one, Tensor):
        return function(one, other)
    branches = [zip_tensors(function, a, b) for a, b in zip(one, other, strict=True)]
    return type(one)(*branches) if hasattr(one, "_fields") else tuple(branches)


def named_tensors(tree: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a tree with their paths, such as ``layers.0.history``."""
    if isinstance(tree, Tensor):
        yield prefix, tree
        return
    names = getattr(tree, "_fields", range(len(tree)))
    for name, branch in zip(names, tree, strict=True):
        yield from named_tensors(branch, f"{prefix}.{name}")


def unflatten(tensors: dict[str, Tensor], like: Any, prefix: str) -> Any:
    """The tree of ``like`` with the tensors of those paths, cast to its dtype and device.

    Raises:
        StreamError: a tensor is missing or of another shape.
    """
    if isinstance(like, Tensor):
        tensor = tensors.get(prefix)
        if tensor is None or tensor.shape != like.shape:
            got = "missing" if tensor is None else f"{list(tensor.shape)}"
            raise StreamError(f"the state's {prefix} is {got}, this stream needs {list(like.shape)}")
        return tensor.to(like.device, like.dtype, copy=True)
    names = getattr(like, "_fields", range(len(like)))
    branches = [unflatten(tensors, branch, f"{prefix}.{name}") for name, branch in zip(names, like, strict=True)]
    return type(like)(*branches) if hasattr(like, "_fields") else tuple(branches)


@dataclass(frozen=True)
class StreamState:
    """A snapshot of a stream. Its tensors belong to it alone: a stream that goes on never changes them."""

    kind: str  # "encoder" or "decoder"
    model: str  # the model's fingerprint
    start: str  # "silence" or "exact"
    frames_per_step: int
    num_codebooks: int  # active in the encoder; 0 for a decoder, which takes what comes
    skip: int  # outputs still to be dropped
    started: bool
    tensors: dict[str, Tensor]  # "pending" [B, C, n] and, once started, "layers.…"

    @property
    def batch_size(self) -> int:
        """Streams in the snapshot."""
        return self.tensors["pending"].shape[0]

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file; whatever was at ``path`` stays until the new one is whole and on the disk.

        Raises ``FileFormatError`` where it cannot be written.
        """
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tensors"}
        metadata = {"format": _FORMAT, "settings": json.dumps(settings)}
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        write_by(path, lambda temporary: save_file(tensors, temporary, metadata))

    @classmethod
    def load(cls, path: str | Path) -> StreamState:
        """Read what ``save`` wrote. Raises ``StreamError`` where the file is missing or something else."""
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise StreamError(f"{path} does not exist: pass the path that state().save(path) wrote") from None
        except (OSError, SafetensorError) as error:
            raise StreamError(f"{path} cannot be read as a saved stream state: {error}") from error
        if metadata.get("format") != _FORMAT:
            raise StreamError(f"{path} is no stream state of this version ({_FORMAT})")
        if "pending" not in tensors:
            raise StreamError(f"{path} is damaged: its pending inputs are missing")
        try:
            return cls(**json.loads(metadata["settings"]), tensors=tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise StreamError(f"{path} is damaged: its settings cannot be read ({error})") from error
