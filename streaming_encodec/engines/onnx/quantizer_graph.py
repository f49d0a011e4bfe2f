"""The residual quantiser as ONNX graphs.

One graph for each group of codebooks: it takes the residual of the groups before it, and gives its codes and its own
residual. A bandwidth needs the first few groups; each codebook is stored once.
"""

from __future__ import annotations

from collections.abc import Sequence

from streaming_encodec.engines.onnx.nodes import Nodes, TensorProto, helper, onnx
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.types import Floats

RESIDUAL, CODES, REST = "residual", "codes", "rest"


def codebook_groups(config: EncodecConfig) -> list[range]:
    """The codebooks in groups that end where a target bandwidth's do."""
    ends = sorted({config.num_codebooks_for(kbps) for kbps in config.target_bandwidths} | {config.num_quantizers})
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def quantizer_graph(codebooks: Sequence[Floats], with_rest: bool = True, int8: bool = False) -> onnx.ModelProto:
    """``residual`` [rows, D] → ``codes`` [rows, K] int64 and, if wanted, ``rest`` [rows, D]; K codebooks [size, D].

    int8: the search uses 8-bit tables; the residual is exact nevertheless. If two entries are nearly equally near, the
    other one may be chosen, and later codebooks then code its residual.
    """
    nodes = Nodes()
    dim, count = codebooks[0].shape[1], len(codebooks)
    residual, codes = RESIDUAL, []
    for k, table in enumerate(codebooks):
        vectors = nodes.constant(table)
        # |e|² / 2 - x · e is least where the distance is: see FusedQuantizer.
        half_squares = (table * table).sum(axis=1) / 2
        if int8:
            distances = nodes.quantised_product(residual, -table.T, half_squares)
        else:
            distances = nodes.op("Gemm", residual, vectors, nodes.constant(half_squares), alpha=-1.0, transB=1)
        nearest = nodes.op("ArgMin", distances, axis=1, keepdims=0)  # [rows]
        codes.append(nearest)
        if k + 1 < count or with_rest:
            residual = nodes.op("Sub", residual, nodes.op("Gather", vectors, nearest, axis=0))
    by_codebook = nodes.op("Reshape", nodes.op("Concat", *codes, axis=0), nodes.ints(count, -1))
    nodes.node("Transpose", [by_codebook], [CODES], perm=[1, 0])
    outputs = [helper.make_tensor_value_info(CODES, TensorProto.INT64, ["rows", count])]
    if with_rest:
        nodes.node("Identity", [residual], [REST])
        outputs.append(helper.make_tensor_value_info(REST, TensorProto.FLOAT, ["rows", dim]))
    return nodes.model([helper.make_tensor_value_info(RESIDUAL, TensorProto.FLOAT, ["rows", dim])], outputs)
