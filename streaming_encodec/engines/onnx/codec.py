"""The live codec on ONNX Runtime and numpy alone: a receiver on a small machine, without torch.

Reads the folder that ``streaming-encodec export`` writes. A stream starts in silence, as live streams do;
the exact start and the end's reflected padding need the layers, and so ``StreamingEncoder`` and
``StreamingDecoder``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.engines.onnx.exported import ExportedFolder
from streaming_encodec.engines.onnx.session import Session, run
from streaming_encodec.errors import ConfigError, StreamError
from streaming_encodec.samples import check_amplitude
from streaming_encodec.types import Floats

Codes = NDArray[np.int64]


class _Half:
    """One direction: inputs wait until they fill a step, and go through the graph."""

    def __init__(self, folder: ExportedFolder, part: str) -> None:
        self._folder, self._part = folder, folder.config[part]
        self._session: Session = folder.session(self._part)
        self._names = [state["name"] for state in self._part["state"]]
        self._outputs = [self._part["output"], *(self._part["next"] + name for name in self._names)]

    def begin(self, prefix: str, skip: int) -> None:
        """Start in silence."""
        tensors = self._folder.tensors
        self._pending = tensors[f"{prefix}.pending"][0]  # [n, width]
        self._state = [tensors[f"{prefix}.{name}"] for name in self._names]
        self._skip = skip

    def advance(self, x: Floats) -> list[Floats]:
        """``x`` [n, width in] → what became complete, [m, width out] for each step."""
        pending = np.concatenate((self._pending, x))
        size = self._part["inputs_per_step"]
        pieces = []
        for at in range(0, len(pending) - size + 1, size):
            feeds = dict(zip(self._names, self._state, strict=True))
            feeds[self._part["input"]] = np.ascontiguousarray(pending[None, at : at + size])
            y, *self._state = run(self._session, self._outputs, feeds)
            cut = min(self._skip, y.shape[1])
            self._skip -= cut
            if cut < y.shape[1]:
                pieces.append(y[0, cut:])
        self._pending = pending[len(pending) - len(pending) % size :].copy()
        return pieces


class OrtEncoder:
    """``StreamingEncoder`` for one stream on ONNX Runtime alone; a silence start.

    Args:
        folder: made by ``streaming-encodec export``.
        bandwidth: kbps, one of the model's; None is the lowest.
        model: the fingerprint that the model must have, if any.

    Raises:
        CheckpointError: the folder is not such an export, damaged, or of another model or version.
        MissingExtraError: ONNX Runtime is not installed.
        ConfigError: the bandwidth is not one of the model's.
    """

    def __init__(self, folder: str | Path, bandwidth: float | None = 6.0, model: str | None = None) -> None:
        exported = ExportedFolder.load(folder, model)
        self.config = exported.config
        self.bandwidth = bandwidth
        self._half = _Half(exported, "encoder")
        self._quantizers = [exported.session(part) for part in self.config["quantizer"]]
        self.reset()

    def push(self, pcm: NDArray[Any]) -> Codes:
        """Samples, floating point [C, n] or [n] → codes [K, f] of the frames they complete.

        Raises:
            StreamError: wrong shape or dtype, NaN or infinity. The stream is then as it was before.
        """
        channels = self.config["channels"]
        samples = np.asarray(pcm)
        if samples.ndim == 1 and channels == 1:
            samples = samples[None]
        if samples.ndim != 2 or len(samples) != channels or samples.dtype.kind != "f":
            raise StreamError(
                f"samples must be floating point [{channels}, n], got {samples.dtype} {list(samples.shape)}"
            )
        check_amplitude(samples)
        samples = samples.astype(np.float32, copy=False)
        codes = [np.zeros((self.num_codebooks, 0), np.int64)]
        codes += [self._quantise(latents) for latents in self._half.advance(samples.T)]
        return np.concatenate(codes, axis=1)

    def reset(self) -> None:
        """Start a new stream; settings stay."""
        self._half.begin("encoder", self.config["encoder"]["skip_outputs"])

    @property
    def bandwidth(self) -> float:
        """Target bandwidth in kbps; set it at any time, it takes effect at the next frame."""
        return self._kbps

    @bandwidth.setter
    def bandwidth(self, kbps: float | None) -> None:
        known = {entry["kbps"]: entry["num_codebooks"] for entry in self.config["bandwidths"]}
        if kbps is None:
            kbps = min(known)
        if kbps not in known:
            choice = ", ".join(f"{value:g}" for value in known)
            raise ConfigError(f"bandwidth {kbps!r} kbps is not one of this model's: choose {choice}")
        self._kbps, self.num_codebooks = kbps, int(known[kbps])

    def _quantise(self, latents: Floats) -> Codes:
        rest, codes, done = latents, [], 0
        for part, session in zip(self.config["quantizer"], self._quantizers, strict=True):
            if done >= self.num_codebooks:
                break
            found, rest = run(session, [part["codes"], part["rest"]], {part["input"]: rest})
            codes.append(found)
            done += part["num_codebooks"]
        return np.concatenate(codes, axis=1)[:, : self.num_codebooks].T


class OrtDecoder:
    """``StreamingDecoder`` for one stream on ONNX Runtime alone; a silence start.

    Raises:
        CheckpointError: the folder is not such an export, damaged, or of another model or version.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, folder: str | Path, model: str | None = None) -> None:
        exported = ExportedFolder.load(folder, model)
        self.config = exported.config
        self._half = _Half(exported, "decoder")
        self._codebooks = exported.tensors["codebooks"]  # [K, size, D]
        self._started = False

    def push(self, codes: NDArray[Any]) -> Floats:
        """Codes, whole numbers [K, f], any K up to the model's → the samples [C, n] that they complete.

        Raises:
            StreamError: wrong shape or dtype, or a code out of range. The stream is then as it was before.
        """
        codes = np.asarray(codes)
        return self.push_latent(self.latent(codes), len(codes))

    def latent(self, codes: NDArray[Any]) -> Floats:
        """The latent frames [D, f] that codes [K, f] stand for."""
        books, size, _ = self._codebooks.shape
        if codes.ndim != 2 or not 1 <= len(codes) <= books or codes.dtype.kind not in "iu":
            raise StreamError(f"codes must be whole numbers [1 to {books}, f], got {codes.dtype} {list(codes.shape)}")
        if codes.size and (codes.min() < 0 or codes.max() >= size):
            raise StreamError(f"codes go from 0 to {size - 1}, got {codes.min()} to {codes.max()}")
        latent: Floats = self._codebooks[0][codes[0]]  # [f, D]
        for table, row in zip(self._codebooks[1:], codes[1:], strict=False):
            latent = latent + table[row]
        return latent.T

    def push_latent(self, latent: Floats, num_codebooks: int | None = None) -> Floats:
        """Latent frames [D, f] in place of codes, for lost frames.

        ``num_codebooks`` only matters to a stream that starts with them, for the silence before it.
        """
        if not self._started and latent.shape[1]:
            count = num_codebooks or len(self._codebooks)
            self._half.begin(f"decoder.{count}", self.config["decoder"]["skip_outputs"][count - 1])
            self._started = True
        samples = [np.zeros((self.config["channels"], 0), np.float32)]
        if latent.shape[1]:
            samples += [y.T for y in self._half.advance(latent.T.astype(np.float32, copy=False))]
        return np.concatenate(samples, axis=1)

    def reset(self) -> None:
        """Start a new stream."""
        self._started = False  # which silence went before shows with the first codes
