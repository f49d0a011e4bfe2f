"""Everything a training run depends on, in one value that is stored with the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from streaming_encodec.errors import ConfigError
from streaming_encodec.json_text import read_json
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.streaming.conceal import LATENT_DECAY
from streaming_encodec.training.typed import check_types

VOICE_24KHZ = EncodecConfig(
    target_bandwidths=(1.5, 3.0, 6.0, 12.0),
    num_filters=24,
    upsampling_ratios=(2, 4, 5, 8),
    hidden_size=64,
    num_lstm_layers=1,
    use_conv_shortcut=False,
    pad_mode="constant",
)
"""The shipped model: large strides and little work at the sample rate, so that a laptop can train and run it."""


@dataclass(frozen=True)
class AugmentConfig:
    """How a segment is augmented before it is coded; a field with ``_chance`` is a probability a clip.

    ``speed`` plays a clip slower or faster, pitch and formants included. ``noise`` is coloured, ``scene`` a recording
    from the data set's noise sources; ``microphone`` is a random frequency response.
    """

    speed_chance: float = 0.5
    speed: tuple[float, float] = (0.8, 1.25)
    gain_db: tuple[float, float] = (-14.0, 4.0)
    noise_chance: float = 0.2
    noise_snr_db: tuple[float, float] = (12.0, 45.0)
    scene_chance: float = 0.15
    scene_snr_db: tuple[float, float] = (5.0, 35.0)
    microphone_chance: float = 0.2
    microphone_db: float = 6.0
    band_limit_chance: float = 0.1
    band_limit_hz: tuple[float, float] = (3400.0, 8000.0)
    reverb_chance: float = 0.05
    reverb_seconds: tuple[float, float] = (0.1, 0.5)


@dataclass(frozen=True)
class LostFramesConfig:
    """Frames lost in training; ``decay`` a frame is that of a call's receiver.

    ``start_step`` of None: together with the codebooks.
    """

    chance: float = 0.15
    start_step: int | None = None
    rate: tuple[float, float] = (0.02, 0.25)
    burst_frames: tuple[float, float] = (1.0, 6.0)
    decay: float = LATENT_DECAY


@dataclass(frozen=True)
class ChannelConfig:
    """The noise that stands for the quantiser's error until there are codebooks (see ``channel``).

    ``start_step``: before it the latent passes unchanged; ``efficiency``: bits of an ideal code over a codebook's bits
    at equal error; the noise of a frame follows its power to ``loudness_exponent``, both as measured with k-means
    codebooks; ``decay`` of the covariance.
    """

    start_step: int = 150
    efficiency: float = 0.85
    loudness_exponent: float = 1.2
    decay: float = 0.98


@dataclass(frozen=True)
class QuantizerConfig:
    """Training of the codebooks: from ``start_step`` on, or if None, when ``start_share`` of the budget is used.

    ``keep``: those of ``start_model`` are used from the first step on, and nothing is computed.
    ``learning_rate_share``: of the run's peak, from there on.
    ``counts`` are drawn for every clip, so that each bandwidth works. ``freeze_encoder``: from then on only the
    decoder learns, from codes that no longer change; else the codebooks follow the encoder by moving averages
    of ``decay``, a code used less than ``dead_share`` of even use is replaced, and ``commitment_share`` is the weight
    of the commitment loss, relative to the decoder's gradient.
    """

    start_step: int | None = None
    start_share: float = 0.7
    keep: bool = False
    learning_rate_share: float = 0.3
    counts: tuple[int, ...] = (2, 2, 4, 8, 8, 8, 16)
    freeze_encoder: bool = True
    decay: float = 0.985
    dead_share: float = 0.12
    kmeans_batches: int = 200
    kmeans_rounds: int = 6
    commitment_share: float = 0.1


RECONSTRUCTION_LOSSES = ("waveform", "shaped", "mel", "loudness", "envelope", "similarity")


@dataclass(frozen=True)
class LossConfig:
    """Shares of the losses in the decoder's gradient (see ``balancer``), and the discriminator's start.

    Of the ``mel_windows``, ``mel_windows_a_step`` are taken in turn: all of them cost as much as the encoder.
    ``loudness``, ``envelope`` and ``similarity`` are models of hearing (see ``perceptual``).
    ``phase_counts``: a clip coded with fewer codebooks has its ``phase_losses`` lowered in proportion. Few bits can't
    carry the phase, and a decoder that must guess it learns silence; and spectra of 80 ms, which the similarity
    compares, do not distinguish words.
    ``adversarial_start`` of None leaves the discriminator out: let the other losses flatten first. It takes
    ``discriminator_clips`` of each batch: a clip costs it as much as the decoder, forward and backward. Its learning
    rate is ``discriminator_learning_rate_share`` of the codec's, as Adam's steps are larger than Muon's.
    """

    waveform: float = 0.5
    shaped: float = 1.5
    mel: float = 2.0
    loudness: float = 2.5
    envelope: float = 1.0
    similarity: float = 5.0
    phase_counts: int = 8
    phase_losses: tuple[str, ...] = ("waveform", "shaped", "similarity")
    adversarial: float = 1.0
    feature: float = 1.0
    mel_windows: tuple[int, ...] = (2048, 1024, 512, 256)
    mel_windows_a_step: int = 2
    adversarial_start: int | None = None
    discriminator_filters: int = 16
    discriminator_windows: tuple[int, ...] = (2048, 1024, 512)
    discriminator_every: int = 1
    discriminator_clips: int = 16
    discriminator_learning_rate_share: float = 0.3


_PARTS: dict[str, type[Any]] = {
    "augment": AugmentConfig,
    "lost_frames": LostFramesConfig,
    "channel": ChannelConfig,
    "quantizer": QuantizerConfig,
    "loss": LossConfig,
}


@dataclass(frozen=True)
class TrainConfig:
    """A run. With ``minutes`` the learning rate fits a wall-clock budget, else it fits ``steps``.

    ``start_model``: the folder of a model to start from, such as an earlier run's; None starts with random weights.
    ``speaker_seconds``: speakers are drawn evenly, but one with less sound than this in proportion to it; a clip whose
    bandwidth is known to pass 8.5 kHz is drawn ``wideband_factor`` times as often, and one of a source in
    ``source_weights`` so many times as often again.
    ``replicas``: parts of a batch that are processed in parallel, each on one core (see ``replicas``);
    ``threads``: torch's, for the rest of a step.
    ``precision``: ``float32``, or ``bfloat16`` by autocast (compare gradients first: see ``gradients``).
    """

    data: str = "data"
    out: str = "runs/voice-24khz"
    model: EncodecConfig = VOICE_24KHZ
    start_model: str | None = None
    seed: int = 1
    steps: int = 16_000
    minutes: float | None = None
    batch_size: int = 16
    segment_seconds: float = 0.64
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 50
    grad_clip: float = 5.0
    speaker_seconds: float = 30.0
    wideband_factor: float = 3.0
    source_weights: Mapping[str, float] = field(default_factory=dict)
    augment: AugmentConfig = AugmentConfig()
    lost_frames: LostFramesConfig = LostFramesConfig()
    channel: ChannelConfig = ChannelConfig()
    quantizer: QuantizerConfig = QuantizerConfig()
    loss: LossConfig = LossConfig()
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    replicas: int = 1
    log_every: int = 20
    save_every: int = 500
    validate_every: int = 1000
    validation_clips: int = 12
    cache_mb: int = 1024

    def __post_init__(self) -> None:
        for name, part in ("", self), *((f"{name}.", getattr(self, name)) for name in _PARTS):
            check_types(part, name)
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        _check_positive(
            self,
            "warmup_steps cache_mb steps batch_size segment_seconds learning_rate log_every save_every validate_every",
        )
        _check_positive(self, "grad_clip threads replicas validation_clips speaker_seconds wideband_factor")
        if self.replicas > self.batch_size:
            raise ConfigError(f"{self.replicas} replicas can't share a batch of {self.batch_size}: give fewer")
        if self.precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision must be 'float32' or 'bfloat16', got {self.precision!r}")
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"minutes must be above zero or None, got {self.minutes!r}")
        most = self.model.num_quantizers
        if not self.quantizer.counts or any(not 1 <= k <= most for k in self.quantizer.counts):
            raise ConfigError(f"quantizer.counts must be within 1 to {most}, got {self.quantizer.counts!r}")
        if not 0.0 <= self.quantizer.start_share < 1.0:
            raise ConfigError(
                f"quantizer.start_share must be from 0 to below 1, got {self.quantizer.start_share!r}: "
                "a model without trained codebooks codes nothing"
            )
        if self.quantizer.keep and self.start_model is None:
            raise ConfigError("quantizer.keep needs start_model: random weights have no codebooks to keep")
        if not 1 <= self.loss.mel_windows_a_step <= len(self.loss.mel_windows):
            raise ConfigError(
                f"loss.mel_windows_a_step must be within 1 to {len(self.loss.mel_windows)}, "
                f"got {self.loss.mel_windows_a_step!r}"
            )
        if self.segment_samples < 2 * self.model.hop_length:
            raise ConfigError(f"segment_seconds {self.segment_seconds} is shorter than two frames: give more")
        if self.loss.similarity > 0.0 and self.segment_samples < 0.08 * self.model.sampling_rate:
            raise ConfigError(
                f"the similarity loss hears frames of 0.08 s: segment_seconds {self.segment_seconds} is less"
            )
        if self.loss.phase_counts < 1:
            raise ConfigError(f"loss.phase_counts must be 1 or more, got {self.loss.phase_counts!r}")
        if unknown := set(self.loss.phase_losses) - set(RECONSTRUCTION_LOSSES):
            raise ConfigError(
                f"loss.phase_losses must be among {', '.join(RECONSTRUCTION_LOSSES)}, got {', '.join(sorted(unknown))}"
            )

    @property
    def segment_samples(self) -> int:
        """Samples of a training segment: a whole number of frames."""
        hop = self.model.hop_length
        return round(self.segment_seconds * self.model.sampling_rate / hop) * hop

    def to_json(self) -> str:
        """The run's configuration as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, path: Path) -> TrainConfig:
        """Read what :meth:`to_json` gave. Raises :class:`ConfigError` for any other file."""
        try:
            values = read_json(path)
            if not isinstance(values, dict):
                raise ValueError("no JSON object")
            return cls.from_dict(values)
        except (OSError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"{path} is no training configuration ({error})") from error

    def unsaid(self, path: Path) -> dict[str, Any]:
        """The fields that are missing in the file this was read from, as ``part.field``, with their defaults.

        An earlier version wrote such a file: a run that resumes from it uses today's defaults for them.
        """
        said = read_json(path)
        left: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if name not in said:
                left[name] = value
            elif isinstance(said[name], dict) and isinstance(value, dict) and name != "source_weights":
                left |= {f"{name}.{key}": item for key, item in value.items() if key not in said[name]}
        return left

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build from plain values, lists where the fields are tuples."""
        known = {f.name for f in fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise ConfigError(f"unknown training fields: {', '.join(sorted(unknown))}")
        made: dict[str, Any] = {}
        for name, value in values.items():
            if name == "model" and isinstance(value, Mapping):
                made[name] = EncodecConfig.from_dict(value)
            elif name in _PARTS and isinstance(value, Mapping):
                made[name] = _PARTS[name](**{key: _tuple(item) for key, item in value.items()})
            else:
                made[name] = _tuple(value)
        return cls(**made)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_positive(config: TrainConfig, names: str) -> None:
    for name in names.split():
        if getattr(config, name) <= 0:
            raise ConfigError(f"{name} must be above zero, got {getattr(config, name)!r}")
