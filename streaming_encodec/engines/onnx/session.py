"""ONNX Runtime as a live stream needs it: one thread, denormals as zero, no spinning. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from streaming_encodec.errors import CheckpointError
from streaming_encodec.extras import needs_torch

Session: TypeAlias = Any  # onnxruntime.InferenceSession: the package has no types


def runtime() -> Any:
    """The module ``onnxruntime``. Raises ``MissingExtraError`` if it is not installed."""
    with needs_torch("an ONNX engine"):
        import onnxruntime
    return onnxruntime


def open_session(graph: bytes | Path, threads: int = 1) -> Session:
    """A session for a graph or a file of one.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        CheckpointError: the runtime cannot load the graph.
    """
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")  # quiet rooms decay into them
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = str(graph) if isinstance(graph, Path) else graph
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no common base but this
        name = f"{graph}" if isinstance(graph, Path) else "the step's graph"
        raise CheckpointError(f"ONNX Runtime cannot load {name}: {error}") from error


def run(session: Session, outputs: list[str], feeds: dict[str, Any]) -> Any:
    """``session.run`` of a graph from a file. Raises ``CheckpointError`` if it fails."""
    try:
        return session.run(outputs, feeds)
    except Exception as error:  # the runtime's errors have no common base but this
        raise CheckpointError(f"an exported graph is damaged ({error}): export the model again") from error
