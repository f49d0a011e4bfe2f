"""The ``EncodecModel`` inside torch's wrappers, and its weights under their plain names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streaming_encodec.errors import StreamError
from streaming_encodec.model.architecture import weight_shapes
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.types import Floats

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


def plain_weights(model: EncodecModel) -> dict[str, Tensor]:
    """The weights under the names that checkpoints and fingerprints have, whichever layers were compiled.

    Raises:
        StreamError: the model has other weights than its architecture: parametrised, or wrapped in adapters.
    """
    weights = {name.replace(_COMPILED, ""): weight for name, weight in model.state_dict().items()}
    odd = sorted(weights.keys() ^ weight_shapes(model.config).keys())
    if odd:
        raise StreamError(
            f"this model's weights are not its own alone ({odd[0]}): merge adapters and remove parametrizations"
            " (torch.nn.utils.parametrize.remove_parametrizations) first"
        )
    return weights


def numpy_weights(model: EncodecModel) -> dict[str, Floats]:
    """The same in numpy, as float32. Shares memory with a float32 model on the CPU."""
    return {name: weight.detach().cpu().float().numpy() for name, weight in plain_weights(model).items()}


def weights_version(model: EncodecModel) -> tuple[object, ...]:
    """A value that changes with the weights, in place or otherwise."""
    weights = model.state_dict(keep_vars=True).values()
    # A model loaded under `torch.inference_mode()` keeps no count: changed in place, it would go unnoticed.
    return tuple((t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in weights)


def is_plain(model: EncodecModel) -> bool:
    """What all engines but torch's own need: float32 on the CPU."""
    weight = next(model.parameters())
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


def check_plain(model: EncodecModel, who: str) -> None:
    """Raise ``StreamError`` unless ``is_plain``; ``who`` begins the message, as "the kernel computes"."""
    if not is_plain(model):
        weight = next(model.parameters())
        raise StreamError(
            f"{who} in float32 on the CPU, this model is {weight.dtype} on {weight.device}:"
            " use engine='fused', or model.float().cpu()"
        )
