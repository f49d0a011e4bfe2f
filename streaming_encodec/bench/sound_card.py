"""A sound card made by JACK's dummy driver, with simulated participants at its microphone and speaker.

`bench call demo` and `bench call talk` measure with it. Linux, with jackd2 and JACK-Client installed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soundfile

from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.bench.tables import Table
from streaming_encodec.bench.usage import Usage
from streaming_encodec.errors import DeviceError
from streaming_encodec.types import Pcm

RATE, BLOCK = 24_000, 256
_PATIENCE_S = 60.0
_SERVER_VARIABLE = "JACK_DEFAULT_SERVER"
_WINDOW_S = 3
LEAST_SECONDS = 8.0
"""A comparison takes windows of three seconds, after the first second."""
_CARD_PRIORITY, _PROGRAM_PRIORITY = 20, 10
"""Real-time, for `--real-time`: what else runs on a busy machine then does not count."""


def what_is_missing() -> str | None:
    """Why there can be no such sound card here, and what to install; None if there can be one."""
    if shutil.which("jackd") is None:
        return "jackd is not installed: apt install jackd2 libportaudio2"
    try:
        import jack  # noqa: F401
    except (ImportError, OSError) as error:
        return f"no JACK client: pip install JACK-Client, apt install jackd2 ({error})"
    return None


@contextlib.contextmanager
def dummy_card(real_time: bool = False) -> Iterator[None]:
    """A server with a dummy card while the block runs; this process and those that it starts use it.

    It has a name of its own, so that it does not meet other servers of this machine.

    Args:
        real_time: with the priorities of an installed JACK, which not every system allows.
    """
    name, before = f"measure-{os.getpid()}", os.environ.get(_SERVER_VARIABLE)
    priority = ("-R", "-P", str(_CARD_PRIORITY)) if real_time else ("-r",)
    server = start_server("-n", name, *priority)
    os.environ[_SERVER_VARIABLE] = name
    try:
        wait_for_server()
        yield
    finally:
        if before is None:
            del os.environ[_SERVER_VARIABLE]
        else:
            os.environ[_SERVER_VARIABLE] = before
        server.terminate()
        server.wait(10)


def start_server(*options: str) -> subprocess.Popen[bytes]:
    """`jackd` with a dummy card and these options of its own."""
    command = ["jackd", *options, "-d", "dummy", "-r", str(RATE), "-p", str(BLOCK)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_server() -> None:
    """Wait until a server answers. Another process asks: the library that met one server does not survive a second."""
    look = [sys.executable, "-c", "import jack; jack.Client('look', no_start_server=True).close()"]
    _until(lambda: subprocess.run(look, capture_output=True, check=False).returncode == 0, "jackd did not start")


def hurry() -> None:
    """Give this process priority where that is allowed: card and participants stand for hardware, which never waits."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)


def _be_ordinary() -> None:
    """In the measured program: take back the priority of the card, but stay before what else runs."""
    if os.sched_getscheduler(0) == os.SCHED_RR:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PROGRAM_PRIORITY))
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)


def _until(true: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > end:
            raise DeviceError(otherwise)
        time.sleep(0.05)


class Participant:
    """Speaks ``sound`` [n] into one program's microphone, over and over, and hears another's speaker."""

    def __init__(self, name: str, sound: Pcm) -> None:
        import jack

        self._client = jack.Client(name, no_start_server=True)
        self._mouth = self._client.outports.register("mouth")
        self._ear = self._client.inports.register("ear")
        self.sound, self._at = sound, -1
        self._heard: list[Pcm] = []
        self.began = 0
        self._client.set_process_callback(self._process)
        self._client.activate()

    def _process(self, count: int) -> None:
        out = self._mouth.get_array()
        out[:] = 0
        if self._at >= 0:
            index = (self._at + np.arange(count)) % len(self.sound)
            out[:] = self.sound[index]
            if not self._heard:
                self.began = self._client.last_frame_time
            self._at += count
            self._heard.append(self._ear.get_array().copy())

    def ports(self) -> set[str]:
        """Ports of PortAudio programs."""
        return {port.name for port in self._client.get_ports("PortAudio")}

    def put_on(self, microphones: set[str], speakers: set[str]) -> None:
        """Take these programs' ports off the dummy hardware: speak into the microphone of the ones, hear the others."""
        ports = [self._client.get_port_by_name(name) for name in microphones | speakers]
        wanted = [port for port in ports if port.name in (microphones if port.is_input else speakers)]
        for port in wanted:
            for other in self._client.get_all_connections(port):
                if port.is_input:
                    self._client.disconnect(other, port)
                else:
                    self._client.disconnect(port, other)
            if port.is_input:
                self._client.connect(self._mouth, port)
            else:
                self._client.connect(port, self._ear)

    def speak(self) -> None:
        """From now on."""
        self._at = 0

    @property
    def heard(self) -> Pcm:
        """Since `speak`, [n]."""
        return np.concatenate([np.zeros(0, np.float32), *self._heard])

    def close(self) -> None:
        self._client.deactivate()
        self._client.close()


def clip() -> Pcm:
    """The bundled speech, and a pause, so that its beginning can be found."""
    sound, _ = soundfile.read(bundled_clip(), dtype="float32")
    return np.concatenate([sound, np.zeros(RATE, np.float32)])


def likeness(said: Pcm, heard: Pcm) -> tuple[float, float]:
    """Delay in ms and correlation of loudness, which survives any codec and small changes of pace."""
    window = np.ones(240) / 240
    loud_said, loud_heard = (np.convolve(np.abs(x), window, "same")[::24] for x in (said, heard))
    said_1, heard_1 = loud_said - loud_said.mean(), loud_heard - loud_heard.mean()
    size = 1 << int(np.ceil(np.log2(len(said_1) + len(heard_1))))
    spectrum = np.fft.rfft(heard_1, size) * np.conj(np.fft.rfft(said_1, size))
    at = int(np.argmax(np.fft.irfft(spectrum, size)[:3000]))
    part = heard_1[at : at + len(said_1)]
    both = said_1[: len(part)]
    norm = np.sqrt((part**2).sum() * (both**2).sum()) + 1e-12
    return float(at), float((part * both).sum() / norm)


def start(*arguments: object) -> subprocess.Popen[str]:
    """A command of the package, on the dummy card."""
    program = "from streaming_encodec.cli.app import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_be_ordinary)


def end(process: subprocess.Popen[str], seconds: float) -> dict[str, Any]:
    """Its JSON."""
    out, err = process.communicate(timeout=seconds + 2 * _PATIENCE_S)
    if process.returncode:
        raise DeviceError(f"the program failed: {err.strip()}")
    facts: dict[str, Any] = json.loads(out)
    return facts


def hear_demo(seconds: float, *arguments: object) -> tuple[dict[str, Any], float, float]:
    """Speak into a demo for so long: its JSON, the delay in ms between mouth and ear, and the likeness."""
    sound = clip()
    person = Participant("person", sound)
    demo = start("demo", "--json", "--seconds", seconds, *arguments)
    try:
        ports = _ports_of(demo, person, set())
        usage = Usage(demo)
        person.put_on(ports, ports)
        person.speak()
        facts = end(demo, seconds)
        said = np.tile(sound, 1 + len(person.heard) // len(sound))[: len(person.heard)]
        return facts | usage.facts(), *_compare(said, person.heard)
    finally:
        demo.kill()
        person.close()


def hear_talk(seconds: float, *arguments: object) -> list[tuple[dict[str, Any], float, float]]:
    """Two participants in two programs, and a relay in a third: for each what the program reports, and the delay in ms
    and the likeness of what was heard of the other."""
    sound = clip()
    people = [Participant("anna", sound), Participant("bert", np.roll(sound, len(sound) // 2))]
    relay = start("serve", "--port", "0")
    talks: list[subprocess.Popen[str]] = []
    try:
        url = json.loads(relay.stderr.readline())["url"] if relay.stderr else ""
        ports: list[set[str]] = []
        for person in people:
            talks.append(start("talk", "room", "--url", url, "--json", *arguments))
            ports.append(_ports_of(talks[-1], person, set().union(*ports)))
        usages = [Usage(process) for process in talks]
        for person, mine in zip(people, ports, strict=True):
            person.put_on(mine, mine)
        for person in people:
            person.speak()
        time.sleep(seconds)
        used = [usage.facts() for usage in usages]
        for talk in talks:
            talk.send_signal(signal.SIGINT)
        every = [end(talk, 0) for talk in talks]
        heard = []
        for person, other, facts, taken in zip(people, reversed(people), every, used, strict=True):
            # The two did not begin at the same sample.
            begin, count = (person.began - other.began) % len(sound), len(person.heard)
            said = np.tile(other.sound, 2 + count // len(sound))[begin : begin + count]
            heard.append((facts | taken, *_compare(said, person.heard)))
        return heard
    finally:
        for process in (*talks, relay):
            process.kill()
            process.communicate()
        for person in people:
            person.close()


def _ports_of(process: subprocess.Popen[str], person: Participant, others: set[str]) -> set[str]:
    """The microphone and the speaker of a program that has just been started."""
    _until(
        lambda: len(person.ports() - others) == 2 or process.poll() is not None,
        "the program opened no devices",
    )
    if process.poll() is not None:
        raise DeviceError(f"the program ended: {process.communicate()[1].strip()}")
    return person.ports() - others


def _compare(said: Pcm, heard: Pcm, most_s: int = 60) -> tuple[float, float]:
    """Delay and likeness over the first minute: the median of what windows of three seconds give.

    In so short a time the delay hardly moves, and one bad moment does not hide the good ones. Other words, or the same
    ones backwards, come to 0.3 to 0.45 this way, what is heard to 0.7 and more.
    """
    last = min(len(heard) // RATE - 2 * _WINDOW_S, most_s)
    found = [
        likeness(said[at : at + _WINDOW_S * RATE], heard[at : at + 2 * _WINDOW_S * RATE])
        for at in range(RATE, last * RATE, RATE)
    ]
    delays, likes = zip(*found, strict=True)
    return float(np.median(delays)), float(np.median(likes))


_WATCHER = """
import gc, os, sys, time
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
except PermissionError:
    pass
gc.disable()
late, stop = [], time.monotonic() + float(sys.argv[1])
while time.monotonic() < stop:
    begin = time.monotonic()
    time.sleep(0.002)
    late.append(1000 * (time.monotonic() - begin) - 2)
print(max(late), sum(ms > 5 for ms in late))
"""


@contextlib.contextmanager
def machine_watched(seconds: float) -> Iterator[dict[str, float]]:
    """How late the machine wakes a process that has priority over all others: no program can be better."""
    found: dict[str, float] = {}
    watcher = subprocess.Popen([sys.executable, "-c", _WATCHER, str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        yield found
        longest, often = watcher.communicate(timeout=seconds + _PATIENCE_S)[0].split()
        found.update(machine_stall_ms_max=float(longest), machine_stalls_over_5_ms=int(often))
    finally:
        watcher.kill()


def measure_programs(
    talk: bool, seconds: float, arguments: tuple[object, ...] = (), real_time: bool = False
) -> list[dict[str, Any]]:
    """Run a demo, or with `talk` a call of two programs, on the dummy card: what each program reports, and what its
    user heard.

    Args:
        seconds: at least `LEAST_SECONDS`.

    Raises:
        DeviceError: JACK is not installed, or a program failed.
    """
    if missing := what_is_missing():
        raise DeviceError(missing)
    if real_time:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_CARD_PRIORITY))
    else:
        hurry()
    # A collection of garbage would make the participants late: what is here stays.
    gc.collect()
    gc.freeze()
    with dummy_card(real_time), machine_watched(seconds) as machine:
        heard = hear_talk(seconds, *arguments) if talk else [hear_demo(seconds, *arguments)]
    return [{**facts, **machine, "measured_delay_ms": delay_ms, "likeness": like} for facts, delay_ms, like in heard]


def programs_table(calls: list[dict[str, Any]]) -> Table:
    """A column for each program."""

    def row(title: str, name: str, spell: Callable[[Any], str] = str) -> list[str]:
        return [title, *(spell(call[name]) if call.get(name) is not None else "–" for call in calls)]

    rows = [
        row("mouth to ear p50, ms", "mouth_to_ear_ms_p50", "{:.0f}".format),
        row("p95", "mouth_to_ear_ms_p95", "{:.0f}".format),
        row("port to port, ms", "measured_delay_ms", "{:.0f}".format),
        row("likeness of what was said and heard", "likeness", "{:.2f}".format),
        row("underruns", "underruns"),
        row("overruns", "overruns"),
        row("packets lost", "packets_lost"),
        row("concealed", "concealed_share", "{:.2%}".format),
        row("frames left out", "skipped_frames"),
        row("of a core", "cpu_share", "{:.0%}".format),
        row("memory at start, middle, end, MB", "memory_mb", lambda sizes: ", ".join(f"{size:.0f}" for size in sizes)),
        row("of it its own", "own_memory_mb", lambda sizes: ", ".join(f"{size:.0f}" for size in sizes)),
        row("longest stall of the machine, ms", "machine_stall_ms_max", "{:.0f}".format),
        row("stalls over 5 ms", "machine_stalls_over_5_ms"),
    ]
    names = ["program"] if len(calls) == 1 else ["one", "the other"]
    return Table("on JACK's dummy sound card", ["", *names], rows)
