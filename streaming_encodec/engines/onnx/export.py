"""Write a model as step graphs, so that a program without torch, or in another language, runs the live codec.

The folder holds ``codec.json`` (see ``docs/export.md``), ``encoder.onnx``, ``decoder.onnx``,
``quantizer.N.onnx`` and ``tensors.safetensors``: the codebooks, and the states that a stream starts with.
``engines/onnx/codec.py`` reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from streaming_encodec._version import __version__
from streaming_encodec.audio.files.atomic import AtomicFiles
from streaming_encodec.audio.files.folder_lock import LOCK_NAME
from streaming_encodec.engines.layout import turn
from streaming_encodec.engines.onnx.exported import (
    CONFIG_NAME,
    FORMAT,
    MODEL_KEY,
    PART_KEY,
    TENSORS_NAME,
    checksum,
)
from streaming_encodec.engines.onnx.graph import INPUT, NEXT, OUTPUT, state_shapes, step_graph
from streaming_encodec.engines.onnx.nodes import onnx
from streaming_encodec.engines.onnx.quantizer_graph import CODES, RESIDUAL, REST, codebook_groups, quantizer_graph
from streaming_encodec.engines.onnx.session import runtime
from streaming_encodec.engines.torch_engine import TorchEngine
from streaming_encodec.errors import StreamError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.find import AnyModel, find_model
from streaming_encodec.model.plain import check_plain
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.stepping.arrays import NumpyArrays, as_numpy
from streaming_encodec.stepping.half import Half, HalfState, decoder_half, encoder_half
from streaming_encodec.stepping.silence import decoder_after_silence, encoder_after_silence, silence_frames
from streaming_encodec.stepping.tree import named_arrays
from streaming_encodec.types import AnyArray

_Arrays = dict[str, NDArray[Any]]


def export(model: AnyModel, folder: Path, frames_per_step: int = 1, int8: bool = False) -> list[Path]:
    """Write the folder and return its files. Made if missing; files of an earlier export are replaced, when all
    of the new ones are whole and on the disk.

    Args:
        model: a float32 model that streams by samples.
        folder: where to write.
        frames_per_step: frames that go through the network at once; the graphs are for these only.
        int8: large matrices with 8-bit weights, for ONNX Runtime.

    Raises:
        StreamError: the model cannot stream by samples, is not float32, or the folder holds something else.
        FileFormatError: the folder cannot be written; it is as it was.
    """
    runtime()
    reference = TorchEngine("eager", find_model(model))
    network, config = reference.network, reference.config
    check_plain(network, "an export computes")
    encoder, decoder = encoder_half(reference, frames_per_step), decoder_half(reference, frames_per_step)
    held = {file.name for file in folder.iterdir()} - {LOCK_NAME} if folder.exists() else set()
    if held and not (folder / CONFIG_NAME).is_file():
        raise StreamError(f"{folder} holds files that are no earlier export: choose a new folder")
    identity = reference.fingerprint
    graphs = {
        "encoder": step_graph(network.encoder, encoder.step_inputs, int8),
        "decoder": step_graph(network.decoder, decoder.step_inputs, int8),
    }
    books = [_array(codebook.embed) for codebook in network.quantizer.codebooks]
    groups = codebook_groups(config)
    for i, group in enumerate(groups):
        graphs[f"quantizer.{i}"] = quantizer_graph([books[k] for k in group])
    tensors: _Arrays = {"codebooks": np.stack(books)}
    tensors |= _start_tensors(encoder_after_silence(reference, encoder, 1), "encoder")
    skips = []
    for count in range(1, len(books) + 1):
        state = decoder_after_silence(reference, decoder, 1, count)
        tensors |= _start_tensors(state, f"decoder.{count}")
        skips.append(state.skip)
    facts = _describe(config, identity, int8, [len(group) for group in groups])
    facts["frames_per_step"] = encoder.frames_per_step
    facts["encoder"] = _describe_half(encoder, network.encoder, "encoder.onnx")
    facts["decoder"] = _describe_half(decoder, network.decoder, "decoder.onnx")
    facts["encoder"]["skip_outputs"] = encoder_after_silence(reference, encoder, 1).skip
    facts["decoder"]["skip_outputs"] = skips
    with AtomicFiles(folder, last=CONFIG_NAME) as part:
        files = [_write_graph(part / f"{name}.onnx", graph, name, identity) for name, graph in graphs.items()]
        save_file(tensors, part / TENSORS_NAME)
        facts["sha256"] = {file.name: checksum(file.read_bytes()) for file in (*files, part / TENSORS_NAME)}
        (part / CONFIG_NAME).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    written = [folder / name for name in (*(file.name for file in files), TENSORS_NAME, CONFIG_NAME)]
    for old in set(folder.glob("quantizer.*.onnx")) - set(written):
        old.unlink()  # the earlier export had more of them
    return written


def _describe_half(half: Half, stack: StreamableStack, file: str) -> dict[str, Any]:
    late = (half.frames_per_step - 1) * half.outputs_per_frame
    return {
        "file": file,
        "input": INPUT,
        "output": OUTPUT,
        "next": NEXT,
        "inputs_per_step": half.step_inputs,
        "outputs_per_step": half.frames_per_step * half.outputs_per_frame,
        "delay_outputs": half.timing.delay_outputs + late,
        "lookahead_inputs": half.timing.lookahead_inputs,
        "state": [{"name": n, "shape": list(s)} for n, s in state_shapes(stack).items()],
    }


def _describe(config: EncodecConfig, identity: str, int8: bool, groups: list[int]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "producer": f"streaming-encodec {__version__}",
        "model": identity,
        "weights": "int8" if int8 else "float32",
        "sampling_rate": config.sampling_rate,
        "channels": config.audio_channels,
        "hop_length": config.hop_length,
        "latent_size": config.hidden_size,
        "codebook_size": config.codebook_size,
        "bits_per_codebook": config.bits_per_codebook,
        "num_codebooks": config.num_quantizers,
        "bandwidths": [
            {"kbps": kbps, "num_codebooks": config.num_codebooks_for(kbps)} for kbps in config.target_bandwidths
        ],
        "silence_frames": silence_frames(config),
        "tensors": TENSORS_NAME,
        "quantizer": [
            {
                "file": f"quantizer.{i}.onnx",
                "input": RESIDUAL,
                "codes": CODES,
                "rest": REST,
                "num_codebooks": count,
            }
            for i, count in enumerate(groups)
        ],
    }


def _start_tensors(state: HalfState, prefix: str) -> _Arrays:
    """The state of a stream that starts in silence, channels last as the graphs have it."""
    tensors = {f"{prefix}.pending": _array(state.pending.swapaxes(1, 2))}
    for name, array in named_arrays(turn(state.layers, NumpyArrays()), "layers"):
        if array.size:
            tensors[f"{prefix}.{name}"] = array
    return tensors


def _write_graph(path: Path, graph: onnx.ModelProto, part: str, identity: str) -> Path:
    onnx.helper.set_model_props(graph, {MODEL_KEY: identity, PART_KEY: part})
    path.write_bytes(graph.SerializeToString())
    return path


def _array(x: AnyArray) -> NDArray[Any]:
    return np.ascontiguousarray(as_numpy(x))
