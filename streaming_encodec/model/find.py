"""Which model a caller means: one of torch, a folder, or a name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from streaming_encodec.errors import StreamError
from streaming_encodec.extras import needs_torch
from streaming_encodec.model.checkpoints.pretrained import find_folder, is_original
from streaming_encodec.model.folder import ModelFolder

if TYPE_CHECKING:
    from streaming_encodec.model.encodec import EncodecModel

CodecModel: TypeAlias = "EncodecModel | ModelFolder"
"""A model that is there."""

AnyModel: TypeAlias = "EncodecModel | ModelFolder | str | Path"
"""What a ``model`` argument takes: a model, or what ``EncodecModel.from_pretrained`` takes."""


def find_model(model: AnyModel) -> CodecModel:
    """The model itself, also out of torch's wrappers; or the one of this name.

    By name a ``ModelFolder``, which needs no torch, unless the model is another kind: a ``.th`` file, or segments.

    Raises:
        StreamError: the argument is not a model.
        CheckpointError: there is no such model.
        MissingExtraError: it needs torch, which is not installed.
    """
    if isinstance(model, ModelFolder):
        return model
    if isinstance(model, str | Path):
        if not is_original(model):
            folder = ModelFolder(find_folder(model))
            if folder.config.streams_by_sample:
                return folder
        with needs_torch(f"the model {model}"):
            from streaming_encodec.model.encodec import EncodecModel
        return EncodecModel.from_pretrained(model)
    if "torch" in sys.modules:  # who has a model of torch has imported it
        from streaming_encodec.model.plain import plain_model

        return plain_model(model)
    raise StreamError(f"a stream takes an EncodecModel, a ModelFolder or a name, not {type(model).__name__}")


def torch_model(model: CodecModel) -> EncodecModel:
    """The model in torch: the folder's weights are loaded.

    Raises:
        MissingExtraError: torch is not installed. CheckpointError: the folder's files are damaged.
    """
    if isinstance(model, ModelFolder):
        with needs_torch("this"):
            from streaming_encodec.model.encodec import EncodecModel
        with model.weights() as weights:
            return EncodecModel.from_weights(weights)
    return model


def fingerprint(model: CodecModel) -> str:
    """See ``model/fingerprint.py``. ``torch.compile(model)`` is the same model.

    Raises:
        StreamError: no model, or one with other weights than its architecture's, such as adapters.
    """
    found = find_model(model)
    if isinstance(found, ModelFolder):
        return found.fingerprint
    from streaming_encodec.model.fingerprint import fingerprint_of
    from streaming_encodec.model.plain import numpy_weights

    return fingerprint_of(found.config, numpy_weights(found))
