"""A simulated room: a loudspeaker, a microphone, somebody who speaks, and two sound cards whose clocks differ.

Impulse responses come from the image method (Allen and Berkley 1979) up to 60 ms, and from decaying noise after that,
as reverberation is too dense there to tell from noise. All is made from a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from streaming_encodec.types import Pcm

Place = tuple[float, float, float]

_SOUND_M_PER_S = 343.0
_EARLY_S = 0.060
"""Reflections up to here are images; Polack's model of late reverberation takes over."""
_JITTER_M = 0.02
"""Images lie so far from their ideal place: a perfect box rings in a way that no room does."""
_TAPS = 32
_PHASES = 1024
_CONVERTERS_S = 0.030
"""From the callback that hands sound to the loudspeaker to the callback that brings it back, air left out."""


@dataclass(frozen=True, slots=True)
class Room:
    """A box with things in it; lengths in metres from one corner.

    rt60_s: reverberation time, until sound has fallen by 60 dB. distortion: share of the third power that a small
    loudspeaker adds at full scale. echo_db: loudness of all of the echo at the microphone against what is played.
    """

    name: str
    size_m: Place
    rt60_s: float
    loudspeaker_m: Place
    microphone_m: Place
    mouth_m: Place
    distortion: float = 0.0
    echo_db: float = -12.0


ROOMS = (
    Room("laptop", (3.6, 3.0, 2.5), 0.25, (1.50, 1.2, 0.75), (1.65, 1.35, 0.80), (1.65, 0.9, 1.15), 0.05, -8.0),
    Room("desk", (5.0, 4.0, 2.6), 0.35, (2.0, 2.6, 0.90), (2.5, 2.2, 0.75), (2.5, 1.8, 1.15), 0.02, -12.0),
    Room("living room", (7.0, 5.0, 2.8), 0.45, (2.0, 3.3, 0.80), (3.0, 2.5, 0.50), (3.4, 2.0, 1.10), 0.01, -15.0),
)
"""A laptop in a small room, loudspeakers beside a screen, and a telephone on a table with a loudspeaker far away."""


def impulse_response(room: Room, source_m: Place, sample_rate: int, seed: int) -> Pcm:
    """From a place to the microphone, [n]; the direct sound has amplitude 1 and comes after its way through the air."""
    random = np.random.default_rng(seed)
    size, source, microphone = np.array(room.size_m), np.array(source_m), np.array(room.microphone_m)
    wall = _reflection(room)
    reach = np.ceil(_EARLY_S * _SOUND_M_PER_S / (2 * size)).astype(int) + 1
    cells = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 1, 3)
    mirrored = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(1, -1, 3)
    images = (2 * cells * size + np.where(mirrored, -source, source)).reshape(-1, 3)
    bounces = (np.abs(cells - mirrored) + np.abs(cells)).sum(-1).reshape(-1)
    images = images + np.where(bounces[:, None] > 0, random.uniform(-_JITTER_M, _JITTER_M, images.shape), 0.0)
    distance = np.linalg.norm(images - microphone, axis=1)
    near = distance < _EARLY_S * _SOUND_M_PER_S
    direct = float(np.linalg.norm(source - microphone))
    at = distance[near] / _SOUND_M_PER_S * sample_rate
    gains = wall ** bounces[near] * direct / distance[near]
    length = math.ceil((_EARLY_S + room.rt60_s) * sample_rate)
    response = np.zeros(length + _TAPS)
    whole = np.floor(at).astype(int)
    for tap in range(_TAPS):
        np.add.at(response, whole + tap, gains * _sinc(tap - _TAPS // 2 + 1 - (at - whole)))
    response = response[_TAPS // 2 - 1 :][:length]
    _add_tail(response, room, sample_rate, random)
    return response.astype(np.float32)


def _reflection(room: Room) -> float:
    """The walls' reflection coefficient, by Eyring's formula."""
    x, y, z = room.size_m
    surface = 2 * (x * y + y * z + x * z)
    return math.sqrt(math.exp(-0.161 * x * y * z / (surface * room.rt60_s)))


def _add_tail(response: NDArray[np.float64], room: Room, sample_rate: int, random: np.random.Generator) -> None:
    """Noise that goes on where the images end, as loud as they are there."""
    begin, before = round(_EARLY_S * sample_rate), round(0.75 * _EARLY_S * sample_rate)
    falls = 6.91 / room.rt60_s  # amplitude, per second
    time = np.arange(len(response) - before) / sample_rate
    loud = float(np.sqrt(np.mean(response[before:begin] ** 2)))
    tail = loud * np.exp(-falls * (time - (begin - before) / 2 / sample_rate)) * random.standard_normal(len(time))
    fade = np.clip(time * sample_rate / (begin - before), 0, 1)
    response[before:] = response[before:] * np.sqrt(1 - fade) + tail * np.sqrt(fade)


def _sinc(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """A windowed sinc of `_TAPS` taps."""
    window = np.where(np.abs(offset) < _TAPS / 2, np.cos(np.pi * offset / _TAPS) ** 2, 0.0)
    return np.asarray(np.sinc(offset) * window)


class Convolver:
    """Blocks of a fixed size through a long filter, without delay: partitioned overlap-save."""

    def __init__(self, response: Pcm, block: int) -> None:
        parts = math.ceil(len(response) / block)
        padded = np.zeros(parts * block, np.float32)
        padded[: len(response)] = response
        self._filter = np.fft.rfft(padded.reshape(parts, block), 2 * block)
        self._spectra = np.zeros_like(self._filter)
        self._before = np.zeros(block, np.float32)
        self._block = block

    def push(self, pcm: Pcm) -> Pcm:
        """[block] in, [block] out."""
        self._spectra = np.roll(self._spectra, 1, axis=0)
        self._spectra[0] = np.fft.rfft(np.concatenate([self._before, pcm]))
        self._before = pcm
        out: Pcm = np.fft.irfft((self._spectra * self._filter).sum(0))[self._block :].astype(np.float32)
        return out


class SimulatedRoom:
    """What a microphone hears while a loudspeaker plays: two cards, each with its own rate and error of its clock.

    Args:
        room: which.
        speaker_rate, microphone_rate: nominal, in Hz.
        speaker_ppm, microphone_ppm: errors of the clocks, in parts per million.
        block: samples that the loudspeaker's card takes at once.
        near: what is said in the room, [n] at the microphone's nominal rate, as it arrives at the microphone.
        noise_db: the microphone's noise, below full scale.
        converters_s: see `_CONVERTERS_S`; longer than a block of each card.
        seed: of the room and of the noise.
    """

    def __init__(
        self,
        room: Room,
        *,
        speaker_rate: int = 24_000,
        microphone_rate: int = 24_000,
        speaker_ppm: float = 0.0,
        microphone_ppm: float = 0.0,
        block: int = 256,
        near: Pcm | None = None,
        noise_db: float = -75.0,
        converters_s: float = _CONVERTERS_S,
        seed: int = 0,
    ) -> None:
        self.room, self.block = room, block
        self.rates, self.ppm = (speaker_rate, microphone_rate), (speaker_ppm, microphone_ppm)
        """Of loudspeaker and microphone."""
        response = impulse_response(room, room.loudspeaker_m, speaker_rate, seed)
        response *= np.float32(10 ** (room.echo_db / 20)) / np.linalg.norm(response)
        self._echo = Convolver(response, block)
        self._step = speaker_rate * (1 + speaker_ppm * 1e-6) / (microphone_rate * (1 + microphone_ppm * 1e-6))
        self._lag = converters_s * speaker_rate
        self._air: Pcm = np.zeros(_TAPS, np.float32)  # the echo at the loudspeaker's rate, from `_from` on
        self._from = -_TAPS
        self._taken = 0
        self._near = np.zeros(0, np.float32) if near is None else near
        self._noise, self._random = 10 ** (noise_db / 20), np.random.default_rng(seed)
        places = np.arange(_PHASES + 1)[:, None] / _PHASES
        self._bank = _sinc(np.arange(_TAPS)[None] - _TAPS // 2 + 1 - places).astype(np.float32)

    def play(self, pcm: Pcm) -> None:
        """The loudspeaker's card takes a block, [block]."""
        bent = pcm - np.float32(self.room.distortion) * pcm**3
        self._air = np.concatenate([self._air, self._echo.push(bent.astype(np.float32))])

    def record(self, count: int) -> Pcm:
        """The microphone's next samples, [count]: echo, speech and noise. What was not played yet is silent."""
        at = (self._taken + np.arange(count)) * self._step - self._lag - self._from
        whole = np.floor(at).astype(int)
        last = int(whole[-1]) + _TAPS
        if last > len(self._air):
            self._air = np.concatenate([self._air, np.zeros(last - len(self._air), np.float32)])
        first = whole - _TAPS // 2 + 1
        echo = np.zeros(count, np.float32)
        heard = first >= 0
        windows = sliding_window_view(self._air, _TAPS)[first[heard]]
        phase = np.round((at - whole)[heard] * _PHASES).astype(int)
        echo[heard] = np.einsum("nt,nt->n", windows, self._bank[phase])
        near = self._near[self._taken : self._taken + count]
        echo[: len(near)] += near
        self._taken += count
        forget = max(0, int(first[-1]) - 2 * _TAPS)
        self._air, self._from = self._air[forget:], self._from + forget
        noise = self._noise * self._random.standard_normal(count)
        return echo + noise.astype(np.float32)
