"""The state of a stream as a value: flat named arrays and a few settings, saved with safetensors.

Law 4: a state taken at any block boundary and restored in another object, process or engine goes on with the same
output. So it holds everything that decides the output but the weights, whose fingerprint it carries instead. Its arrays
are of the kind and precision that the stream's engine computes in; a loaded one's are numpy's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from streaming_encodec.audio.files.atomic import write_by
from streaming_encodec.errors import StreamError
from streaming_encodec.json_text import parse_json
from streaming_encodec.model.safetensors_file import SafetensorsFile
from streaming_encodec.samples import MAX_AMPLITUDE, as_count
from streaming_encodec.stepping.arrays import as_numpy, is_tensor
from streaming_encodec.stepping.checks import check_count, check_start
from streaming_encodec.types import AnyArray

_FORMAT = "streaming-encodec-state-1"

_MOST_VALUES = 1 << 28
MAX_STATE = 1e6
"""What no layer's memory comes near; far more of it would become infinite in the next step, and stay so."""


@dataclass(frozen=True)
class StreamState:
    """A snapshot of a stream. It owns its tensors: the stream never changes them."""

    kind: str  # "encoder" or "decoder"
    model: str  # the model's fingerprint
    start: str  # "silence" or "exact"
    frames_per_step: int
    num_codebooks: int  # active in the encoder; 0 for a decoder, which takes what comes
    skip: int  # outputs still to be dropped
    started: bool
    tensors: dict[str, AnyArray]  # "pending" [B, C, n] and, once started, "layers.…"

    @property
    def batch_size(self) -> int:
        """Streams in the snapshot."""
        batch: int = self.tensors["pending"].shape[0]
        return batch

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file; an old file at ``path`` stays until the new one is complete and on disk.

        Raises ``FileFormatError`` if it cannot be written.
        """
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tensors"}
        metadata = {"format": _FORMAT, "settings": json.dumps(settings)}
        tensors = {name: np.ascontiguousarray(as_numpy(tensor)) for name, tensor in self.tensors.items()}
        write_by(path, lambda temporary: save_file(tensors, temporary, metadata))

    @classmethod
    def load(cls, path: str | Path) -> StreamState:
        """Read what ``save`` wrote. Raises ``StreamError`` if the file is missing or of another kind."""
        try:
            with SafetensorsFile(path) as file:
                metadata = file.metadata
                if metadata.get("format") != _FORMAT:
                    raise StreamError(f"{path} is no stream state of this version ({_FORMAT})")
                values = sum(math.prod(shape) for shape in file.shapes.values())
                if values > _MOST_VALUES:
                    raise StreamError(f"{path} is no stream's state: it holds {values} values")
                tensors = {name: file.read(name) for name in file.shapes}
        except FileNotFoundError:
            raise StreamError(f"{path} does not exist: pass the path that state().save(path) wrote") from None
        except (OSError, ValueError) as error:
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

    def _check_tensor(self, name: str, tensor: AnyArray) -> None:
        if name != "pending" and not name.startswith("layers."):
            raise StreamError(f"tensor {name[:100]} is none of a stream's")
        if not _holds_floats(tensor):
            raise StreamError(f"tensor {name} must be a dense tensor of floats")
        if tensor.ndim == 0 or tensor.shape[0] != self.tensors["pending"].shape[0]:
            raise StreamError(f"tensor {name} is of another number of streams than pending")
        most = MAX_AMPLITUDE if name == "pending" and self.kind == "encoder" else MAX_STATE
        if math.prod(tensor.shape) and not float(abs(tensor).max()) <= most:
            raise StreamError(f"tensor {name} holds NaN, infinity or values beyond {most:g}")


def _holds_floats(x: AnyArray) -> bool:
    if is_tensor(x):
        return bool(x.is_floating_point()) and not (x.is_sparse or x.is_meta or x.is_quantized or x.is_mkldnn)
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"
