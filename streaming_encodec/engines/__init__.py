"""Ways to run the steady step faster than the layers themselves, each checked against them (law 6).

By name, in the façades' ``engine=`` or through ``make_engine``:

* ``eager``: the layers' own step; the reference.
* ``fused``: the same in torch, as matrix products in channels-last layout. Any dtype and device.
* ``auto``: the fastest that runs this model here with the reference's values to float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable

from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming.engine import Engine, find_engine
from streaming_encodec.streaming.half import check_streams

__all__ = ["ENGINES", "Engine", "make_engine"]


def _eager(model: EncodecModel) -> Engine:
    return find_engine("eager", model)


def _fused(model: EncodecModel) -> Engine:
    from streaming_encodec.engines.fused import FusedStepper
    from streaming_encodec.engines.quantizer import FusedQuantizer

    return Engine("fused", model, lambda model: FusedQuantizer(model.quantizer), FusedStepper)


def _auto(model: EncodecModel) -> Engine:
    return _fused(model)


_MAKERS: dict[str, Callable[[EncodecModel], Engine]] = {"auto": _auto, "eager": _eager, "fused": _fused}

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
