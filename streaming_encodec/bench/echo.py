"""Echo cancellation in simulated rooms: what `bench call echo` measures, and its tests check."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.audio.files.writer import AudioWriter
from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.bench.room import ROOMS, Room, SimulatedRoom, impulse_response
from streaming_encodec.bench.room_card import card_in_room, converse
from streaming_encodec.bench.tables import Table
from streaming_encodec.errors import StreamError
from streaming_encodec.live.echo import KalmanEchoCanceller
from streaming_encodec.types import Pcm

RATE, FRAME = 24_000, 320
_ALONE_S, _BOTH_S = 14.0, 12.0
_NEAR_FROM_S = 6.0
"""The near voice begins when the room is known, as a call begins with somebody who greets."""
_AHEAD_S = 2.3
_FAR, _NEAR = 0.5, 0.4
"""How loud the clip is: below what a loudspeaker distorts much, and the near voice above the echo."""
_DRIFTS_PPM = (-100.0, 100.0)
_CARDS = ((24_000, 24_000), (48_000, 48_000), (48_000, 16_000))
"""Rates of loudspeaker and microphone, a room each."""
_MOUTH_SEED, _ROOM_SEED = 3, 7


class _TimedCard(SoundCard):
    """Knows what the reference cost beyond the microphone, which is read without it too."""

    reference_s = 0.0

    def read_with_reference(self) -> tuple[Pcm, Pcm]:
        begin_s = time.thread_time()
        both = super().read_with_reference()
        self.reference_s += time.thread_time() - begin_s
        return both

    def _read(self) -> Pcm:
        begin_s = time.thread_time()
        near = super()._read()
        self.reference_s -= time.thread_time() - begin_s
        return near


class EchoCall:
    """Plays ``far`` [n] in a room, and takes its echo out of what the microphone hears.

    Args:
        room: which.
        far: mono at `RATE`.
        rates: of loudspeaker and microphone.
        ppm: errors of their clocks.
        near: what is said in the room as it arrives at the microphone, mono at `RATE`; None is nothing.
    """

    def __init__(
        self,
        room: Room,
        far: Pcm,
        rates: tuple[int, int] = (RATE, RATE),
        ppm: tuple[float, float] = (0.0, 0.0),
        near: Pcm | None = None,
    ) -> None:
        simulated = SimulatedRoom(
            room,
            speaker_rate=rates[0],
            microphone_rate=rates[1],
            speaker_ppm=ppm[0],
            microphone_ppm=ppm[1],
            near=None if near is None else LowDelayResampler(RATE, rates[1]).push(near[None])[0],
            seed=_ROOM_SEED,
        )
        self.card, pass_time = card_in_room(simulated, RATE, _TimedCard)
        self.echo = KalmanEchoCanceller(FRAME, RATE)
        self._held = np.zeros((2, 0), np.float32)
        self.canceller_s = 0.0
        self.microphone, self.sent = converse(self.card, pass_time, far, self._hear, 2 * FRAME)
        """Both [k], sample beside sample."""

    def _hear(self, near: Pcm, far: Pcm) -> Pcm:
        sound = np.concatenate([self._held, np.concatenate([near, far])], axis=1)
        whole = sound.shape[1] // FRAME * FRAME
        self._held = sound[:, whole:]
        begin_s = time.thread_time()
        out = self.echo.process(sound[0, :whole].copy(), sound[1, :whole].copy())
        self.canceller_s += time.thread_time() - begin_s
        return out[None]

    def reduction_db(self, from_s: float, to_s: float) -> float:
        """Echo return loss enhancement (ERLE): of the microphone's power against that of what is sent."""
        part = slice(round(from_s * RATE), round(to_s * RATE))
        return 10 * math.log10(float(np.sum(self.microphone[part] ** 2)) / float(np.sum(self.sent[part] ** 2)))


def speech(file: Path | None, seconds: float, from_s: float = 0.0) -> Pcm:
    """A file's sound, or the bundled clip's, over and over from this second on, mono at `RATE`, [n].

    Raises:
        StreamError: the file has less than a second.
    """
    with AudioReader(file or bundled_clip(), RATE, channels=1) as reader:
        sound = np.concatenate([block[0] for block in reader] or [np.zeros(0, np.float32)])
    if len(sound) < RATE:
        raise StreamError(f"{file} has less than a second of sound: take a recording of some seconds of speech")
    return np.resize(np.roll(sound, -round(from_s * RATE)), round(seconds * RATE)).astype(np.float32)


def at_the_microphone(room: Room, said: Pcm) -> Pcm:
    """What is said at the mouth's place, with the room's reverberation, [n]; as loud as it was said."""
    response = impulse_response(room, room.mouth_m, RATE, _MOUTH_SEED)
    size = 1 << (len(said) + len(response)).bit_length()
    spectrum = np.fft.rfft(said, size) * np.fft.rfft(response / np.linalg.norm(response), size)
    near: Pcm = np.fft.irfft(spectrum, size)[: len(said)].astype(np.float32)
    return near


def kept(call: EchoCall, near: Pcm, from_s: float, to_s: float) -> tuple[Pcm, Pcm]:
    """The near voice as it was and as it is sent, both [n], in step."""
    begin, end = round(from_s * RATE), round(to_s * RATE)
    sent = call.sent[begin + call.echo.delay_samples : end]
    return near[begin:end][: len(sent)], sent


def measure(
    far_file: Path | None = None,
    near_file: Path | None = None,
    save: Path | None = None,
    *,
    rooms: Sequence[Room] = ROOMS,
    drifts_ppm: Sequence[float] = _DRIFTS_PPM,
) -> dict[str, Any]:
    """Each room with each drift: the far end alone, then both at once; and delay and cost.

    Args:
        far_file, near_file: speech; None is the bundled clip, two parts of it.
        save: a folder for WAV files of what the microphone heard and what was sent.
        rooms, drifts_ppm: which; three rooms at most.

    Raises:
        MissingExtraError: pystoi is missing.
    """
    from streaming_encodec.evaluation.extras import need

    stoi = need("pystoi", "STOI").stoi
    far = speech(far_file, _ALONE_S) * np.float32(_FAR)
    said = speech(near_file, _BOTH_S, 0.0 if near_file else _AHEAD_S) * np.float32(_NEAR)
    runs, spent_s, reference_s, heard_s = [], 0.0, 0.0, 0.0
    for room, rates in zip(rooms, _CARDS, strict=False):
        near = at_the_microphone(room, said)
        near[: round(_NEAR_FROM_S * RATE)] = 0
        for drift in drifts_ppm:
            alone = EchoCall(room, far, rates, (drift, 0.0))
            both = EchoCall(room, far[: len(said)], rates, (drift, 0.0), near)
            was, sent = kept(both, near, _NEAR_FROM_S + 1, _BOTH_S - 1)
            # Two resamplers lie between the voice and what is compared, of which STOI and level know nothing.
            lag = best_lag(was, sent)
            was, sent = was[: len(was) - lag], sent[lag:]
            runs.append(
                {
                    "room": room.name,
                    "rates": list(rates),
                    "drift_ppm": drift,
                    "erle_db_3_s": alone.reduction_db(3.0, 6.0),
                    "erle_db_10_s": alone.reduction_db(10.0, 13.5),
                    "near_level_db": 20 * math.log10(float(np.dot(was, sent)) / float(np.dot(was, was))),
                    "near_stoi": float(stoi(was, sent, RATE)),
                }
            )
            for call in (alone, both):
                spent_s, reference_s = spent_s + call.canceller_s, reference_s + call.card.reference_s
                heard_s += len(call.microphone) / RATE
            if save is not None:
                _save(save, f"{room.name.replace(' ', '-')}_{drift:+.0f}ppm", alone, both)
    return {
        "runs": runs,
        "added_delay_ms": added_delay_ms(said),
        "core_share": {"canceller": spent_s / heard_s, "reference": reference_s / heard_s},
    }


def added_delay_ms(said: Pcm) -> float:
    """By how much later a voice is sent than the microphone gave it, in a room without an echo."""
    room = dataclasses.replace(ROOMS[0], echo_db=-120.0)
    call = EchoCall(room, np.zeros_like(said), near=said)
    begin = round(_NEAR_FROM_S * RATE)
    end = min(len(call.microphone), len(call.sent))
    return 1000 * best_lag(call.microphone[begin:end], call.sent[begin:end]) / RATE


def best_lag(was: Pcm, sent: Pcm) -> int:
    """By how many samples it is later, 0 or more."""
    size = 1 << (2 * len(was)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(sent, size) * np.conj(np.fft.rfft(was, size)))
    return int(np.argmax(likeness[:RATE]))


def _save(folder: Path, name: str, alone: EchoCall, both: EchoCall) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for what, call in (("alone", alone), ("both", both)):
        for part, sound in (("microphone", call.microphone), ("sent", call.sent)):
            with AudioWriter(folder / f"{name}_{what}_{part}.wav", RATE, 1) as writer:
                writer.write(sound[None])


def echo_tables(figures: dict[str, Any]) -> list[Table]:
    """A row for each room and drift, and what all have in common."""
    rows = [[*_row(run)] for run in figures["runs"]]
    share = figures["core_share"]
    columns = ["room", "kHz", "ppm", "ERLE from 3 s", "from 10 s", "near voice dB", "STOI"]
    common = [
        ["added delay, ms", f"{figures['added_delay_ms']:.1f}"],
        ["of a core: canceller", f"{100 * share['canceller']:.1f} %"],
        ["of a core: reference", f"{100 * share['reference']:.1f} %"],
    ]
    return [Table("echo cancellation in simulated rooms", columns, rows), Table("cost", ["", ""], common)]


def _row(run: dict[str, Any]) -> Iterator[str]:
    yield run["room"]
    yield "/".join(f"{rate / 1000:g}" for rate in run["rates"])
    yield f"{run['drift_ppm']:+.0f}"
    yield f"{run['erle_db_3_s']:.1f}"
    yield f"{run['erle_db_10_s']:.1f}"
    yield f"{run['near_level_db']:+.1f}"
    yield f"{run['near_stoi']:.3f}"
