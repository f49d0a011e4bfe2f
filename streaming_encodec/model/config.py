"""The fields of a Hugging Face EnCodec ``config.json``, checked once, and the values that follow from them.

Source of the field names and defaults: ``transformers`` ``EncodecConfig``; of the arithmetic: arXiv 2210.13438.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from streaming_encodec.errors import ConfigError
from streaming_encodec.json_text import read_json
from streaming_encodec.samples import MAX_SAMPLE_RATE

NORM_TYPES = ("weight_norm", "time_group_norm")
PAD_MODES = ("constant", "reflect", "replicate", "circular")

USUAL_KBPS = 6.0
"""Where the published models sound good to most, and the bundled one is made for."""

_MOST = 1 << 31
"""Bound of all integers of a configuration; products of a few of them are still finite."""
_MOST_ITEMS = 64
_LONGEST_SEGMENT_S = 3600.0
_MOST_SPAN = 1 << 16
"""Largest receptive field of a convolution, in inputs."""


@dataclass(frozen=True)
class EncodecConfig:
    """An EnCodec architecture. Defaults are those of the published 24 kHz model.

    Raises:
        ConfigError: a field is out of range; the message names the field.
    """

    target_bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0, 24.0)
    sampling_rate: int = 24_000
    audio_channels: int = 1
    normalize: bool = False
    chunk_length_s: float | None = None
    overlap: float | None = None
    hidden_size: int = 128
    num_filters: int = 32
    num_residual_layers: int = 1
    upsampling_ratios: tuple[int, ...] = (8, 5, 4, 2)
    norm_type: str = "weight_norm"
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_growth_rate: int = 2
    use_causal_conv: bool = True
    pad_mode: str = "reflect"
    compress: int = 2
    num_lstm_layers: int = 2
    trim_right_ratio: float = 1.0
    codebook_size: int = 1024
    codebook_dim: int | None = None
    use_conv_shortcut: bool = True

    def __post_init__(self) -> None:
        _freeze_sequence(self, "target_bandwidths", float)
        _freeze_sequence(self, "upsampling_ratios", int)
        if self.codebook_dim is None:
            object.__setattr__(self, "codebook_dim", self.hidden_size)
        _validate(self)

    # -- derived values: computed here and nowhere else ------------------------------------------------------

    @property
    def hop_length(self) -> int:
        """Samples per frame: the product of the ratios."""
        return math.prod(self.upsampling_ratios)

    @property
    def frame_rate(self) -> int:
        """Frames per second, rounded up as upstream does (it enters the bandwidth arithmetic)."""
        return math.ceil(self.sampling_rate / self.hop_length)

    @property
    def frame_ms(self) -> float:
        """Duration of a frame in milliseconds, not rounded."""
        return 1000.0 * self.hop_length / self.sampling_rate

    @property
    def bits_per_codebook(self) -> int:
        """Bits of one code."""
        return self.codebook_size.bit_length() - 1

    @cached_property
    def num_quantizers(self) -> int:
        """Codebooks of the checkpoint; if unknown, as many as the highest bandwidth needs."""
        return int(1000 * self.target_bandwidths[-1] // (self.frame_rate * self.bits_per_codebook))

    @property
    def chunk_length(self) -> int | None:
        """Samples per segment, or None if the model takes the whole input at once."""
        return None if self.chunk_length_s is None else int(self.chunk_length_s * self.sampling_rate)

    @property
    def chunk_stride(self) -> int | None:
        """Samples from one segment's start to the next one's, or None without segments."""
        if self.chunk_length is None or self.overlap is None:
            return None
        return max(1, int((1.0 - self.overlap) * self.chunk_length))

    @property
    def streams_by_sample(self) -> bool:
        """True if each frame depends only on past samples and a fixed lookahead.

        Segments, a scale per segment and a norm over time all need a whole segment.
        """
        return self.chunk_length_s is None and not self.normalize and self.norm_type == "weight_norm"

    @property
    def usual_bandwidth(self) -> float:
        """Kbps of a stream that asks for none: 6 where the model has it, else the nearest."""
        return min(self.target_bandwidths, key=lambda kbps: abs(kbps - USUAL_KBPS))

    def num_codebooks_for(self, bandwidth_kbps: float | None) -> int:
        """Active codebooks at a bandwidth in kbps; ``None`` means the lowest one, as in ``transformers``.

        Raises:
            ConfigError: the bandwidth is not one of ``target_bandwidths``.
        """
        if bandwidth_kbps is None:
            bandwidth_kbps = self.target_bandwidths[0]
        if bandwidth_kbps not in self.target_bandwidths:
            known = ", ".join(f"{b:g}" for b in self.target_bandwidths)
            raise ConfigError(f"bandwidth {bandwidth_kbps!r} kbps is not one of this model's: choose {known}")
        wanted = math.floor(bandwidth_kbps * 1000 / (self.bits_per_codebook * self.frame_rate))
        return min(max(1, wanted), self.num_quantizers)

    def bandwidth_for(self, num_codebooks: int) -> float:
        """Payload in kbps of ``num_codebooks`` codebooks, from the exact frame rate."""
        return num_codebooks * self.bits_per_codebook / self.frame_ms

    def with_stored_codebooks(self, count: int) -> EncodecConfig:
        """This configuration for weights with ``count`` codebooks, more or fewer than the bandwidths need.

        Until 4.51 transformers counted 10 bits a code for codebooks of any size: if it is not 1024, its files hold
        more codebooks than any bandwidth uses, or fewer than the highest needs. The weights show their number, and
        ``config.json`` does not, so it is not a field.
        """
        config = replace(self)
        object.__setattr__(config, "num_quantizers", count)
        return config

    # -- in and out ------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncodecConfig:
        """Build from the content of a ``config.json``; unknown fields are ignored.

        Raises:
            ConfigError: another ``model_type``, or an invalid field.
        """
        model_type = values.get("model_type", "encodec")
        if model_type != "encodec":
            raise ConfigError(f"model_type is {_shown(model_type)}: this is no EnCodec configuration")
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    @classmethod
    def from_json(cls, path: str | Path) -> EncodecConfig:
        """Read a ``config.json``. Raises ``ConfigError`` if the file is missing or not a JSON object."""
        try:
            values = read_json(Path(path))
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist: a model folder needs a config.json") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} holds no JSON object: a model folder needs EnCodec's config.json")
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a ``config.json`` holds them, with what ``transformers`` needs to recognise it."""
        values: dict[str, Any] = {"model_type": "encodec", "architectures": ["EncodecModel"]}
        for name, value in asdict(self).items():
            values[name] = list(value) if isinstance(value, tuple) else value
        return values


def _freeze_sequence(config: EncodecConfig, name: str, kind: type) -> None:
    value = getattr(config, name)
    if not isinstance(value, (list, tuple)) or not value:
        raise ConfigError(f"{name} must be a list with at least one number, got {_shown(value)}")
    if len(value) > _MOST_ITEMS:
        raise ConfigError(f"{name} must hold at most {_MOST_ITEMS} numbers, got {len(value)}")
    for item in value:
        if not _is_number(item) or kind(item) != item:
            raise ConfigError(f"{name} must hold {kind.__name__} values within {_MOST:g}, got {_shown(item)}")
    object.__setattr__(config, name, tuple(kind(item) for item in value))


def _check(condition: bool, config: EncodecConfig, name: str, rule: str) -> None:
    if not condition:
        raise ConfigError(f"{name} must be {rule}, got {_shown(getattr(config, name))}")


def _shown(value: object) -> str:
    # A file may hold a number of thousands of digits, or a list of millions.
    if isinstance(value, int) and abs(value) > _MOST:
        return f"about {'-' * (value < 0)}2^{abs(value).bit_length()}"
    if isinstance(value, list | dict | tuple) and len(value) > _MOST_ITEMS:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "…"


def _is_number(value: object, least: float = -_MOST, most: float = _MOST) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _validate(config: EncodecConfig) -> None:
    positive = (
        "sampling_rate audio_channels hidden_size num_filters kernel_size last_kernel_size residual_kernel_size"
        " dilation_growth_rate compress codebook_size codebook_dim"
    )
    for name in (*positive.split(), "num_residual_layers", "num_lstm_layers"):
        value = getattr(config, name)
        _check(isinstance(value, int) and not isinstance(value, bool), config, name, "a whole number")
        least = 0 if name in ("num_residual_layers", "num_lstm_layers") else 1
        _check(value >= least, config, name, f"at least {least}")
        _check(value < _MOST, config, name, f"below {_MOST}")
    for name in ("normalize", "use_causal_conv", "use_conv_shortcut"):
        _check(isinstance(getattr(config, name), bool), config, name, "true or false")

    _check(config.sampling_rate <= MAX_SAMPLE_RATE, config, "sampling_rate", f"at most {MAX_SAMPLE_RATE} Hz")
    _check(config.audio_channels in (1, 2), config, "audio_channels", "1 or 2")
    _check(all(r >= 1 for r in config.upsampling_ratios), config, "upsampling_ratios", "positive")
    _check(config.hop_length <= MAX_SAMPLE_RATE, config, "upsampling_ratios", f"a frame of {MAX_SAMPLE_RATE} at most")
    for name in ("kernel_size", "last_kernel_size", "residual_kernel_size"):
        _check(getattr(config, name) <= _MOST_SPAN, config, name, f"at most {_MOST_SPAN}")
    _check(config.num_residual_layers <= _MOST_ITEMS, config, "num_residual_layers", f"at most {_MOST_ITEMS}")
    widest = config.dilation_growth_rate ** max(0, config.num_residual_layers - 1)
    in_span = widest * (config.residual_kernel_size - 1) < _MOST_SPAN
    _check(in_span, config, "dilation_growth_rate", f"so small that no convolution looks at {_MOST_SPAN} inputs")
    _check(config.norm_type in NORM_TYPES, config, "norm_type", f"one of {', '.join(NORM_TYPES)}")
    _check(config.pad_mode in PAD_MODES, config, "pad_mode", f"one of {', '.join(PAD_MODES)}")
    _check(config.num_filters >= config.compress, config, "compress", "at most num_filters")
    is_power = config.codebook_size >= 2 and config.codebook_size & (config.codebook_size - 1) == 0
    _check(is_power, config, "codebook_size", "a power of two")
    _check(config.codebook_dim == config.hidden_size, config, "codebook_dim", "equal to hidden_size")
    ratio: object = config.trim_right_ratio  # a config.json may hold anything
    _check(_is_number(ratio, 0.0, 1.0), config, "trim_right_ratio", "within 0 to 1")
    _check(config.use_causal_conv or ratio == 1.0, config, "trim_right_ratio", "1.0 without causal convolutions")

    rising = all(a < b for a, b in zip(config.target_bandwidths, config.target_bandwidths[1:], strict=False))
    _check(config.target_bandwidths[0] > 0 and rising, config, "target_bandwidths", "positive and rising")
    _check(config.num_quantizers >= 1, config, "target_bandwidths", "enough for one codebook at the highest")

    share: object = config.overlap
    _check(share is None or _is_number(share), config, "overlap", "a number or null")
    if config.chunk_length_s is not None:
        seconds: object = config.chunk_length_s
        in_range = _is_number(seconds, 0.0, _LONGEST_SEGMENT_S) and seconds != 0
        _check(in_range, config, "chunk_length_s", f"positive, up to {_LONGEST_SEGMENT_S:g} seconds")
        _check((config.chunk_length or 0) >= 1, config, "chunk_length_s", "at least one sample")
        in_range = _is_number(share, 0.0, 1.0) and share != 1.0
        _check(in_range, config, "overlap", "within 0 to 1 (not 1) where chunk_length_s is set")
