"""Ways to run the steady step faster than the layers themselves, each checked against them (law 6).

By name, in the façades' ``engine=`` or through ``make_engine``:

* ``eager``: the layers' own step; the reference.
* ``fused``: the same in torch, as matrix products in channels-last layout. Any dtype and device.
* ``kernel``: the same in C, a library of 40 kB (``kernel/``). CPU, float32; the same bits on every machine.
* ``kernel-fp16``: that, with weights in float16 also where it rounds them: half the bytes.
* ``onnx``: the same as a graph in ONNX Runtime. CPU, float32.
* ``onnx-int8``: that, with the large matrices and their inputs in 8 bits: faster, and not quite the same.
* ``auto``: the fastest that runs this model here with the reference's values to float32 rounding. In ``demo``,
  ``talk`` and ``doctor`` (``make_live_engine``) ``kernel-fp16``, or ``onnx-int8`` without the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streaming_encodec.engines.registry import ENGINES, make_engine, make_live_engine
    from streaming_encodec.stepping.engine import Engine

__all__ = ["ENGINES", "Engine", "make_engine", "make_live_engine"]


def __getattr__(name: str) -> object:
    # On first use (PEP 562): a receiver on ONNX Runtime alone imports this package without torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from streaming_encodec.engines import registry

    value: object = getattr(registry, name)
    return value
