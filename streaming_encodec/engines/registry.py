"""The engines by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch

from streaming_encodec.engines.kernel.shared_library import why_missing
from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.plain import plain_model, plain_weights
from streaming_encodec.stepping.engine import Engine, find_engine
from streaming_encodec.stepping.half import check_streams


def _eager(model: EncodecModel) -> Engine:
    return find_engine("eager", model)


def _fused(model: EncodecModel) -> Engine:
    from streaming_encodec.engines.fused.quantizer import FusedQuantizer
    from streaming_encodec.engines.fused.stepper import FusedStepper

    return Engine("fused", model, FusedQuantizer.of, FusedStepper)


def _onnx(model: EncodecModel) -> Engine:
    from streaming_encodec.engines.onnx.stepper import OrtQuantizer, OrtStepper, check_runs

    check_runs(model)
    return Engine("onnx", model, OrtQuantizer, OrtStepper)


def _onnx_int8(model: EncodecModel) -> Engine:
    from streaming_encodec.engines.onnx.stepper import OrtQuantizer, OrtStepper, check_runs

    check_runs(model)
    return Engine("onnx-int8", model, partial(OrtQuantizer, int8=True), partial(OrtStepper, int8=True))


def _kernel(model: EncodecModel) -> Engine:
    from streaming_encodec.engines.kernel.engine import KernelEngine, check_runs

    check_runs(model)
    return KernelEngine("kernel", model)


def _kernel_half(model: EncodecModel) -> Engine:
    from streaming_encodec.engines.kernel.engine import KernelEngine, check_runs

    check_runs(model)
    return KernelEngine("kernel-fp16", model, half=True)


def _auto(model: EncodecModel) -> Engine:
    if not _is_plain(model):
        return _fused(model)
    if why_missing() is None:
        return _kernel(model)
    return _onnx(model) if _has_onnx() else _fused(model)


def _is_plain(model: EncodecModel) -> bool:
    """What all engines but torch's own need: float32 on the CPU."""
    weight = next(model.parameters())
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


def _has_onnx() -> bool:
    return all(find_spec(package) for package in ("onnx", "onnxruntime"))


_MAKERS: dict[str, Callable[[EncodecModel], Engine]] = {
    "auto": _auto,
    "eager": _eager,
    "fused": _fused,
    "kernel": _kernel,
    "kernel-fp16": _kernel_half,
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
    model = plain_model(model)
    check_streams(model)
    if name != "eager":
        plain_weights(model)  # the others take copies of them, by name
    return _MAKERS[name](model)


def make_live_engine(name: str, model: EncodecModel) -> Engine:
    """As `make_engine`, but ``auto`` is ``kernel-fp16`` where that runs, else ``onnx-int8``.

    A call has one frame every 13 ms. Between two the caches are filled with other things, so a step takes what
    its weights take from memory, and in float16 they are half. `docs/performance.md` has what that costs in quality:
    nothing where a checkpoint's weights are float16 themselves, as the bundled model's are.

    Raises:
        StreamError, MissingExtraError: as `make_engine`.
    """
    model = plain_model(model)
    if name == "auto" and _is_plain(model):
        name = "kernel-fp16" if why_missing() is None else "onnx-int8" if _has_onnx() else name
    return make_engine(name, model)
