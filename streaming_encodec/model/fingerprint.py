"""A hash that identifies a model: both ends of a call, or a file and its reader, compare it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

from streaming_encodec.model.plain import plain_model, plain_weights

if TYPE_CHECKING:
    from streaming_encodec.model.encodec import EncodecModel

FINGERPRINT_LENGTH = 32

_FLOAT_FIELDS = ("chunk_length_s", "overlap", "trim_right_ratio")


def fingerprint(model: EncodecModel) -> str:
    """32 hexadecimal digits (128 bits of SHA-256) of configuration and weights, spelled as ``docs/protocol.md`` says.

    Weights count by their float32 values: the same in every process and on every machine, also for
    ``model.double()``, after ``save_pretrained`` and ``from_pretrained``, and whether the weights came in a
    folder or in a ``.th`` file. A model saved as float16 is another model. About 0.1 s for the 24 kHz model:
    keep the result. ``torch.compile(model)`` is the same model.

    Raises:
        StreamError: no ``EncodecModel``, or one with other weights than its architecture's, such as adapters.
    """
    model = plain_model(model)
    config = model.config.to_dict()
    # 1 and 1.0 are one value, but two spellings
    config |= {name: float(config[name]) for name in _FLOAT_FIELDS if config[name] is not None}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    for name, weight in sorted(plain_weights(model).items()):
        digest.update(f"\0{name}\0{tuple(weight.shape)}\0".encode())
        values = weight.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(values.astype("<f4", copy=False).data)
    return digest.hexdigest()[:FINGERPRINT_LENGTH]
