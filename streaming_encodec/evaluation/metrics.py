"""The metrics: each compares a clip with a codec's output.

A metric has a ``name``, a direction (``better``) and a call. Metrics that share a network or a spectrum form a
``family``. A package is imported when its family is made, so that a missing one is known before anything is computed:
see :func:`make_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from streaming_encodec.errors import ConfigError, MissingExtraError
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.extras import need
from streaming_encodec.evaluation.metric import WIDEBAND, Better, Metric, Score, mel_filters, power_spectrum, resample
from streaming_encodec.types import Pcm


class PesqWideband:
    """PESQ-WB, ITU-T P.862.2: 1.0 … 4.64 mean opinion score."""

    name, title = "pesq_wb", "PESQ-WB"
    family = name
    better: Better = "higher"
    absolute = False
    worst = 1.0

    def __init__(self) -> None:
        self._pesq = need("pesq", "PESQ")

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        reference = resample(clip.samples, clip.sample_rate, WIDEBAND)
        value = self._compare(reference, resample(degraded, clip.sample_rate, WIDEBAND))
        if value is None:
            # Speech in the original and none in the output is a fault of the codec.
            value = None if self._compare(reference, reference) is None else self.worst
        return None if value is None else Score(value)

    def _compare(self, reference: Pcm, signal: Pcm) -> float | None:
        """None if one of the two has no utterance."""
        if not signal.any():
            return None  # the package divides by the energy
        try:
            return float(self._pesq.pesq(WIDEBAND, reference, signal, "wb"))
        except self._pesq.PesqError:
            return None


class Stoi:
    """Short-time objective intelligibility (Taal et al. 2011), 0 … 1."""

    name, title = "stoi", "STOI"
    family = name
    better: Better = "higher"
    absolute = False

    def __init__(self) -> None:
        self._stoi = need("pystoi", "STOI")

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        # pystoi resamples to 10 kHz by itself.
        return Score(float(self._stoi.stoi(clip.samples, degraded, clip.sample_rate)))


class Visqol:
    """ViSQOL v3 in speech mode (16 kHz, lattice mapping): 1 … 5 mean opinion score."""

    name, title = "visqol_speech", "ViSQOL speech"
    family = name
    better: Better = "higher"
    absolute = False

    def __init__(self) -> None:
        visqol = need("visqol", "ViSQOL")
        # Without the lattice the package uses a polynomial that gives higher scores.
        need("ai_edge_litert", "ViSQOL's speech mode")
        self._api = visqol.VisqolApi()
        self._api.create(mode="speech", use_lattice_model=True)

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        reference = resample(clip.samples, clip.sample_rate, WIDEBAND).astype(np.float64)
        signal = resample(degraded, clip.sample_rate, WIDEBAND).astype(np.float64)
        if not signal.any():
            return Score(1.0)  # the package can't align silence
        return Score(float(self._api.measure_from_arrays(reference, signal, WIDEBAND).moslqo))


class LogMel:
    """Mean absolute difference of log-mel spectra in dB: 80 bands, windows of 1024 samples at 24 kHz, hop a quarter.

    Energies get a floor 80 dB below the loudest band of the clip, so that differences near silence do not count.
    Needs numpy alone.
    """

    name, title = "log_mel_db", "log-mel dB"
    family = name
    better: Better = "lower"
    absolute = False
    bands, window, floor_db = 80, 1024, -80.0

    def __call__(self, clip: Clip, degraded: Pcm) -> Score | None:
        filters = mel_filters(clip.sample_rate, self.window, self.bands)
        reference = power_spectrum(clip.samples, self.window, self.window // 4) @ filters.T
        signal = power_spectrum(degraded, self.window, self.window // 4) @ filters.T
        floor = reference.max() * 10 ** (self.floor_db / 10)
        return Score(float(np.mean(np.abs(10 * np.log10((reference + floor) / (signal + floor))))))


@dataclass(frozen=True)
class MetricOptions:
    """``whisper``: model for words (see ``recognition``). ``frame_rate_hz``: the codec's, for modulation."""

    whisper: str | None = None
    frame_rate_hz: float = 75.0


@dataclass(frozen=True)
class MetricSet:
    """The available metrics; ``missing`` maps each other family to the reason."""

    metrics: tuple[Metric, ...]
    missing: dict[str, str]
    options: MetricOptions = MetricOptions()

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(metric.name for metric in self.metrics)

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(metric.family for metric in self.metrics))


def factories(options: MetricOptions) -> dict[str, Callable[[], Sequence[Metric]]]:
    """Every family by name, with the function that makes its metrics."""
    from streaming_encodec.evaluation.distill_mos import DistillMos
    from streaming_encodec.evaluation.dnsmos import dnsmos_metrics
    from streaming_encodec.evaluation.recognition import WordErrorRate
    from streaming_encodec.evaluation.speaker import SpeakerSimilarity
    from streaming_encodec.evaluation.spectra import LSD_BANDS, LogSpectralDistance, modulation_metrics

    return {
        "pesq_wb": lambda: [PesqWideband()],
        "stoi": lambda: [Stoi()],
        "visqol_speech": lambda: [Visqol()],
        "log_mel_db": lambda: [LogMel()],
        "wer": lambda: [WordErrorRate(options.whisper)],
        "speaker": lambda: [SpeakerSimilarity()],
        "dnsmos": dnsmos_metrics,
        "distill_mos": lambda: [DistillMos()],
        "lsd": lambda: [LogSpectralDistance(band) for band in LSD_BANDS],
        "modulation": lambda: modulation_metrics(options.frame_rate_hz),
    }


def make_metrics(names: Sequence[str] | None = None, options: MetricOptions = MetricOptions()) -> MetricSet:
    """Make the named families, or all; the first word of a name is enough (``visqol``).

    Without names, families whose package is missing are left out with the reason; a named one must be there.

    Raises:
        ConfigError: an unknown name.
        MissingExtraError: a named family's package is not installed.
    """
    known = factories(options)
    made: list[Metric] = []
    missing = {}
    for family in known if names is None else dict.fromkeys(_family(name, known) for name in names):
        try:
            made += known[family]()
        except MissingExtraError as error:
            if names is not None:
                raise
            missing[family] = str(error)
    return MetricSet(tuple(made), missing, options)


def _family(name: str, known: Iterable[str]) -> str:
    for family in known:
        if name in (family, family.split("_")[0]):
            return family
    raise ConfigError(f"there is no metric {name!r}; take some of {', '.join(known)}")
