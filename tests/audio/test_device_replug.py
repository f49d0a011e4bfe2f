"""Devices that come and go while a call goes on."""

import numpy as np
import pytest
from device_kit import Clock, FakeBackend, FakeStream

from streaming_encodec.audio.devices.card import Margin, SoundCard
from streaming_encodec.audio.devices.devices import Device
from streaming_encodec.errors import DeviceError


def run(card: SoundCard, clock: Clock, streams: list[FakeStream], seconds: float) -> None:
    """Callbacks and upkeep every 10 ms."""
    for _ in range(round(seconds * 100)):
        clock.now += 0.01
        for stream in streams:
            if stream.active:
                stream.turn(np.zeros((240, 1), np.float32) if stream.kind == "input" else 240)
        card.read()
        card.maintain()


def until_whole(card: SoundCard, clock: Clock) -> None:
    """Until both devices are there, which a search may take a while for."""
    for _ in range(80):
        streams: list[FakeStream] = card._backend.streams  # type: ignore[attr-defined]
        run(card, clock, streams, 0.5)
        if not card.lost:
            break
    assert card.lost == ()


def test_a_device_unplugged_and_plugged_in_again_goes_on(backend: FakeBackend) -> None:
    clock = Clock()
    card = SoundCard(24_000, backend=backend, clock=clock)
    run(card, clock, [backend.stream("input"), backend.stream("output")], 1.0)
    assert card.lost == ()
    microphone = backend.all.pop(0)
    run(card, clock, [backend.stream("output")], 1.2)  # the microphone no longer calls back
    assert card.lost == ("input",)
    assert card.counts.lost_devices == 1
    # A call goes on without it; that it is tried again, and searched for now and then, disturbs nobody.
    backend.all[:] = [d for d in backend.all if not d.input_channels]
    speaker = backend.stream("output")
    run(card, clock, [speaker], 0.9)
    assert card.lost == ("input",)
    assert (backend.refreshes, speaker.active) == (0, True)
    run(card, clock, [speaker], 1.5)
    assert backend.refreshes == 1
    assert card.lost == ("input",)
    assert speaker.active
    assert card.queued_s is not None
    backend.all.insert(0, microphone)
    until_whole(card, clock)
    assert card.counts.revived_devices == 1
    run(card, clock, [backend.stream("input"), backend.stream("output")], 0.5)
    backend.stream("input").turn(np.ones((240, 1), np.float32))
    assert card.read().shape == (1, 240)


def test_a_device_back_in_its_place_does_not_interrupt_the_other(backend: FakeBackend) -> None:
    clock = Clock()
    card = SoundCard(24_000, backend=backend, clock=clock)
    microphone, speaker = backend.stream("input"), backend.stream("output")
    run(card, clock, [microphone, speaker], 0.5)
    microphone.active = False
    run(card, clock, [speaker], 1.5)
    assert card.lost == ()
    assert card.counts.revived_devices == 1
    assert speaker.active
    assert backend.refreshes == 0
    assert backend.stream("input") is not microphone


def test_a_device_chosen_by_number_is_itself_again_or_none(backend: FakeBackend) -> None:
    """Numbers are counted anew when one goes: the next one has it then."""
    clock = Clock()
    headset = backend.all[2]
    backend.all.append(Device(3, "Webcam Microphone", "Fake", 1, 0, 48_000))
    card = SoundCard(24_000, backend=backend, input_device="2", clock=clock)
    assert card.names["input"].startswith("USB Headset")
    backend.stream("input").active = False
    backend.all.remove(headset)
    run(card, clock, [], 8.0)
    assert backend.refreshes > 0
    assert backend.all[2].name == "Webcam Microphone"
    assert "input" in card.lost
    backend.all.append(headset)
    until_whole(card, clock)
    assert card.names["input"].startswith("USB Headset")


def test_after_a_search_in_vain_what_can_be_had_is_opened(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    card = SoundCard(24_000, backend=backend, clock=clock)

    def refuse() -> None:
        raise DeviceError("no audio service")

    monkeypatch.setattr(backend, "refresh", refuse)
    backend.all.pop(0)
    backend.all.pop(1)
    backend.stream("input").active = False
    run(card, clock, [backend.stream("output")], 2.5)  # the search is made after two seconds
    assert card.lost == ("input",)


def test_without_a_speaker_nothing_waits(backend: FakeBackend) -> None:
    clock = Clock()
    card = SoundCard(24_000, backend=backend, clock=clock)
    backend.stream("output").active = False
    card.maintain()
    assert card.lost == ("output",)
    assert card.queued_s is None
    card.write(np.ones((1, 320), np.float32))  # dropped, not kept for later
    assert card.output_latency_ms == 0.0


def test_a_device_opened_again_is_measured_anew(backend: FakeBackend) -> None:
    clock = Clock()
    card = SoundCard(24_000, backend=backend, use_input=False, clock=clock)
    first = backend.stream("output")
    card.write(np.ones((1, 4_800), np.float32))
    first.turn(2_400, latency_s=0.1)
    assert card.output_latency_ms == pytest.approx(100.0)
    first.active = False
    clock.now += 0.05
    card.maintain()
    clock.now += 1.5
    card.maintain()
    assert backend.stream("output") is not first
    assert card.output_latency_ms == 0.0
    assert card.ahead_s == 0.0  # the old device's long blocks are not waited for
    backend.stream("output").turn(240)
    assert card.target_s == pytest.approx(Margin().seconds)
