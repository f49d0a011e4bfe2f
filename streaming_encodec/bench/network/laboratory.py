"""One call over one bad network: the product's `serve`, `send` and `listen` as they are, and what came of it."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.bench.network.conditions import Condition, Where
from streaming_encodec.bench.network.download import Download
from streaming_encodec.bench.network.figures import Playback, Speech, figures, find_first_frame, read_events, read_trace
from streaming_encodec.bench.network.forwarder import Forwarder
from streaming_encodec.bench.network.programs import Program, command
from streaming_encodec.bench.network.quality import pesq_wideband
from streaming_encodec.bench.network.realtime import CALL_PRIORITY, prefer
from streaming_encodec.bench.network.speech import write_speech
from streaming_encodec.bench.network.topology import LISTENER, RELAY, RELAY_FOR, SPEAKER, Topology, inside
from streaming_encodec.errors import MissingExtraError, StreamingEncodecError
from streaming_encodec.evaluation.metrics import PesqWideband
from streaming_encodec.types import Pcm

_PORT = 8765
_LATE_SENDER_S = 60.0
_LATE_LISTENER_S = 25.0
"""How long after the speech each program may take to end by itself; a listener behind a dead line takes its time."""

Result = dict[str, Any]


class Laboratory:
    """Makes calls of one speech, one after the other; its folder and namespaces are gone when it is left.

    transport: what speaker and listener are told to use, auto or websocket.
    without_pesq: why there is no PESQ-WB, "" where there is.
    """

    def __init__(self, clip: Path, seconds: float, transport: str = "auto") -> None:
        self._clip, self._seconds, self._transport = clip, seconds, transport
        self._stack = ExitStack()
        self.without_pesq = ""
        self._pesq: PesqWideband | None = None
        try:
            self._pesq = PesqWideband()
        except MissingExtraError as error:
            self.without_pesq = str(error)

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="streaming-encodec-")))
        try:
            self._speech, clean = self._folder / "speech.wav", self._folder / "clean.wav"
            write_speech(self._clip, self._speech, self._seconds)
            done = subprocess.run(command("stream", self._speech, clean, "--json"), capture_output=True, text=True)
            if done.returncode:
                raise StreamingEncodecError(f"the speech cannot be coded: {done.stderr.strip()}")
            self._clean, self._rate = _read(clean)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def joins(self, count: int, condition: Condition, seed: int = 1) -> list[Result]:
        """Join a room in which somebody speaks so many times by each transport, in turn.

        Returns: of each join its transport, and the ms from the program's call to the welcome, and to the first word.
        """
        results: list[Result] = []
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._folder)))
            topology = stack.enter_context(Topology())
            stack.enter_context(Forwarder(topology, condition, Where.LISTENER, seed, _PORT, self._seconds))
            topology.address()
            _serve(stack, topology, folder)
            for number in range(2 * count):
                transport = ("auto", "websocket")[number % 2]
                place = folder / str(number)
                place.mkdir()
                with ExitStack() as both:
                    _begin(both, topology, SPEAKER, place, "send", self._speech, "websocket")
                    listener = _begin(both, topology, LISTENER, place, "listen", place / "heard.wav", transport)
                times = {entry["event"]: entry["at_s"] for entry in reversed(read_events(listener.trace))}
                ms = {event: 1000 * (times[event] - times["dials"]) for event in ("joined", "block")}
                results.append({"transport": transport, "joined_ms": ms["joined"], "heard_ms": ms["block"]})
        return results

    def call(self, name: str, condition: Condition, where: Where | None, seed: int) -> Result:
        """Speak over this network. A call of which nothing can be said has `failed`, the reason, and no figures."""
        where = where or condition.where
        head = {"condition": name, "where": str(where), "transport": self._transport, "seed": seed}
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            try:
                return head | self._measure(condition, where, seed, Path(folder))
            except StreamingEncodecError as error:
                return head | {"failed": str(error)}

    def _measure(self, condition: Condition, where: Where, seed: int, folder: Path) -> Result:
        recording = folder / "heard.wav"
        with ExitStack() as stack:
            topology = stack.enter_context(Topology())
            lines = stack.enter_context(Forwarder(topology, condition, where, seed, _PORT, self._seconds))
            topology.address()
            relay, listener, speaker = _programs(stack, topology, folder, recording, self._speech, self._transport)
            begin_s = read_trace(speaker.trace)[0]["at_s"]
            lines.begin(begin_s)
            preferred = [prefer(CALL_PRIORITY, each.process.pid) for each in (relay, listener, speaker)]
            with _events(topology, condition, begin_s) as download:
                by_itself = {"send": speaker.wait(begin_s + self._seconds + _LATE_SENDER_S - time.monotonic())}
            by_itself["listen"] = listener.wait(_LATE_LISTENER_S)
            carried = lines.end()
        result = {
            "ended_by_itself": by_itself,
            "machine_stall_ms": carried["machine_stall_ms"],
            "realtime": all(preferred) and carried["realtime"],
            "forwarder": carried,
            "wire_kbps": {
                way: 8 * counts["voice_bytes"] / self._seconds / 1000 for way, counts in carried["lines"].items()
            },
            "download_kbps": 8 * download[0] / self._seconds / 1000 if download else None,
            "send": speaker.facts,
            "listen": listener.facts,
        }
        down_s = next(((begin_s + down, begin_s + up) for down, up in condition.impairment.down_s), None)
        return result | self._judge(speaker, listener, recording, down_s)

    def _judge(
        self, speaker: Program, listener: Program, recording: Path, down_s: tuple[float, float] | None
    ) -> Result:
        heard = read_trace(listener.trace)
        if not heard or not recording.exists():
            raise StreamingEncodecError(f"nothing was recorded: {listener.last_words() or speaker.last_words()}")
        sound, rate = _read(recording)
        playback, speech = Playback.read(heard, sound, rate), Speech.read(read_trace(speaker.trace), self._rate)
        first_frame, agreement = find_first_frame(playback, self._clean)
        pesq = None if self._pesq is None else pesq_wideband(self._pesq, playback, self._clean, first_frame)
        return figures(playback, speech, first_frame, down_s) | {"trace_agreement": agreement, "pesq_wb": pesq}


def _programs(
    stack: ExitStack, topology: Topology, folder: Path, recording: Path, speech: Path, transport: str
) -> tuple[Program, Program, Program]:
    """The relay, the listener in its room and the speaker, who has begun."""

    def start(place: str, *arguments: object) -> Program:
        return stack.enter_context(Program(topology.name(place), folder, *arguments))

    relay = _serve(stack, topology, folder)
    listener = start(LISTENER, "listen", recording, *_at(LISTENER, transport), "--trace", folder / "listen.jsonl")
    listener.wait_until("it was in the room", lambda: listener.said("joined"))
    speaker = _begin(stack, topology, SPEAKER, folder, "send", speech, transport)
    return relay, listener, speaker


def _begin(
    stack: ExitStack, topology: Topology, person: str, folder: Path, verb: str, sound: Path, transport: str
) -> Program:
    """A speaker or listener; the first word has been said, or heard."""
    arguments = (verb, sound, *_at(person, transport), "--trace", folder / f"{verb}.jsonl")
    program = stack.enter_context(Program(topology.name(person), folder, *arguments))
    program.wait_until("the first word", lambda: program.said("block"))
    return program


def _serve(stack: ExitStack, topology: Topology, folder: Path) -> Program:
    """A relay that listens."""
    arguments = ("serve", "--host", "0.0.0.0", "--port", _PORT, "--insecure")
    relay = stack.enter_context(Program(topology.name(RELAY), folder, *arguments))
    relay.wait_until("it listened", lambda: _answers(topology))
    return relay


def _at(person: str, transport: str) -> tuple[str, ...]:
    return "--url", f"ws://{RELAY_FOR[person]}:{_PORT}", "--transport", transport, "--json"


def _answers(topology: Topology) -> bool:
    """Whether something listens on the relay's port."""
    try:
        with inside(topology.name(RELAY)), socket.create_connection(("127.0.0.1", _PORT), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def _events(topology: Topology, condition: Condition, begin_s: float) -> Iterator[list[int]]:
    """Within it what a condition has planned happens at its time, seconds after `begin_s`. Yields a list into which the
    bytes of a download come."""
    stop = threading.Event()
    downloaded: list[int] = []

    def reached(at_s: float) -> bool:
        return not stop.wait(max(0.0, begin_s + at_s - time.monotonic()))

    def run() -> None:
        if condition.new_address_s is not None and reached(condition.new_address_s):
            topology.give_new_address()
        if condition.competing_s is not None and reached(condition.competing_s[0]):
            with Download(topology) as download:
                reached(condition.competing_s[1])
            downloaded.append(download.bytes)

    thread = threading.Thread(target=run, name="events", daemon=True)
    thread.start()
    try:
        yield downloaded
    finally:
        stop.set()
        thread.join()


def _read(path: Path) -> tuple[Pcm, int]:
    """A file's sound [T] and its rate."""
    with AudioReader(path, channels=1) as reader:
        return np.concatenate([block[0] for block in reader]), reader.info.sample_rate
