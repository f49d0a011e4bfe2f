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
    return Engine("onnx-int8", model, partial(OrtQuantizer, int8=True), partial(OrtStepper, int8=True))


def _auto(model: EncodecModel) -> Engine:
    return _onnx(model) if _runs_onnx(model) else _fused(model)


def _runs_onnx(model: EncodecModel) -> bool:
    weight = next(model.parameters())
    installed = all(find_spec(package) for package in ("onnx", "onnxruntime"))
    return installed and weight.dtype == torch.float32 and weight.device.type == "cpu"


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


def make_live_engine(name: str, model: EncodecModel) -> Engine:
    """As `make_engine`, but ``auto`` is ``onnx-int8`` where that runs.

    A call has one frame every 13 ms. Between two the caches are filled with other things, so a step takes what
    its weights take from memory, and in int8 they are a quarter. `docs/performance.md` has what that costs in quality.

    Raises:
        StreamError, MissingExtraError: as `make_engine`.
    """
    return make_engine("onnx-int8" if name == "auto" and _runs_onnx(model) else name, model)
