"""``ModelFolder``: a model in its files, for streams that compute without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from streaming_encodec.errors import CheckpointError, ConfigError
from streaming_encodec.model.checkpoints.pretrained import CONFIG_NAME, find_folder
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.fingerprint import fingerprint_of
from streaming_encodec.model.size import check_size
from streaming_encodec.model.stored import WEIGHTS_NAMES, open_tensors, weights_source
from streaming_encodec.model.weights import PlainWeights


class ModelFolder:
    """A folder in Hugging Face layout: its configuration, and weights that are read when they are asked for.

    ``StreamingEncoder``, ``StreamingDecoder`` and all that is built on them take one in place of an ``EncodecModel``,
    and need no torch then. The folder must stay as it is; two of the same files are equal, and share an engine.

    Raises:
        CheckpointError: a file is missing or damaged, or the model would be too large (see ``size``).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._said = EncodecConfig.from_json(self.path / CONFIG_NAME)
            check_size(self._said)
        except ConfigError as error:
            raise CheckpointError(f"{self.path} holds no EnCodec model: {error}") from error

        files = (self.path / name for name in (CONFIG_NAME, *WEIGHTS_NAMES))
        stats = (file.stat() for file in files if file.is_file())
        self._files = self.path.resolve(), *((stat.st_mtime_ns, stat.st_size) for stat in stats)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelFolder) and self._files == other._files

    def __hash__(self) -> int:
        return hash(self._files)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> ModelFolder:
        """By the names that ``EncodecModel.from_pretrained`` takes, but for original ``.th`` files.

        Raises:
            CheckpointError: there is no such folder; the message says what to do.
        """
        return cls(find_folder(name))

    def __reduce__(self) -> tuple[type[ModelFolder], tuple[Path]]:
        return ModelFolder, (self.path,)

    @contextmanager
    def weights(self) -> Iterator[PlainWeights]:
        """Its weights, each to be read until the end of the block.

        Raises:
            CheckpointError: they do not fit the configuration; the message names file and tensor.
        """
        with open_tensors(self.path) as tensors:
            yield PlainWeights(self._said, tensors, weights_source(self.path))

    @cached_property
    def config(self) -> EncodecConfig:
        """What ``config.json`` says, with as many codebooks as the weights hold."""
        with self.weights() as weights:
            return weights.config

    @cached_property
    def fingerprint(self) -> str:
        """See ``model/fingerprint.py``."""
        with self.weights() as weights:
            return fingerprint_of(weights.config, weights)
