"""A hash that identifies a model: both ends of a call, or a file and its reader, compare it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.model.config import EncodecConfig

FINGERPRINT_LENGTH = 32

_FLOAT_FIELDS = ("chunk_length_s", "overlap", "trim_right_ratio")


def fingerprint_of(config: EncodecConfig, weights: Mapping[str, NDArray[Any]]) -> str:
    """32 hexadecimal digits (128 bits of SHA-256) of configuration and weights, spelled as ``docs/protocol.md`` says.

    Weights count by their float32 values: the same in every process and on every machine, also for
    ``model.double()``, after ``save_pretrained`` and ``from_pretrained``, and whether the weights came in a
    folder or in a ``.th`` file. A model saved as float16 is another model. About 0.1 s for the 24 kHz model:
    keep the result.
    """
    said = config.to_dict()
    # 1 and 1.0 are one value, but two spellings
    said |= {name: float(said[name]) for name in _FLOAT_FIELDS if said[name] is not None}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name], "<f4")
        digest.update(f"\0{name}\0{tuple(values.shape)}\0".encode())
        digest.update(values.data)
    return digest.hexdigest()[:FINGERPRINT_LENGTH]
