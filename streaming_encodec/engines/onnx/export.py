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
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

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
from streaming_encodec.engines.onnx.stepper import check_runs
from streaming_encodec.errors import StreamError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.fingerprint import fingerprint
from streaming_encodec.model.plain import plain_model
from streaming_encodec.stepping.engine import find_engine
from streaming_encodec.stepping.half import Half, HalfState, decoder_half, encoder_half
from streaming_encodec.stepping.silence import decoder_after_silence, encoder_after_silence, silence_frames
from streaming_encodec.stepping.tree import named_tensors

_Arrays = dict[str, NDArray[Any]]


@torch.no_grad()
def export(model: EncodecModel, folder: Path, frames_per_step: int = 1, int8: bool = False) -> list[Path]:
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
    model = plain_model(model)
    check_runs(model)
    encoder, decoder = encoder_half(model, frames_per_step), decoder_half(model, frames_per_step)
    held = {file.name for file in folder.iterdir()} - {LOCK_NAME} if folder.exists() else set()
    if held and not (folder / CONFIG_NAME).is_file():
        raise StreamError(f"{folder} holds files that are no earlier export: choose a new folder")
    identity = fingerprint(model)
    graphs = {
        "encoder": step_graph(model.encoder, encoder.step_inputs, int8),
        "decoder": step_graph(model.decoder, decoder.step_inputs, int8),
    }
    books = [_numpy(codebook.embed) for codebook in model.quantizer.codebooks]
    groups = codebook_groups(model.config)
    for i, group in enumerate(groups):
        graphs[f"quantizer.{i}"] = quantizer_graph([books[k] for k in group])
    reference = find_engine("eager", model)
    tensors: _Arrays = {"codebooks": np.stack(books)}
    tensors |= _start_tensors(encoder_after_silence(reference, encoder, 1), "encoder")
    skips = []
    for count in range(1, len(books) + 1):
        state = decoder_after_silence(reference, decoder, 1, count)
        tensors |= _start_tensors(state, f"decoder.{count}")
        skips.append(state.skip)
    config = _describe(model, identity, int8, encoder, decoder, [len(group) for group in groups])
    config["encoder"]["skip_outputs"] = encoder_after_silence(reference, encoder, 1).skip
    config["decoder"]["skip_outputs"] = skips
    with AtomicFiles(folder, last=CONFIG_NAME) as part:
        files = [_write_graph(part / f"{name}.onnx", graph, name, identity) for name, graph in graphs.items()]
        save_file(tensors, part / TENSORS_NAME)
        config["sha256"] = {file.name: checksum(file.read_bytes()) for file in (*files, part / TENSORS_NAME)}
        (part / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    written = [folder / name for name in (*(file.name for file in files), TENSORS_NAME, CONFIG_NAME)]
    for old in set(folder.glob("quantizer.*.onnx")) - set(written):
        old.unlink()  # the earlier export had more of them
    return written


def _describe(
    model: EncodecModel, identity: str, int8: bool, encoder: Half, decoder: Half, groups: list[int]
) -> dict[str, Any]:
    config = model.config

    def half(half: Half, file: str) -> dict[str, Any]:
        late = (half.frames_per_step - 1) * half.outputs_per_frame
        return {
            "file": file,
            "input": INPUT,
            "output": OUTPUT,
            "next": NEXT,
            "inputs_per_step": half.step_inputs,
            "outputs_per_step": half.frames_per_step * half.outputs_per_frame,
            "delay_outputs": half.delay_outputs + late,
            "lookahead_inputs": half.lookahead_inputs,
            "state": [{"name": n, "shape": list(s)} for n, s in state_shapes(half.stack).items()],
        }

    return {
        "format": FORMAT,
        "producer": f"streaming-encodec {__version__}",
        "model": identity,
        "weights": "int8" if int8 else "float32",
        "sampling_rate": config.sampling_rate,
        "channels": config.audio_channels,
        "hop_length": config.hop_length,
        "frames_per_step": encoder.frames_per_step,
        "latent_size": config.hidden_size,
        "codebook_size": config.codebook_size,
        "bits_per_codebook": config.bits_per_codebook,
        "num_codebooks": config.num_quantizers,
        "bandwidths": [
            {"kbps": kbps, "num_codebooks": config.num_codebooks_for(kbps)} for kbps in config.target_bandwidths
        ],
        "silence_frames": silence_frames(model),
        "tensors": TENSORS_NAME,
        "encoder": half(encoder, "encoder.onnx"),
        "decoder": half(decoder, "decoder.onnx"),
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
    tensors = {f"{prefix}.pending": _numpy(state.pending.transpose(1, 2))}
    for name, tensor in named_tensors(turn(state.layers or ()), "layers"):
        if tensor.numel():
            tensors[f"{prefix}.{name}"] = _numpy(tensor)
    return tensors


def _write_graph(path: Path, graph: onnx.ModelProto, part: str, identity: str) -> Path:
    onnx.helper.set_model_props(graph, {MODEL_KEY: identity, PART_KEY: part})
    path.write_bytes(graph.SerializeToString())
    return path


def _numpy(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = np.ascontiguousarray(tensor.detach().cpu().numpy())
    return array
