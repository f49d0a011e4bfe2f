"""Checks everything in ``codec.json`` once, so that an export that loads also runs. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST = 1 << 24
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_FLOAT = "tensor(float)"


def check_config(config: Mapping[str, Any], tensors_name: str) -> None:
    """Raise ``ValueError``, which names the field, for anything that ``export`` would not write."""
    if not isinstance(config.get("model"), str) or not _FINGERPRINT.fullmatch(config["model"]):
        raise ValueError(f"model is {config.get('model')!r}, no fingerprint")
    if config.get("weights") not in ("float32", "int8"):
        raise ValueError(f"weights is {config.get('weights')!r}")
    if config.get("tensors") != tensors_name:
        raise ValueError(f"tensors is {config.get('tensors')!r}")
    for name in ("sampling_rate", "hop_length", "frames_per_step", "latent_size", "num_codebooks"):
        _whole(config, name, 1)
    _whole(config, "channels", 1, 2)
    bits = _whole(config, "bits_per_codebook", 1, 24)
    _equal(config, "codebook_size", 1 << bits)
    _whole(config, "silence_frames", 0)
    frames, samples = config["frames_per_step"], config["frames_per_step"] * config["hop_length"]
    _check_half(config, "encoder", samples, frames)
    _check_half(config, "decoder", frames, samples)
    _whole(config["encoder"], "skip_outputs", 0)
    skips = config["decoder"].get("skip_outputs")
    if not isinstance(skips, list) or len(skips) != config["num_codebooks"]:
        raise ValueError("decoder.skip_outputs is no list of one number for each codebook")
    for place in range(len(skips)):
        _whole(dict(enumerate(skips)), place, 0)
    _check_bandwidths(config)
    _check_quantizer(config)
    _check_checksums(config, tensors_name)


def _check_half(config: Mapping[str, Any], part: str, inputs: int, outputs: int) -> None:
    half = config.get(part)
    if not isinstance(half, dict):
        raise ValueError(f"{part} is {type(half).__name__}")
    _equal(half, "file", f"{part}.onnx")
    _equal(half, "inputs_per_step", inputs)
    _equal(half, "outputs_per_step", outputs)
    for name in ("delay_outputs", "lookahead_inputs"):
        _whole(half, name, 0)
    for name in ("input", "output", "next"):
        _text(half, name)
    states = half.get("state")
    if not isinstance(states, list):
        raise ValueError(f"{part}.state is {type(states).__name__}")
    for state in states:
        if not isinstance(state, dict) or not isinstance(state.get("shape"), list):
            raise ValueError(f"{part}.state holds {state!r}")
        _text(state, "name")
        for place in range(len(state["shape"])):
            _whole(dict(enumerate(state["shape"])), place, 1)
    if len({state["name"] for state in states}) < len(states):
        raise ValueError(f"{part}.state names one tensor twice")


def _check_bandwidths(config: Mapping[str, Any]) -> None:
    bandwidths = config.get("bandwidths")
    if not isinstance(bandwidths, list) or not bandwidths:
        raise ValueError("bandwidths is no list")
    for entry in bandwidths:
        kbps = entry.get("kbps") if isinstance(entry, dict) else None
        if not isinstance(kbps, int | float) or isinstance(kbps, bool) or not 0 < kbps < _MOST:
            raise ValueError(f"bandwidths holds {entry!r}")
        _whole(entry, "num_codebooks", 1, config["num_codebooks"])


def _check_quantizer(config: Mapping[str, Any]) -> None:
    parts = config.get("quantizer")
    if not isinstance(parts, list) or not parts:
        raise ValueError("quantizer is no list")
    total = 0
    for place, part in enumerate(parts):
        if not isinstance(part, dict):
            raise ValueError(f"quantizer holds {type(part).__name__}")
        _equal(part, "file", f"quantizer.{place}.onnx")
        for name in ("input", "codes", "rest"):
            _text(part, name)
        total += _whole(part, "num_codebooks", 1)
    if total != config["num_codebooks"]:
        raise ValueError(f"the quantizer's parts have {total} codebooks, not {config['num_codebooks']}")


def _check_checksums(config: Mapping[str, Any], tensors_name: str) -> None:
    sums = config.get("sha256")
    if sums is None:
        return  # of an earlier version, which has all other checks
    files = {config[part]["file"] for part in ("encoder", "decoder")} | {part["file"] for part in config["quantizer"]}
    if not isinstance(sums, dict) or sums.keys() != files | {tensors_name}:
        raise ValueError("sha256 does not name the graphs and the tensors")
    for name, value in sums.items():
        if not isinstance(value, str) or not _CHECKSUM.fullmatch(value):
            raise ValueError(f"sha256 of {name} is {value!r}")


def check_tensors(config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise ``ValueError`` if a tensor that a stream needs is missing, of another shape or type, or not finite."""
    shape = (config["num_codebooks"], config["codebook_size"], config["latent_size"])
    wanted: dict[str, tuple[int, ...]] = {"codebooks": shape}
    widths = {"encoder": config["channels"], "decoder": config["latent_size"]}
    prefixes = {"encoder": ["encoder"], "decoder": [f"decoder.{k + 1}" for k in range(shape[0])]}
    for part, starts in prefixes.items():
        for prefix in starts:
            pending = tensors.get(f"{prefix}.pending")
            length = pending.shape[1] if pending is not None and pending.ndim == 3 else 0
            if length >= config[part]["inputs_per_step"] + config[part]["lookahead_inputs"] + 1:
                raise ValueError(f"{prefix}.pending holds {length} inputs, more than a step")
            wanted[f"{prefix}.pending"] = (1, length, widths[part])
            for state in config[part]["state"]:
                wanted[f"{prefix}.{state['name']}"] = (1, *state["shape"])
    for name, expected in wanted.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise ValueError(f"tensor {name} is missing")
        if tensor.dtype != np.float32 or tensor.shape != expected:
            raise ValueError(f"tensor {name} is {tensor.dtype} {list(tensor.shape)}, not float32 {list(expected)}")
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name} holds NaN or infinity")


def check_graph(config: Mapping[str, Any], part: Mapping[str, Any], session: Any) -> None:
    """Raise ``ValueError`` if a graph's inputs or outputs differ from ``codec.json``."""
    inputs = {value.name: (value.type, list(value.shape)) for value in session.get_inputs()}
    outputs = {value.name: (value.type, list(value.shape)) for value in session.get_outputs()}
    if "inputs_per_step" not in part:
        _expect(inputs, part["input"], [None, config["latent_size"]])
        _expect(outputs, part["codes"], [None, part["num_codebooks"]], "tensor(int64)")
        _expect(outputs, part["rest"], [None, config["latent_size"]])
        return
    widths = (config["channels"], config["latent_size"])
    wide_in, wide_out = widths if part["file"] == "encoder.onnx" else widths[::-1]
    _expect(inputs, part["input"], [None, part["inputs_per_step"], wide_in])
    _expect(outputs, part["output"], [None, part["outputs_per_step"], wide_out])
    for state in part["state"]:
        _expect(inputs, state["name"], [None, *state["shape"]])
        _expect(outputs, part["next"] + state["name"], [None, *state["shape"]])
    if len(inputs) != len(part["state"]) + 1:
        raise ValueError(f"the graph takes {len(inputs)} tensors, not {len(part['state']) + 1}")


def _expect(found: Mapping[str, tuple[str, list[Any]]], name: str, shape: list[int | None], kind: str = _FLOAT) -> None:
    if name not in found:
        raise ValueError(f"the graph has no {name}")
    has_kind, has_shape = found[name]
    # A length that the graph leaves open is a name, or nothing.
    alike = len(has_shape) == len(shape) and all(
        want is None or not isinstance(has, int) or has == want for has, want in zip(has_shape, shape, strict=True)
    )
    if has_kind != kind or not alike:
        raise ValueError(f"the graph's {name} is {has_kind} {has_shape}, not {kind} {shape}")


def _whole(values: Mapping[Any, Any], name: Any, least: int, most: int = _MOST) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is {str(value)[:100]}, no whole number from {least} to {most}")
    return value


def _equal(values: Mapping[str, Any], name: str, wanted: object) -> None:
    value = values.get(name)
    if value != wanted or isinstance(value, bool):
        raise ValueError(f"{name} is {str(value)[:100]!r}, not {wanted!r}")


def _text(values: Mapping[str, Any], name: str) -> None:
    value = values.get(name)
    if not isinstance(value, str) or not value or len(value) > 200:
        raise ValueError(f"{name} is {str(value)[:100]!r}, no name")
