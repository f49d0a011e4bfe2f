"""Writing an ONNX graph node by node: values are names, constants are numpy arrays."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming_encodec._version import __version__
from streaming_encodec.extras import needs_torch
from streaming_encodec.types import Floats

# The one place that imports it: the other modules of this folder take it from here.
with needs_torch("an ONNX graph"):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

__all__ = ["Nodes", "TensorProto", "helper", "onnx"]


OPSET, IR_VERSION = 17, 9  # old enough for the runtimes of recent years
_RUNTIME_OPS = "com.microsoft"
_QUANTISED_BLOCK = 128
_LEAST_BLOCK = 16


class Nodes:
    """Nodes and constants of a graph that grows."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def node(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Add a node with these names of its inputs and outputs."""
        self._nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and name it."""
        name = self.name()
        self.node(kind, list(inputs), [name], **attributes)
        return name

    def rename(self, old: str, new: str) -> None:
        """Give a value another name: an output of the graph, as its maker writes it, costs no copy."""
        for node in self._nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new

    def split(self, x: str, axis: int, *sizes: int) -> list[str]:
        """``x`` cut along ``axis``."""
        names = [self.name() for _ in sizes]
        self.node("Split", [x, self.ints(*sizes)], names, axis=axis)
        return names

    def slice(self, x: str, axis: int, start: int, end: int) -> str:
        """``x`` from ``start`` to before ``end``."""
        return self.op("Slice", x, self.ints(start), self.ints(end), self.ints(axis))

    def ints(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def constant(self, array: NDArray[Any]) -> str:
        """A constant; equal ones are kept once."""
        array = np.asarray(array, order="C")  # not `ascontiguousarray`, which makes a vector of a lone number
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key in self._known:
            return self._known[key]
        self._known[key] = name = self.name()
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def quantised_product(self, x: str, matrix: Floats, bias: Floats | str | None) -> str:
        """``x`` [rows, in] @ ``matrix`` [in, out] + ``bias`` [out] (numbers, or a value), the matrix in 8 bits.

        Each 128 inputs of an output have a scale. A node of ONNX Runtime, not of the ONNX standard.
        """
        rows, columns = matrix.shape
        block = min(_QUANTISED_BLOCK, max(_LEAST_BLOCK, 1 << (rows - 1).bit_length()))  # a power of two
        blocks = -(-rows // block)
        padded = np.zeros((columns, blocks * block), np.float32)
        padded[:, :rows] = matrix.T
        padded = padded.reshape(columns, blocks, block)
        scale = np.abs(padded).max(axis=-1) / 127
        quotient = padded / np.where(scale == 0, 1, scale)[..., None]
        quantised = (np.rint(quotient) + 128).astype(np.uint8)  # 128 stands for zero
        inputs = [x, self.constant(quantised), self.constant(scale.astype(np.float32).reshape(-1))]
        if bias is not None:
            inputs += ["", "", bias if isinstance(bias, str) else self.constant(bias)]
        return self.op(
            "MatMulNBits",
            *inputs,
            domain=_RUNTIME_OPS,
            K=rows,
            N=columns,
            bits=8,
            block_size=block,
            accuracy_level=4,  # inputs in 8 bits too, each block of a row with its own scale
        )

    def model(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The graph as a model."""
        graph = helper.make_graph(self._nodes, "streaming-encodec", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == _RUNTIME_OPS for node in self._nodes):
            opsets.append(helper.make_opsetid(_RUNTIME_OPS, 1))
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name="streaming-encodec",
            producer_version=__version__,
        )

    def name(self) -> str:
        """A name for one more value."""
        self._count += 1
        return f"v{self._count}"
