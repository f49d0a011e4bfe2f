"""Reads and checks the folder of an exported codec. Imports no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from streaming_encodec.engines.onnx.check import check_config, check_graph, check_tensors
from streaming_encodec.engines.onnx.session import Session, open_session
from streaming_encodec.errors import CheckpointError
from streaming_encodec.json_text import read_json
from streaming_encodec.types import Floats

CONFIG_NAME, TENSORS_NAME = "codec.json", "tensors.safetensors"
FORMAT = "streaming-encodec-steps-1"
MODEL_KEY, PART_KEY = "streaming-encodec.model", "streaming-encodec.part"


@dataclass(frozen=True)
class ExportedFolder:
    """The content of ``codec.json``, and the tensors beside it."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Floats]

    @classmethod
    def load(cls, path: str | Path, model: str | None = None) -> ExportedFolder:
        """Read a folder that ``streaming-encodec export`` wrote.

        Args:
            path: the folder.
            model: the fingerprint that it must have, if the other end states one.

        Raises:
            CheckpointError: not such a folder, of another version, damaged, or of another model.
        """
        path = Path(path)
        try:
            config = read_json(path / CONFIG_NAME)
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
            check_config(config, TENSORS_NAME)
            tensors = load(_read(path, TENSORS_NAME, config))
            check_tensors(config, tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): export the model again") from error
        return cls(path, config, tensors)

    def session(self, part: dict[str, Any]) -> Session:
        """A session for the graph of one part. Raises ``CheckpointError`` if it is not of this export."""
        path = self.path / part["file"]
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: export the model again")
        try:
            session = open_session(_read(self.path, part["file"], self.config))
            check_graph(self.config, part, session)
            known = session.get_modelmeta().custom_metadata_map
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): export the model again") from error
        if known.get(MODEL_KEY) != self.config["model"] or f"{known.get(PART_KEY)}.onnx" != part["file"]:
            raise CheckpointError(
                f"{path} is not the graph that {CONFIG_NAME} is about (model {self.config['model']}):"
                " export the model again"
            )
        return session


def checksum(data: bytes) -> str:
    """The hash of a file in ``codec.json``."""
    return hashlib.sha256(data).hexdigest()


def _read(folder: Path, name: str, config: dict[str, Any]) -> bytes:
    """A file's bytes. Raises ``ValueError`` if they differ from those that were exported."""
    data = (folder / name).read_bytes()
    sums = config.get("sha256")
    if sums is not None and sums[name] != checksum(data):
        raise ValueError(f"{name} is not as it was written, its checksum is another")
    return data
