"""The engines by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from weakref import WeakKeyDictionary, ref

from streaming_encodec.engines.kernel.self_test import why_missing
from streaming_encodec.errors import StreamError
from streaming_encodec.extras import needs_torch
from streaming_encodec.model.find import AnyModel, CodecModel, find_model
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.stepping.engine import Engine, EngineOrName
from streaming_encodec.stepping.half import check_streams


def _eager(model: CodecModel) -> Engine:
    with needs_torch("the engine eager"):
        from streaming_encodec.engines.torch_engine import TorchEngine
    return TorchEngine("eager", model)


def _fused(model: CodecModel) -> Engine:
    with needs_torch("the engine fused"):
        from streaming_encodec.engines.fused.stepper import FusedEngine
    return FusedEngine("fused", model)


def _onnx(model: CodecModel) -> Engine:
    return _ort("onnx", model)


def _onnx_int8(model: CodecModel) -> Engine:
    return _ort("onnx-int8", model, int8=True)


def _ort(name: str, model: CodecModel, int8: bool = False) -> Engine:
    with needs_torch(f"the engine {name}"):
        from streaming_encodec.engines.onnx.stepper import OrtEngine
    return OrtEngine(name, model, int8)


def _kernel(model: CodecModel) -> Engine:
    from streaming_encodec.engines.kernel.engine import KernelEngine

    return KernelEngine("kernel", model)


def _kernel_half(model: CodecModel) -> Engine:
    from streaming_encodec.engines.kernel.engine import KernelEngine

    return KernelEngine("kernel-fp16", model, half=True)


def _auto(model: CodecModel) -> Engine:
    if not _is_plain(model):
        return _fused(model)
    reason = why_missing()
    if reason is None:
        return _kernel(model)
    with needs_torch(f"a stream without the kernel ({reason})"):
        import torch  # noqa: F401
    return _onnx(model) if _has_onnx() else _fused(model)


def _is_plain(model: CodecModel) -> bool:
    if isinstance(model, ModelFolder):
        return True
    from streaming_encodec.model.plain import is_plain

    return is_plain(model)


def _has_onnx() -> bool:
    return all(find_spec(package) for package in ("onnx", "onnxruntime"))


_MAKERS: dict[str, Callable[[CodecModel], Engine]] = {
    "auto": _auto,
    "eager": _eager,
    "fused": _fused,
    "kernel": _kernel,
    "kernel-fp16": _kernel_half,
    "onnx": _onnx,
    "onnx-int8": _onnx_int8,
}

ENGINES = tuple(_MAKERS)


def make_engine(name: str, model: AnyModel) -> Engine:
    """An engine for ``model``, for all streams that should share its copy of the weights.

    Raises:
        StreamError: no engine of this name, or it cannot run this model.
        MissingExtraError: it needs a package that is not installed.
    """
    if name not in _MAKERS:
        raise StreamError(f"there is no engine {name!r}: choose {', '.join(ENGINES)}")
    found = find_model(model)
    check_streams(found.config)
    if name != "eager" and not isinstance(found, ModelFolder):
        from streaming_encodec.model.plain import plain_weights

        plain_weights(found)  # the others take copies of them, by name
    return _MAKERS[name](found)


def make_live_engine(name: str, model: AnyModel) -> Engine:
    """As `make_engine`, but ``auto`` is ``kernel-fp16`` if that runs, else ``onnx-int8``.

    A call has one frame every 13 ms. Between two frames other data fills the caches, so the time of a step is that of
    reading its weights from memory, and float16 halves them. It costs no quality if a checkpoint's weights are float16
    themselves, as the bundled model's are; else see `docs/performance.md`.

    Raises:
        StreamError, MissingExtraError: as `make_engine`.
    """
    found = find_model(model)
    if name == "auto" and _is_plain(found):
        name = "kernel-fp16" if why_missing() is None else "onnx-int8" if _has_onnx() else name
    return make_engine(name, found)


# By model and name, while a stream has it and the weights are what they were: streams of one model share its copies.
_in_use: WeakKeyDictionary[CodecModel, dict[str, tuple[object, ref[Engine]]]] = WeakKeyDictionary()


def _shared_engine(name: str, model: CodecModel) -> Engine:
    weights: object = None
    if not isinstance(model, ModelFolder):
        from streaming_encodec.model.plain import weights_version

        weights = weights_version(model)
    engines = _in_use.setdefault(model, {})
    known, held = engines.get(name, (None, None))
    engine = held() if held is not None and known == weights else None
    if engine is None:
        engine = make_engine(name, model)
        engines[name] = weights, ref(engine)
    return engine


def find_engine(engine: EngineOrName, model: AnyModel) -> Engine:
    """The engine of this name for this model, the same for all its streams; an ``Engine`` is returned as it is.

    Raises:
        StreamError: no such engine, an engine of another model, or one that cannot run this model.
        MissingExtraError: the engine needs a package that is not installed.
    """
    if not isinstance(engine, Engine):
        return _shared_engine(engine, find_model(model))
    if engine.model != find_model(model):
        raise StreamError("the engine was made for another model: make one with make_engine(name, model)")
    return engine
