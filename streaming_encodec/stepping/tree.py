"""The state of a stream as a value: flat named tensors and a few settings, saved with safetensors.

Law 4: a state taken at any block boundary and restored in another object, process or engine goes on with the same
output. So it holds everything that decides the output but the weights, whose fingerprint it carries instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from streaming_encodec.audio.files.atomic import write_by
from streaming_encodec.errors import StreamError
from streaming_encodec.json_text import parse_json
from streaming_encodec.model.stored import open_safetensors
from streaming_encodec.samples import MAX_AMPLITUDE, as_count
from streaming_encodec.stepping.checks import check_count, check_start

_FORMAT = "streaming-encodec-state-1"

_MOST_VALUES = 1 << 28
MAX_STATE = 1e6
"""What no layer's memory comes near; far more of it would become infinite in the next step, and stay so."""


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
            with open_safetensors(path) as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise StreamError(f"{path} is no stream state of this version ({_FORMAT})")
                names = list(file.keys())
                values = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
                if values > _MOST_VALUES:
                    raise StreamError(f"{path} is no stream's state: it holds {values} values")
                tensors = {name: file.get_tensor(name) for name in names}
        except FileNotFoundError:
            raise StreamError(f"{path} does not exist: pass the path that state().save(path) wrote") from None
        except (OSError, SafetensorError, ValueError, OverflowError, RuntimeError) as error:
            if isinstance(error, StreamError):
                raise
            raise StreamError(f"{path} cannot be read as a saved stream state: {error}") from error
        if "pending" not in tensors:
            raise StreamError(f"{path} is damaged: its pending inputs are missing")
        try:
            state = cls(**parse_json(metadata["settings"]), tensors=tensors)
            state.check()
        except (KeyError, TypeError, ValueError) as error:
            raise StreamError(f"{path} is damaged: its settings or tensors cannot be used ({error})") from error
        return state

    def check(self) -> None:
        """Raise ``StreamError`` unless every field is of its kind, and every tensor one that a stream can go on from.

        Whether it fits a stream, shapes above all, shows when it is loaded into one.
        """
        if self.kind not in ("encoder", "decoder"):
            raise StreamError(f"kind must be 'encoder' or 'decoder', got {self.kind!r}")
        check_start(self.start)
        said: tuple[object, object] = self.model, self.started  # a file may hold anything
        if not isinstance(said[0], str) or not isinstance(said[1], bool):
            raise StreamError(f"model must be a text, and started true or false, got {str(said)[:100]}")
        check_count("frames_per_step", self.frames_per_step)
        least = 1 if self.kind == "encoder" else 0
        for name, number, low in (("num_codebooks", self.num_codebooks, least), ("skip", self.skip, 0)):
            whole = as_count(number)
            if whole is None or not low <= whole < _MOST_VALUES:
                raise StreamError(f"{name} must be a whole number from {low}, got {str(number)[:100]}")
        for name, tensor in self.tensors.items():
            self._check_tensor(name, tensor)
        if self.started and len(self.tensors) == 1:
            raise StreamError("the state of the layers is missing")
        if not self.started and len(self.tensors) > 1:
            raise StreamError("layers have a state, but the stream has not started")

    def _check_tensor(self, name: str, tensor: object) -> None:
        if name != "pending" and not name.startswith("layers."):
            raise StreamError(f"tensor {name[:100]} is none of a stream's")
        if not isinstance(tensor, Tensor) or not tensor.dtype.is_floating_point or tensor.layout != torch.strided:
            raise StreamError(f"tensor {name} must be a dense tensor of floats")
        if tensor.dim() == 0 or tensor.shape[0] != self.tensors["pending"].shape[0]:
            raise StreamError(f"tensor {name} is of another number of streams than pending")
        most = MAX_AMPLITUDE if name == "pending" and self.kind == "encoder" else MAX_STATE
        if tensor.numel() and not float(tensor.abs().max()) <= most:
            raise StreamError(f"tensor {name} holds NaN, infinity or values beyond {most:g}")
