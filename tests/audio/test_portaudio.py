"""PortAudio's process: what it is asked, and what becomes of it where PortAudio hangs, ends, or is not there.

The process is the real one; the `sounddevice` that it imports is made up, and does what a file beside it says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.devices.devices import Device, DeviceStream
from streaming_encodec.audio.devices.portaudio import PortAudio
from streaming_encodec.audio.devices.portaudio_process import Server
from streaming_encodec.errors import DeviceError

SOUNDDEVICE = """
import json, os, pathlib, threading, time
import numpy as np
from types import SimpleNamespace

here = pathlib.Path(__file__).parent
plan = lambda: json.loads((here / "plan.json").read_text())
begun = plan()  # PortAudio lists devices when it begins
(here / "pids").open("a").write(f"{os.getpid()}\\n")
if begun["missing"]:
    raise OSError("PortAudio library not found")
if begun["broken"]:
    raise RuntimeError("Unanticipated host error")

class PortAudioError(Exception):
    pass

default = SimpleNamespace(device=(0, 1))
get_portaudio_version = lambda: (1246720, "PortAudio V19.made-up")
query_hostapis = lambda: [{"name": "Made up"}]

def query_devices():
    return [
        {"index": i, "name": name, "hostapi": 0, "max_input_channels": 1, "max_output_channels": 1,
         "default_samplerate": 24000.0}
        for i, name in enumerate(begun["devices"])
    ]

def check_input_settings(device, channels, dtype, samplerate):
    if samplerate != 24000:
        raise PortAudioError("Invalid sample rate\\nand more")

check_output_settings = check_input_settings

class RawInputStream:
    def __init__(self, device, callback, finished_callback, samplerate, channels, **_):
        self.callback, self.finished, self.device, self.stopped = callback, finished_callback, device, False
        self.samples = 0

    def start(self):
        if plan()["busy"]:
            raise PortAudioError("Device unavailable")
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while not self.stopped and begun["devices"][self.device] in plan()["devices"]:
            self.block(SimpleNamespace(currentTime=1.0, inputBufferAdcTime=0.99, outputBufferDacTime=1.02))
            time.sleep(0.01)
        while plan()["hangs"]:
            pass
        self.finished()

    def block(self, at):
        block = np.arange(self.samples, self.samples + 240, dtype=np.float32)
        self.samples += 240
        self.callback(memoryview(block.tobytes()), 240, at, None)

    def close(self):
        while plan()["hangs"]:
            pass
        self.stopped = True

class RawOutputStream(RawInputStream):
    def block(self, at):
        block = bytearray(np.full(240, 9.0, np.float32).tobytes())
        self.callback(memoryview(block), 240, at, None)
        (here / "heard").open("ab").write(block)
"""


class Machine:
    """What the made-up PortAudio finds, and does."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._plan = folder, {"missing": False, "broken": False, "busy": False, "hangs": False}
        (folder / "sounddevice.py").write_text(SOUNDDEVICE)
        self.change(devices=["microphone", "speaker"])

    def change(self, **plan: Any) -> None:
        self._plan |= plan
        written = self._folder / "plan.new"
        written.write_text(json.dumps(self._plan))
        written.replace(self._folder / "plan.json")

    def pids(self) -> list[int]:
        return [int(line) for line in (self._folder / "pids").read_text().split()]

    def heard(self) -> np.ndarray:
        path = self._folder / "heard"
        return np.frombuffer(path.read_bytes(), np.float32) if path.exists() else np.zeros(0, np.float32)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return Machine(tmp_path)


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Ended, and nobody has asked for its end yet.
    return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def opened(backend: PortAudio, kind: Any = "input") -> DeviceStream:
    device = next(d for d in backend.devices() if d.name == ("microphone" if kind == "input" else "speaker"))
    return backend.open(device, kind, 24_000, 1, time.monotonic)


def answers(backend: PortAudio) -> bool:
    try:
        return bool(backend.devices())
    except DeviceError:
        return False


def test_it_says_what_there_is(machine: Machine) -> None:
    backend = PortAudio()
    first, second = backend.devices()
    assert first == Device(0, "microphone", "Made up", 1, 1, 24_000, is_default_input=True)
    assert second.is_default_output
    assert backend.version() == "PortAudio V19.made-up"
    assert backend.refusal(first, "input", 24_000, 1) is None
    assert backend.refusal(first, "input", 48_000, 1) == "Invalid sample rate"


def test_sound_passes_both_ways_and_the_microphone_wakes(machine: Machine) -> None:
    backend = PortAudio()
    microphone, speaker = opened(backend), opened(backend, "output")
    assert not backend.wakeup.wait(0.1)
    microphone.port.wake_at = 1200
    assert backend.wakeup.wait(60)
    got = microphone.port.ring.read_all()[:, 0]
    assert np.array_equal(got, np.arange(len(got)))
    assert len(got) >= 1200
    speaker.port.ring.write(np.arange(1, 1001, dtype=np.float32)[:, None])
    until(lambda: 1000.0 in machine.heard())
    heard = machine.heard()
    begin = int(np.flatnonzero(heard == 1.0)[0])
    assert not heard[:begin].any()
    assert np.array_equal(heard[begin : begin + 1000], np.arange(1, 1001))
    assert (microphone.port.latency_s, speaker.port.latency_s) == pytest.approx((0.01, 0.02))
    until(lambda: speaker.port.missed > 0)  # nothing more to play
    microphone.close()
    assert speaker.active


def test_its_process_is_small() -> None:
    """No numpy, and nothing of the rest: a process that only copies takes little memory and starts at once."""
    names = "{'numpy', 'torch', 'soxr'} & set(sys.modules)"
    code = f"import sys, streaming_encodec.audio.devices.portaudio_process\nprint(*{names})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_file_is_left_behind(machine: Machine) -> None:
    folder = Path("/dev/shm") if Path("/dev/shm").exists() else Path("/tmp")
    stream = opened(PortAudio())
    assert stream.active
    assert not list(folder.glob("streaming-encodec-*"))


def test_a_device_that_hangs_is_not_waited_for_and_had_again(machine: Machine) -> None:
    """As PortAudio does where an ALSA device is pulled out, or a JACK server has ended."""
    backend = PortAudio()
    stream = opened(backend)
    machine.change(hangs=True)
    begin = time.monotonic()
    stream.close()
    assert time.monotonic() - begin < 10
    assert not stream.active
    [pid] = machine.pids()
    until(lambda: has_ended(pid))
    machine.change(hangs=False)
    with pytest.raises(DeviceError, match="is being restarted"):
        backend.devices()
    until(lambda: answers(backend))
    assert opened(backend).active


def test_a_device_that_ends_in_order_is_noticed_at_once(machine: Machine) -> None:
    backend = PortAudio()
    stream = opened(backend)
    assert stream.active
    machine.change(devices=["speaker"])
    until(lambda: not stream.active)
    assert len(machine.pids()) == 1
    assert answers(backend)


def test_a_process_that_ends_takes_its_streams_and_wakes_who_waits(machine: Machine) -> None:
    backend = PortAudio()
    stream = opened(backend)
    [pid] = machine.pids()
    os.kill(pid, signal.SIGKILL)  # as PortAudio aborts where its JACK server is gone
    assert backend.wakeup.wait(60)
    until(lambda: not stream.active)
    stream.close()
    until(lambda: answers(backend))


def test_a_new_device_is_seen_while_another_goes_on(machine: Machine) -> None:
    backend = PortAudio()
    stream = opened(backend)
    machine.change(devices=["microphone", "speaker", "headset"])
    assert len(backend.devices()) == 2
    backend.refresh()
    until(lambda: len(backend.devices()) == 3)
    port = stream.port
    before = port.calls
    until(lambda: port.calls > before + 3)
    first, second = machine.pids()
    stream.close()
    del stream
    until(lambda: has_ended(first))  # nobody uses it any more
    assert not has_ended(second)


def test_one_that_does_not_begin_is_not_waited_for(machine: Machine) -> None:
    backend = PortAudio()
    stream = opened(backend)
    machine.change(broken=True)
    backend.refresh()
    until(lambda: len(machine.pids()) == 2)
    assert len(backend.devices()) == 2
    assert stream.active


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"missing": True}, "not on this machine: install it with `apt"),
        ({"broken": True}, r"cannot start \(Unanticipated host error\).*audio service"),
    ],
)
def test_without_portaudio_it_is_said_what_to_do(machine: Machine, plan: dict[str, bool], said: str) -> None:
    machine.change(**plan)
    backend = PortAudio()
    for _ in range(2):
        with pytest.raises(DeviceError, match=said):
            backend.devices()


def test_without_python_it_is_said_what_is_wrong() -> None:
    with pytest.raises(DeviceError, match="is /nowhere/python Python"):
        PortAudio(["/nowhere/python"]).devices()


def test_what_a_device_refuses_is_said(machine: Machine) -> None:
    machine.change(busy=True)
    with pytest.raises(DeviceError, match=r"'microphone' cannot be opened \(Device unavailable\).*another program"):
        opened(PortAudio())


def test_ctrl_c_is_not_for_it(machine: Machine) -> None:
    backend = PortAudio()
    backend.devices()
    [pid] = machine.pids()
    os.kill(pid, signal.SIGINT)
    assert len(backend.devices()) == 2


def test_it_ends_with_who_asked_even_while_portaudio_hangs(machine: Machine) -> None:
    code = (
        "import os, time\n"
        "from streaming_encodec.audio.devices.portaudio import PortAudio\n"
        "backend = PortAudio()\n"
        "stream = backend.open(backend.devices()[0], 'input', 24_000, 1, time.monotonic)\n"
        "os._exit(7)\n"  # nothing is tidied up
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
    machine.change(hangs=True, devices=[])
    [pid] = machine.pids()
    until(lambda: has_ended(pid))


def test_a_call_has_sound_again_after_its_devices_took_portaudio_with_them(machine: Machine) -> None:
    card = SoundCard(24_000)

    def until_lost(lost: tuple[str, ...]) -> None:
        def is_so() -> bool:
            card.read()
            card.maintain()
            return card.lost == lost

        until(is_so)

    machine.change(hangs=True, devices=[])
    until_lost(("input", "output"))
    machine.change(hangs=False, devices=["speaker", "microphone"])
    until_lost(())
    card.read()
    until(lambda: card.read().shape[1] > 0)
    assert (card.counts.lost_devices, card.counts.revived_devices) == (2, 2)
    card.close()


@pytest.mark.parametrize(("first", "chosen"), [("jack", (2, 2)), ("HDA Intel", (0, 0))])
def test_the_plug_in_of_alsa_for_jack_gives_way_to_jack_itself(first: str, chosen: tuple[int, int]) -> None:
    hosts = [
        {"name": "ALSA", "devices": [0, 1], "default_input_device": 0, "default_output_device": 0},
        {"name": "JACK Audio Connection Kit", "devices": [2], "default_input_device": 2, "default_output_device": 2},
    ]
    names = ((first, 0), ("default", 0), ("system", 1))
    devices = [
        {"index": i, "name": name, "hostapi": host, "max_input_channels": 2, "max_output_channels": 2}
        | {"default_samplerate": 48_000.0}
        for i, (name, host) in enumerate(names)
    ]
    found = SimpleNamespace(
        query_hostapis=lambda: hosts, query_devices=lambda: devices, default=SimpleNamespace(device=(0, 0))
    )
    listed = Server(found, lambda: None)._devices()
    assert (
        tuple(next(one["index"] for one in listed if one[f"is_default_{kind}"]) for kind in ("input", "output"))
        == chosen
    )
