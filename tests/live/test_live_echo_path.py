"""The echo measured by what is played: in simulated rooms, through a delay that is known, and where there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cable_kit import Cable
from device_kit import FakeBackend

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.bench import sound_card
from streaming_encodec.bench.room import ROOMS, Room, SimulatedRoom
from streaming_encodec.bench.room_card import RoomBackend, card_in_room
from streaming_encodec.cli.commands.doctor import loop_findings
from streaming_encodec.errors import DeviceError
from streaming_encodec.live.echo_path import Echo, EchoPath, measure_echo_path

RATE = 24_000
CONVERTERS_MS = 30.0


class Stuttering(RoomBackend):
    """Its microphone puts a block of silence between others, after 60, 120, 180, 240, 60 … of them."""

    blocks, interval = 0, 60

    def _call_back(self, kind: str) -> None:  # type: ignore[override]
        super()._call_back(kind)  # type: ignore[arg-type]
        self.blocks += kind == "input"
        if self.blocks > self.interval:
            self.blocks, self.interval = 0, self.interval % 240 + 60
            self._streams["input"].port.take_block(np.zeros((self._room.block, 1), np.float32), 0.015, False)


class Delay:
    def __init__(self, samples: int, gain: float) -> None:
        self._held, self._gain = np.zeros(samples, np.float32), np.float32(gain)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        sound = np.concatenate([self._held, self._gain * block])
        self._held = sound[len(block) :]
        return sound[: len(block)]


def measure(
    room: Room,
    rates: tuple[int, int] = (RATE, RATE),
    ppm: tuple[float, float] = (0.0, 0.0),
    *,
    latency_s: float = 0.015,
    noise_db: float = -75.0,
    backend: type[RoomBackend] = RoomBackend,
) -> EchoPath:
    sim = SimulatedRoom(
        room,
        speaker_rate=rates[0],
        microphone_rate=rates[1],
        speaker_ppm=ppm[0],
        microphone_ppm=ppm[1],
        noise_db=noise_db,
        seed=7,
    )
    return measure_echo_path(*card_in_room(sim, RATE, SoundCard, latency_s=latency_s, backend=backend))


def verdicts(path: EchoPath) -> dict[str, str]:
    return {finding.subject: finding.verdict for finding in loop_findings(path)}


@pytest.mark.parametrize(
    ("room", "rates", "ppm", "noise_db"),
    [
        (ROOMS[0], (24_000, 24_000), (0.0, 0.0), -75.0),
        (ROOMS[0], (48_000, 48_000), (100.0, 0.0), -45.0),
        (ROOMS[1], (48_000, 16_000), (0.0, 100.0), -75.0),
        (ROOMS[2], (44_100, 24_000), (50.0, -50.0), -45.0),
        (ROOMS[2], (24_000, 24_000), (0.0, 0.0), -75.0),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_delay_level_and_drift_are_those_of_the_room(
    room: Room, rates: tuple[int, int], ppm: tuple[float, float], noise_db: float
) -> None:
    path = measure(room, rates, ppm, noise_db=noise_db)
    heard = path.heard
    assert heard is not None
    assert not path.clipped
    air_ms = 1000 * np.linalg.norm(np.subtract(room.loudspeaker_m, room.microphone_m)) / 343
    assert heard.delay_ms == pytest.approx(CONVERTERS_MS + air_ms, abs=1.5)
    assert heard.level_db == pytest.approx(room.echo_db, abs=0.7)
    assert heard.drift_ppm == pytest.approx(ppm[0] - ppm[1], abs=2)
    assert 5 < heard.begins_ms < 30
    assert verdicts(path) == dict.fromkeys(("echo delay", "echo level", "clock drift", "cancellation"), "ok")


@pytest.mark.parametrize(
    ("latency_s", "begins_ms", "verdict"),
    # The devices say 160 ms and 4 ms; it is 30. In the second case the reference can't go further ahead.
    [(0.080, -110.0, "bad"), (0.002, 15.0, "ok")],
)
def test_time_stamps_that_are_wrong_are_found(latency_s: float, begins_ms: float, verdict: str) -> None:
    path = measure(ROOMS[0], latency_s=latency_s)
    assert path.heard is not None
    assert path.heard.begins_ms == pytest.approx(begins_ms, abs=6)
    assert path.heard.delay_ms == pytest.approx(CONVERTERS_MS + 0.6, abs=1.5)
    assert verdicts(path)["cancellation"] == verdict


def test_an_echo_that_is_not_there_is_not_found() -> None:
    path = measure(dataclasses.replace(ROOMS[0], echo_db=-120.0))
    assert path.heard is None
    assert not path.silent
    (finding,) = loop_findings(path)
    assert "does not hear the speaker" in finding.details


def test_a_microphone_that_is_muted_is_told_from_a_headset() -> None:
    path = measure(dataclasses.replace(ROOMS[0], echo_db=-2000.0), noise_db=-2000.0)
    assert path.silent
    assert "digital silence" in loop_findings(path)[0].details


def test_an_echo_that_is_too_loud_is_told() -> None:
    path = measure(dataclasses.replace(ROOMS[0], echo_db=9.0))
    assert verdicts(path)["echo level"] == "poor"


def test_a_device_whose_delay_jumps_is_told() -> None:
    path = measure(ROOMS[0], backend=Stuttering)
    assert path.heard is not None
    assert path.heard.drift_ppm is None
    assert verdicts(path)["clock drift"] == "poor"


def test_a_device_that_stands_still_is_an_error() -> None:
    card = SoundCard(RATE, backend=FakeBackend())
    with pytest.raises(DeviceError, match="lost"):
        measure_echo_path(card)


@pytest.mark.device
@pytest.mark.usefixtures("card")
def test_a_known_delay_through_a_real_audio_stack() -> None:
    """Two cables on JACK's dummy card, one 40 ms longer than the other, 12 and 6 dB weaker than what goes in."""
    paths: list[Echo | None] = []
    for delay_samples, gain in ((240, 0.25), (1200, 0.5)):
        cable = Cable("cable", Delay(delay_samples, gain))
        card = SoundCard(RATE)
        try:
            cable.connect(cable.ports())
            for _ in range(4):  # on a busy machine JACK itself loses sound, and the measurement says so
                path = measure_echo_path(card).heard
                if path is not None and path.drift_ppm is not None:
                    break
            paths.append(path)
        finally:
            card.close()
            cable.close()
    short, long = paths
    assert short is not None
    assert long is not None
    assert short.level_db == pytest.approx(-12.0, abs=0.5)
    assert long.level_db == pytest.approx(-6.0, abs=0.5)
    assert 10 < short.delay_ms < 60  # JACK adds a block here and there, of 10.7 ms
    assert long.delay_ms - short.delay_ms == pytest.approx(40.0, abs=11.5)
    assert short.drift_ppm == long.drift_ppm == 0.0


@pytest.mark.device
def test_doctor_measures_the_loop(card: None) -> None:
    """Nothing connects the dummy card's speaker with its microphone."""
    facts = sound_card.end(sound_card.start("doctor", "--loop", "--json"), 60)
    found = {finding["subject"]: finding for finding in facts["findings"]}
    assert "digital silence" in found["loop"]["details"], facts
    assert "echo delay" not in found
