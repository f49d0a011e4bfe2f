"""A short name for "this very model": both ends of a call, or a file and its reader, compare it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from streaming_encodec.model.encodec import EncodecModel

FINGERPRINT_LENGTH = 16

_FLOAT_FIELDS = ("chunk_length_s", "overlap", "trim_right_ratio")


def fingerprint(model: EncodecModel) -> str:
    """16 hexadecimal digits (64 bits of SHA-256) of configuration and weights.

    Weights count by their float32 values: the same in every process and on every machine, also for
    ``model.double()``, after ``save_pretrained`` and ``from_pretrained``, and whether the weights came in a
    folder or in a ``.th`` file. A model saved as float16 is another model. About 0.1 s for the 24 kHz model:
    keep the result.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.config.to_dict().items()):
        # 1 and 1.0 are one value, but two spellings
        spelled = float(value) if name in _FLOAT_FIELDS and value is not None else value
        digest.update(f"{name}={spelled!r}\n".encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(weight.shape)}\n".encode())
        values = weight.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(values.astype("<f4", copy=False).data)
    return digest.hexdigest()[:FINGERPRINT_LENGTH]
