"""The engines by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch

from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming.engine import Engine, find_engine
from streaming_encodec.streaming.half import check_streams


def _eager(model: EncodecModel) -> Engine:
    return find_engine("eager", model)


def _fused(model: EncodecModel) -> Engine:
    from streaming_encodec.engines.fused import FusedStepper
    from streaming_encodec.engines.quantizer import FusedQuantizer

    return Engine("fused", model, lambda model: FusedQuantizer(model.quantizer), FusedStepper)


def _onnx(model: EncodecModel) -> Engine:
    from streaming_encodec.engines.ort import OrtQuantizer, OrtStepper, check_runs

    check_runs(model)
    return Engine("onnx", model, OrtQuantizer, OrtStepper)


def _onnx_int8(model: EncodecModel) -> Engine:
    from streaming_encodec.engines.ort import OrtQuantizer, OrtStepper, check_runs

    check_runs(model)
    return Engine("onnx-int8", model, OrtQuantizer, partial(OrtStepper, int8=True))


def _auto(model: EncodecModel) -> Engine:
    weight = next(model.parameters())
    installed = all(find_spec(package) for package in ("onnx", "onnxruntime"))
    if installed and weight.dtype == torch.float32 and weight.device.type == "cpu":
        return _onnx(model)
    return _fused(model)


_MAKERS: dict[str, Callable[[EncodecModel], Engine]] = {
    "auto": _auto,
    "eager": _eager,
    "fused": _fused,
    "onnx": _onnx,
    "onnx-int8": _onnx_int8,
}

ENGINES = tuple(_MAKERS)


def make_engine(name: str, model: EncodecModel) -> Engine:
    """An engine for ``model``, to hand to as many streams as should share its copy of the weights.

    Raises:
        StreamError: no engine of this name, or it cannot run this model.
        MissingExtraError: it needs a package that is not installed.
    """
    if name not in _MAKERS:
        raise StreamError(f"there is no engine {name!r}: choose {', '.join(ENGINES)}")
    check_streams(model)
    return _MAKERS[name](model)
