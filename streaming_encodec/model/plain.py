"""The ``EncodecModel`` inside torch's wrappers, and its weights under their plain names."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from streaming_encodec.errors import StreamError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel

# torch.compile's OptimizedModule, and DataParallel with its distributed brother.
_WRAPPERS = ("_orig_mod", "module")
_COMPILED = "_orig_mod."


def plain_model(model: object) -> EncodecModel:
    """The model itself, also out of ``torch.compile(model)`` or ``DataParallel(model)``.

    Streams and engines have steps of their own, which no wrapper compiles or spreads: they take what is inside.

    Raises:
        StreamError: no ``EncodecModel``, and none in such a wrapper.
    """
    inner = model
    while isinstance(inner, nn.Module) and not isinstance(inner, EncodecModel):
        inside = next((inner._modules[name] for name in _WRAPPERS if name in inner._modules), None)
        if inside is None:
            break
        inner = inside
    if not isinstance(inner, EncodecModel):
        raise StreamError(
            f"a stream takes an EncodecModel, not {type(model).__name__}: pass the model that it was made from"
        )
    return inner


def plain_weights(model: EncodecModel) -> dict[str, torch.Tensor]:
    """The weights under the names that checkpoints and fingerprints have, whichever layers were compiled.

    Raises:
        StreamError: the model has other weights than its architecture: parametrised, or wrapped in adapters.
    """
    weights = {name.replace(_COMPILED, ""): weight for name, weight in model.state_dict().items()}
    odd = sorted(weights.keys() ^ _names(model.config, model.config.num_quantizers))
    if odd:
        raise StreamError(
            f"this model's weights are not its own alone ({odd[0]}): merge adapters and remove parametrizations"
            " (torch.nn.utils.parametrize.remove_parametrizations) first"
        )
    return weights


@lru_cache(maxsize=8)
def _names(config: EncodecConfig, codebooks: int) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(EncodecModel(config.with_stored_codebooks(codebooks)).state_dict())
