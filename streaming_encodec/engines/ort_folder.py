"""An exported codec as it lies in a folder: read and checked. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from streaming_encodec.engines.session import Session, open_session
from streaming_encodec.errors import CheckpointError

CONFIG_NAME, TENSORS_NAME = "codec.json", "tensors.safetensors"
LOCK_NAME = ".streaming-encodec.lock"  # of the command that is writing the folder
FORMAT = "streaming-encodec-steps-1"
MODEL_KEY, PART_KEY = "streaming-encodec.model", "streaming-encodec.part"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ExportedFolder:
    """What ``codec.json`` says, and the tensors beside it."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Floats]

    @classmethod
    def load(cls, path: str | Path, model: str | None = None) -> ExportedFolder:
        """Read a folder that ``streaming-encodec export`` wrote.

        Args:
            path: the folder.
            model: the fingerprint that it must have, where the other end named one.

        Raises:
            CheckpointError: not such a folder, of another version, damaged, or of another model.
        """
        path = Path(path)
        try:
            config = json.loads((path / CONFIG_NAME).read_text(encoding="utf-8"))
            found = config["format"]
        except FileNotFoundError:
            raise CheckpointError(
                f"{path} has no {CONFIG_NAME}: write it with 'streaming-encodec export MODEL {path}'"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path / CONFIG_NAME} cannot be read: {error}; export again") from error
        if found != FORMAT:
            raise CheckpointError(
                f"{path} is in format {found!r}, this version reads {FORMAT!r}: export the model again"
            )
        if model is not None and config.get("model") != model:
            raise CheckpointError(
                f"{path} was exported from model {config.get('model')}, wanted is {model}: export that one"
            )
        try:
            tensors = load_file(path / TENSORS_NAME)
            _check(config, tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): export the model again") from error
        return cls(path, config, tensors)

    def session(self, part: dict[str, Any]) -> Session:
        """A session for the graph of one part. Raises ``CheckpointError`` where it is not of this export."""
        path = self.path / part["file"]
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: export the model again")
        session = open_session(path)
        known = session.get_modelmeta().custom_metadata_map
        if known.get(MODEL_KEY) != self.config["model"] or f"{known.get(PART_KEY)}.onnx" != part["file"]:
            raise CheckpointError(
                f"{path} is not the graph that {CONFIG_NAME} is about (model {self.config['model']}):"
                " export the model again"
            )
        return session


def _check(config: dict[str, Any], tensors: dict[str, Floats]) -> None:
    """Raise ``KeyError`` or ``ValueError`` where something that a stream needs is not there."""
    shape = (config["num_codebooks"], config["codebook_size"], config["latent_size"])
    if tensors["codebooks"].shape != shape:
        raise ValueError(f"codebooks are {tensors['codebooks'].shape}, not {shape}")
    prefixes = {"encoder": ["encoder"], "decoder": [f"decoder.{k + 1}" for k in range(shape[0])]}
    for part, starts in prefixes.items():
        for prefix in starts:
            for state in config[part]["state"]:
                name = f"{prefix}.{state['name']}"
                if tensors[name].shape != (1, *state["shape"]):
                    raise ValueError(f"{name} is {tensors[name].shape}, not {(1, *state['shape'])}")
