"""The way from loudspeaker to microphone, measured: how late the echo is, how loud, and whether it can be cancelled.

Exponential sweeps are played and recorded; dividing the spectra gives the impulse response, and what the loudspeaker
distorts falls before it (A. Farina, "Simultaneous measurement of impulse response and distortion with a swept-sine
technique", AES 108, 2000). The response is taken against the reference that echo cancellation uses, so that it shows
what the canceller's filter has to learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.errors import DeviceError
from streaming_encodec.live.linear_echo import TAIL_S
from streaming_encodec.types import Pcm

Response = NDArray[np.float64]

_LOWEST_HZ, _HIGHEST_HZ = 150.0, 7000.0
"""What small loudspeakers play, and microphones at 16 kHz hear."""
_AMPLITUDE = 0.1
_SWEEP_S, _FADE_S = 1.0, 0.02
_SWEEPS, _PERIOD_S = 3, 1.8
_LEAD_IN_S = 1.0
"""Silence first: the reference is found in half a second."""
_AHEAD_S = 0.2
"""So much is written ahead: this is no call, and a busy machine shall not be heard."""
_PIECE_S, _STEP_S = 0.02, 0.004
_TRIES = 3
_BEFORE_S, _AFTER_S = 0.25, 0.7
"""The part of the response that is looked at."""
_NOISE_FROM_S, _NOISE_TO_S = -0.15, -0.02
"""Before the echo, and after what comes of distortion by the second power, there is only noise."""
_HEARD = 10.0
"""The echo's power against the noise's."""
_ONSET = 0.5
_PEAK_S, _ECHO_S = 0.002, 0.4
"""The echo: from so long before its loudest moment to so long after it."""
_CLIPPED = 0.99
_STEADY_S = 0.0003
"""Between three sweeps equally far apart the echo's delay changes evenly, if no samples are lost."""
_LEAST_PPM = 3.0
TAIL_MS = 1000 * TAIL_S
"""Length of the canceller's filter."""


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo that was heard.

    delay_ms: from the driver that takes a sample for the loudspeaker to the driver that brings its echo.
    level_db: of the echo, against what was played.
    drift_ppm: by how much the loudspeaker's clock runs faster than the microphone's; 0 where no difference was seen,
    None where the delay jumps.
    begins_ms: where the echo begins in the canceller's filter.
    later_db: what comes after the filter's end, against the whole echo.
    """

    delay_ms: float
    level_db: float
    drift_ppm: float | None
    begins_ms: float
    later_db: float


@dataclass(frozen=True, slots=True)
class EchoPath:
    """What was measured.

    heard: None where there was no echo above the noise.
    silent: the microphone gave nothing but zeros. clipped: it was driven to its limit.
    """

    heard: Echo | None
    silent: bool
    clipped: bool


def measure_echo_path(card: SoundCard, wait: Callable[[float], None] | None = None) -> EchoPath:
    """Play three sweeps, 6.4 s in all, a tenth of full scale, and listen; again where sound was lost, twice at most.

    Args:
        card: open in both directions, and read by nobody else.
        wait: called with seconds; None is the card's own.

    Raises:
        DeviceError: a device is missing or is lost meanwhile, or this machine is too busy.
    """
    rate = card.sample_rate
    sweep = _sweep(rate)
    begins = [round((_LEAD_IN_S + i * _PERIOD_S) * rate) for i in range(_SWEEPS)]
    played = np.zeros(round((_LEAD_IN_S + _SWEEPS * _PERIOD_S) * rate), np.float32)
    for begin in begins:
        played[begin : begin + len(sweep)] = sweep
    path = None
    for _ in range(_TRIES):
        card.forget_reference()
        recorded = _record(card, played, wait or card.wait)
        path = path if recorded is None else _judge(card, sweep, begins, *recorded)
        if path is not None and (path.heard is None or path.heard.drift_ppm is not None):
            return path
    if path is None:
        raise DeviceError(
            "this program was too late for the sound card in each of three measurements: close other programs, and "
            "measure again"
        )
    return path


def _sweep(rate: int) -> Pcm:
    """[n], from the lowest to the highest frequency, each octave as long as the others."""
    time = np.arange(round(_SWEEP_S * rate)) / rate
    octaves = math.log(_HIGHEST_HZ / _LOWEST_HZ)
    phase = 2 * np.pi * _LOWEST_HZ * _SWEEP_S / octaves * np.expm1(time / _SWEEP_S * octaves)
    edge = np.minimum(1, np.minimum(time, time[::-1]) / _FADE_S)
    sweep: Pcm = (_AMPLITUDE * np.sin(phase) * np.sin(np.pi / 2 * edge) ** 2).astype(np.float32)
    return sweep


def _record(card: SoundCard, played: Pcm, wait: Callable[[float], None]) -> tuple[Pcm, Pcm] | None:
    """Microphone and reference while ``played`` [n] plays, both [m]; None where some of it was lost."""
    rate, piece = card.sample_rate, round(_PIECE_S * card.sample_rate)
    near, far, came, at = [], [], 0, 0
    lost_before: int | None = None
    while came < len(played) + round(_AFTER_S * rate):
        if card.lost or card.queued_s is None:
            missing = " and ".join(card.lost) or "output"
            raise DeviceError(f"the audio {missing} device was lost: plug it in again, and measure again")
        while at < len(played) and (card.ahead_s or 0.0) < _AHEAD_S:
            card.write(np.resize(played[at : at + piece], (1, len(played[at : at + piece]))))
            at += piece
        if lost_before is None and at >= round(0.5 * _LEAD_IN_S * rate):
            lost_before = _lost(card)
        if at < len(played) and lost_before is not None and _lost(card) > lost_before:
            return None
        microphone, reference = card.read_with_reference()
        near.append(microphone[0])
        far.append(reference[0])
        came += microphone.shape[1]
        card.maintain()
        wait(_STEP_S)
    return np.concatenate(near), np.concatenate(far)


def _lost(card: SoundCard) -> int:
    return card.counts.underruns + card.counts.overruns


def _judge(card: SoundCard, sweep: Pcm, begins: list[int], near: Pcm, far: Pcm) -> EchoPath:
    rate = card.sample_rate
    silent, clipped = not near.any(), bool(np.abs(near).max(initial=0.0) >= _CLIPPED)
    # The last sweep: by then the reference follows the drift.
    at = _place(far, sweep) - begins[-1]
    starts = [begin + at for begin in begins]
    response = _response(_part(near, starts[-1], rate), _part(far, starts[-1], rate), rate)
    before = round(_BEFORE_S * rate)
    peak = int(np.argmax(np.abs(response)))
    power = response**2
    quiet = power[max(0, peak + round(_NOISE_FROM_S * rate)) : max(0, peak + round(_NOISE_TO_S * rate))]
    noise = float(quiet.mean()) if len(quiet) else float(np.median(power))
    energy = float((power[max(0, peak - round(_PEAK_S * rate)) : peak + round(_ECHO_S * rate)] - noise).sum())
    if silent or float(power[peak - 2 : peak + 3].mean()) < _HEARD * noise or energy <= 0:
        return EchoPath(None, silent, clipped)
    onset = int(np.argmax(np.abs(response) >= _ONSET * np.abs(response[peak])))
    begins_s = (onset - before) / rate
    later = float((power[before + round(TAIL_S * rate) :] - noise).sum())
    echo = Echo(
        delay_ms=1000 * begins_s + card.reference_delay_ms,
        level_db=10 * math.log10(energy),
        drift_ppm=_drift_ppm(near, sweep, starts, rate),
        begins_ms=1000 * begins_s,
        later_db=10 * math.log10(max(later / energy, 1e-9)),
    )
    return EchoPath(echo, silent, clipped)


def _place(sound: Pcm, sweep: Pcm) -> int:
    """Where the last sweep begins in the sound."""
    size = 1 << (len(sound) + len(sweep)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(sweep, size)))[: len(sound)]
    found = np.flatnonzero(likeness > 0.5 * likeness.max())
    last = int(found[-1])
    return last - round(0.01 * len(sweep)) + int(np.argmax(likeness[last - round(0.01 * len(sweep)) : last + 1]))


def _part(sound: Pcm, start: int, rate: int) -> Pcm:
    """A sweep that begins at ``start``, and what comes before and after it, the same length always."""
    begin, end = start - round(_BEFORE_S * rate), start + round((_SWEEP_S + _AFTER_S) * rate)
    part = sound[max(0, begin) : end]
    return np.pad(part, (max(0, -begin), end - max(0, begin) - len(part)))


def _response(near: Pcm, far: Pcm, rate: int) -> Response:
    """The impulse response from far to near, band-limited, from `_BEFORE_S` before the reference to `_AFTER_S` after.

    Scaled so that its energy is the mean power gain within the band.
    """
    size = 1 << (2 * len(near)).bit_length()
    x, y = np.fft.rfft(far, size), np.fft.rfft(near, size)
    hz = np.fft.rfftfreq(size, 1 / rate)
    low, high = 1.5 * _LOWEST_HZ, 0.85 * _HIGHEST_HZ
    rise = np.clip((hz - low) / low, 0, 1) * np.clip((high - hz) / (0.3 * high), 0, 1)
    window = np.sin(np.pi / 2 * rise) ** 2
    inside = window > 0
    gain = np.zeros_like(x)
    gain[inside] = window[inside] * y[inside] * np.conj(x[inside]) / (np.abs(x[inside]) ** 2 + 1e-12)
    response = np.fft.irfft(gain) * math.sqrt(size / 2 / float((window**2).sum()))
    before, after = round(_BEFORE_S * rate), round(_AFTER_S * rate)
    return np.concatenate([response[-before:], response[:after]])


def _drift_ppm(near: Pcm, sweep: Pcm, starts: list[int], rate: int) -> float | None:
    """From how far apart the sweeps arrive."""
    far = _part(np.pad(sweep, (round(_BEFORE_S * rate), 0)), round(_BEFORE_S * rate), rate)
    responses = [_response(_part(near, start, rate), far, rate) for start in starts]
    first, second = (_shift(responses[i], responses[i + 1]) for i in range(_SWEEPS - 1))
    if abs(first - second) > _STEADY_S * rate:
        return None
    drift_ppm = -1e6 * _shift(responses[0], responses[-1]) / (starts[-1] - starts[0])
    return drift_ppm if abs(drift_ppm) >= _LEAST_PPM else 0.0


def _shift(one: Response, other: Response) -> float:
    """By how many samples the other is later."""
    size = 2 * len(one)
    likeness = np.fft.irfft(np.fft.rfft(other, size) * np.conj(np.fft.rfft(one, size)))
    peak = int(np.argmax(likeness))
    left, middle, right = (float(likeness[(peak + i) % size]) for i in (-1, 0, 1))
    at = peak + 0.5 * (left - right) / (left - 2 * middle + right)
    return at - size if at > size / 2 else at
