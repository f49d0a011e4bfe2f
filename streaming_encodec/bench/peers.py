"""The packages that the engines are measured against, each as its documentation says to call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from streaming_encodec.bench.measure import Case, noise
from streaming_encodec.extras import needs_extra
from streaming_encodec.model.config import EncodecConfig


def peer_cases(config: EncodecConfig, kbps: float, seconds: float) -> dict[str, Case]:
    """Cases by name, for an architecture with random weights: what it costs does not depend on them.

    Raises:
        MissingExtraError: ``transformers`` is not installed. The original package is left out where it is
            not, or where it has no such architecture.
    """
    lengths = {"one frame a call": config.hop_length, "whole file": int(seconds * config.sampling_rate)}
    transformers = _transformers(config)
    ways = {
        "transformers": (
            lambda pcm: transformers.encode(pcm, bandwidth=kbps),
            lambda encoded: transformers.decode(encoded.audio_codes, encoded.audio_scales),
        )
    }
    original = _original(config, kbps)
    if original is not None:
        ways["encodec"] = (original.encode, original.decode)
    return {
        f"{peer}, {how}": _PeerCase(*way, config, samples)
        for peer, way in ways.items()
        for how, samples in lengths.items()
    }


class _PeerCase:
    """A peer's model, with its way to encode [1, C, n] and to decode what came of it."""

    def __init__(
        self,
        encode: Callable[[torch.Tensor], Any],
        decode: Callable[[Any], object],
        config: EncodecConfig,
        samples: int,
    ) -> None:
        self._do_encode, self._do_decode = encode, decode
        self._pcm = torch.from_numpy(noise(config.audio_channels, samples))[None]
        self._encoded: Any = None
        self.audio_ms = 1000 * samples / config.sampling_rate

    def step(self) -> Sequence[Callable[[], object]]:
        return self._encode, self._decode

    @torch.no_grad()
    def _encode(self) -> None:
        self._encoded = self._do_encode(self._pcm)

    @torch.no_grad()
    def _decode(self) -> None:
        self._do_decode(self._encoded)


def _transformers(config: EncodecConfig) -> Any:
    with needs_extra("--peers", "transformers", "test"):
        import transformers
    values = {k: v for k, v in config.to_dict().items() if k not in ("model_type", "architectures")}
    model: Any = transformers.EncodecModel(transformers.EncodecConfig(**values))
    return model.eval()


def _original(config: EncodecConfig, kbps: float) -> Any | None:
    if config != EncodecConfig():  # it has the published architectures only
        return None
    try:
        from encodec.model import EncodecModel
    except ImportError:
        return None
    model = EncodecModel.encodec_model_24khz(pretrained=False).eval()
    model.set_target_bandwidth(kbps)
    return model
