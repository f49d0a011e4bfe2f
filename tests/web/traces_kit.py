"""Replay traces: recorded calls, that is packets with their times of arrival and what the sound card asked for.

``python tests/web/traces_kit.py`` makes the files in ``tests/web/traces/`` anew, with the package's own sender, the
bundled clip and the seeded networks of ``voice/network.py``. Each file is JSON lines. The first holds the receiver's
settings; then, in order: ``{"packet": hex, "at": s}``, ``{"pull": samples, "at": s}`` (``at`` is when the first will be
heard; with ``certain`` as `Mixer.read_whole`), ``{"reports": true}``, ``{"leave": number}``.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import streaming_encodec
from streaming_encodec.call.decoders import make_decoders
from streaming_encodec.call.mixer import Mixer
from streaming_encodec.call.outgoing import OutgoingVoice
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.model.folder import ModelFolder
from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.ladder import PlayoutInstruction
from streaming_encodec.voice.network import PRESETS, GilbertElliott, Network, NetworkModel, Stalls
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.header import cut_packet, with_sender
from streaming_encodec.wire.packet import StreamFormat

TRACES = Path(__file__).parent / "traces"
ASSETS = Path(streaming_encodec.__file__).parent / "assets"
RATE = 24_000
LIVE = {
    "minimum_frames": 0.5,
    "initial_frames": 1,
    "trial_buckets": 4,
    "bins_per_frame": 8,
    "spare_frames": 0,
    "shorten_above_frames": 0.125,
    "stretch_below_frames": 0.25,
    "together_frames": 2,
}
"""What `talk` uses, see ``live/loop.py``; a test compares them."""


@cache
def model() -> ModelFolder:
    """The bundled model, from its files."""
    return ModelFolder(ASSETS / "voice-24khz")


@cache
def call_format() -> StreamFormat:
    """Of its streams."""
    return stream_format(model())


# -- how traces are made -----------------------------------------------------------------------------------------------


_PLAIN = SenderSettings(num_codebooks=4)


@dataclass(frozen=True)
class Speaker:
    """One who speaks: the clip from ``clip_s`` on, with silence between the seconds of each pair of ``pauses``.

    outages: nothing that is sent between these seconds arrives. ends: seconds at which the stream ends and goes on.
    renumbered_s: from then on the numbers are others, as after a relay's restart. cut: codebooks that a relay leaves.
    damaged: one packet in so many has a flipped bit. pushed: samples that the sound card gives at once.
    """

    network: NetworkModel = PRESETS["clean"]
    sending: SenderSettings = _PLAIN
    kbps: float = 3.0
    clip_s: float = 0.0
    begins_s: float = 0.0
    leaves_s: float | None = None
    dtx: bool = False
    pauses: tuple[tuple[float, float], ...] = ()
    outages: tuple[tuple[float, float], ...] = ()
    ends: tuple[float, ...] = ()
    renumbered_s: float | None = None
    first: tuple[int, int] = (1000, 5000)
    cut: int | None = None
    damaged: int = 0
    gain: float = 1.0
    pushed: int = 960


@dataclass(frozen=True)
class Scenario:
    """One trace. ``ahead``: pulls are made as the live loop makes them. ``pulled``: samples, one after the other."""

    speakers: tuple[Speaker, ...] = (Speaker(),)
    seconds: float = 6.0
    playout: dict[str, float] = field(default_factory=dict)
    pulled: tuple[int, ...] = (320,)
    pull_jitter_ms: float = 0.0
    ahead: bool = False


_RED = SenderSettings(num_codebooks=4, redundant_codebooks=2, redundant_frames=6)
_ONE = SenderSettings(num_codebooks=4, frames_per_packet=1)
_TWO = SenderSettings(num_codebooks=4, frames_per_packet=2)
_LOSS = GilbertElliott.with_loss
_PAUSES = ((1.5, 2.6), (3.4, 5.0))

SCENARIOS: dict[str, Scenario] = {
    "clean": Scenario(),
    "clean-live": Scenario((Speaker(sending=_ONE, pushed=240),), playout=LIVE, ahead=True),
    "bursts-live": Scenario((Speaker(sending=_ONE),), playout=LIVE, ahead=True),
    "wifi": Scenario((Speaker(PRESETS["wifi"]),), seconds=8),
    "wifi-live": Scenario((Speaker(PRESETS["wifi"], sending=_ONE),), seconds=8, playout=LIVE, ahead=True),
    "lte": Scenario((Speaker(PRESETS["lte"]),), seconds=10),
    "wifi-tcp-live": Scenario((Speaker(PRESETS["wifi-tcp"]),), seconds=8, playout=LIVE, ahead=True),
    "reordering": Scenario((Speaker(PRESETS["reordering"], sending=_ONE),)),
    "loss-datagrams": Scenario((Speaker(NetworkModel(loss=_LOSS(0.1, 2.0), jitter_ms=4)),)),
    "loss-with-redundancy": Scenario((Speaker(NetworkModel(loss=_LOSS(0.15, 1.5)), _RED),)),
    "long-losses": Scenario((Speaker(NetworkModel(loss=_LOSS(0.3, 8.0)), _ONE),), playout={"repeat_frames": 5}),
    "jitter": Scenario((Speaker(NetworkModel(jitter_ms=25)),), seconds=8),
    "stalls": Scenario((Speaker(NetworkModel(stalls=(Stalls(2.0, 150.0, 400.0, True),), ordered=True)),), seconds=9),
    "drift-fast": Scenario((Speaker(NetworkModel(drift_ppm=8000, jitter_ms=1)),), seconds=8),
    "drift-slow": Scenario((Speaker(NetworkModel(drift_ppm=-8000, jitter_ms=1)),), seconds=8, playout=LIVE),
    "dtx": Scenario((Speaker(dtx=True, pauses=_PAUSES),)),
    "dtx-loss": Scenario((Speaker(NetworkModel(loss=_LOSS(0.1, 1.5), jitter_ms=3), _RED, dtx=True, pauses=_PAUSES),)),
    "dtx-live": Scenario((Speaker(PRESETS["wifi"], dtx=True, pauses=_PAUSES),), playout=LIVE, ahead=True),
    "wrap": Scenario((Speaker(NetworkModel(jitter_ms=2), _ONE, first=(65_500, 2**32 - 60)),)),
    "wrap-reordering": Scenario((Speaker(PRESETS["reordering"], _RED, first=(65_530, 2**32 - 20)),)),
    "outage": Scenario((Speaker(outages=((2.0, 3.2),)),)),
    "long-outage": Scenario((Speaker(NetworkModel(jitter_ms=2), _RED, outages=((1.5, 4.5),)),), seconds=8),
    "ends": Scenario((Speaker(NetworkModel(jitter_ms=4), ends=(1.53, 3.9)),)),
    "late-ends": Scenario(
        (
            Speaker(
                NetworkModel(stalls=(Stalls(0.9, 400, 900, True),), ordered=True),
                _TWO,
                ends=tuple(i / 4 for i in range(2, 22)),
            ),
        )
    ),
    "leaves-in-an-outage": Scenario((Speaker(outages=((1.5, 9.0),), leaves_s=4.0), Speaker(clip_s=2.0))),
    "leaves-in-a-pause": Scenario((Speaker(dtx=True, pauses=((1.5, 9.0),), leaves_s=4.0), Speaker(clip_s=2.0))),
    "renumbered": Scenario((Speaker(NetworkModel(jitter_ms=2), renumbered_s=2.5),)),
    "cut": Scenario((Speaker(NetworkModel(loss=_LOSS(0.05)), _RED, cut=2),)),
    "damaged": Scenario((Speaker(NetworkModel(jitter_ms=2), _RED, damaged=9),)),
    "blocks-of-128": Scenario((Speaker(PRESETS["wifi"]),), pulled=(128,), pull_jitter_ms=2.0),
    "odd-blocks": Scenario((Speaker(NetworkModel(jitter_ms=8)),), pulled=(441, 17, 960, 0, 320), pull_jitter_ms=1.0),
    "four-speakers": Scenario(
        tuple(
            Speaker(PRESETS["wifi"], clip_s=1.3 * i, begins_s=0.4 * i, leaves_s=5.0 - i if i else None, gain=1.6)
            for i in range(4)
        )
    ),
    "two-live-with-dtx": Scenario(
        (
            Speaker(PRESETS["wifi"], dtx=True, pauses=((0.5, 2.5),)),
            Speaker(PRESETS["lte"], clip_s=2.0, dtx=True, pauses=((3.0, 5.0),)),
        ),
        playout=LIVE,
        ahead=True,
    ),
}


def make(name: str) -> Iterator[dict[str, Any]]:
    """The lines of a trace."""
    scenario, seed = SCENARIOS[name], int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    rng = np.random.default_rng(seed)
    yield {"trace": name, "seed": seed, "playout": scenario.playout}
    events: list[tuple[float, int, dict[str, Any]]] = []
    for number, speaker in enumerate(scenario.speakers, 1):
        for at, data in _arrivals(speaker, number, scenario.seconds, rng):
            heapq.heappush(events, (at, len(events), {"packet": data.hex(), "at": round(at, 6)}))
        if speaker.leaves_s is not None:
            heapq.heappush(events, (speaker.leaves_s, len(events), {"leave": number}))
    player = Player(scenario.playout)  # changes of pace decide how much the next pulls have to ask for
    pulled, i, reported = 0, 0, 1.0
    while (at := pulled / RATE) < scenario.seconds:
        asked = at + abs(float(rng.normal(0, scenario.pull_jitter_ms / 1000))) if scenario.pull_jitter_ms else at
        while events and events[0][0] <= asked:
            yield player.step(heapq.heappop(events)[2])
        if at >= reported:
            reported += 1
            yield player.step({"reports": True})
        count = scenario.pulled[i % len(scenario.pulled)]
        more = {"certain": True} if scenario.ahead else {}
        # The sound card plays at its own pace, whenever it asked. The live loop makes what depends on packets to come
        # when it is due, not earlier: with these settings playout has nothing to spare for a card that asks ahead.
        due_s = at if scenario.ahead else at + 0.01
        yield player.step({"pull": count, "at": round(due_s, 6), **more})
        pulled, i = pulled + player.given, i + 1


def _arrivals(speaker: Speaker, number: int, seconds: float, rng: np.random.Generator) -> Iterator[tuple[float, bytes]]:
    network = Network(speaker.network, int(rng.integers(2**31)))
    sent = 0
    for said_s, packet in _packets(speaker, seconds, rng):
        sent += 1
        if any(begin <= said_s < end for begin, end in speaker.outages):
            continue
        data = with_sender(packet, number)
        if speaker.cut and sent % 3:
            data = cut_packet(data, speaker.cut)
        if speaker.damaged and sent % speaker.damaged == 0:
            where = int(rng.integers(6, 8 * len(data)))  # the sender's number stays
            flipped = bytearray(data)
            flipped[where // 8 if where // 8 not in (4, 5) else 6] ^= 1 << where % 8
            data = bytes(flipped)
        for delivery in network.send(data, network.sender_time(speaker.begins_s + said_s)):
            yield delivery.time_s, delivery.data


def _packets(speaker: Speaker, seconds: float, rng: np.random.Generator) -> Iterator[tuple[float, bytes]]:
    """What the speaker sends, by the speaker's own clock."""
    length = int(seconds * RATE)
    clip, _ = soundfile.read(ASSETS / "speech.flac", dtype="float32")
    pcm = np.resize(np.roll(clip, -int(speaker.clip_s * RATE)), length) * np.float32(speaker.gain)
    for begin, end in speaker.pauses:
        a, b = int(begin * RATE), int(end * RATE)
        pcm[a:b] = rng.normal(0, 10 ** (-62 / 20), len(pcm[a:b])).astype(np.float32)
    voice = _voice(speaker, speaker.first)
    ends, renumbered = list(speaker.ends), speaker.renumbered_s
    for at in range(0, length, speaker.pushed):
        said_s = (at + speaker.pushed) / RATE
        if ends and said_s > ends[0]:
            ends.pop(0)
            yield from ((said_s, data) for data in voice.finish())
        if renumbered is not None and said_s > renumbered:
            renumbered, voice = None, _voice(speaker, (40_000, 2**31 + 5))
        yield from ((said_s, data) for data in voice.push(pcm[at : at + speaker.pushed], said_s))
    yield from ((seconds, data) for data in voice.finish())


def _voice(speaker: Speaker, first: tuple[int, int]) -> OutgoingVoice:
    return OutgoingVoice(
        model(),
        call_format(),
        speaker.kbps,
        "kernel",
        speaker.sending,
        dtx=speaker.dtx,
        adapt=False,
        first_sequence=first[0],
        first_timestamp=first[1],
    )


# -- what Python makes of them -----------------------------------------------------------------------------------------


def settings_of(playout: dict[str, Any]) -> ReceiverSettings:
    """A trace's settings: those of the delay target and those of the receiver, under their names."""
    of_delay = {name: value for name, value in playout.items() if name in DelaySettings.__dataclass_fields__}
    others = {name: value for name, value in playout.items() if name not in of_delay}
    return replace(ReceiverSettings(delay=DelaySettings(**of_delay)), **others)


class Player:
    """A receiver that is led through a trace, and all that it decides."""

    def __init__(self, playout: dict[str, Any]) -> None:
        self.given = 0
        """Samples of the last pull."""
        decoders = make_decoders(model(), "kernel")
        self._mixer = Mixer(call_format(), decoders, settings_of(playout), observe=self._observe)
        self._instructions: dict[str, list[list[Any]]] = {}
        self._pulls: list[list[Any]] = []
        self._reports: list[list[dict[str, Any]]] = []
        self._statistics: dict[int, ReceiverStatistics] = {}
        self._digest = hashlib.sha256()

    def step(self, line: dict[str, Any]) -> dict[str, Any]:
        """Take a line, and give it back."""
        mixer = self._mixer
        if "packet" in line:
            data = bytes.fromhex(line["packet"])
            mixer.receive(int.from_bytes(data[4:6], "little"), data, line["at"])
        elif "pull" in line:
            self._pull(line["pull"], line["at"], "certain" in line)
        elif "leave" in line:
            mixer.leave(line["leave"])
        else:
            self._reports.append([report.to_dict() for report in mixer.reports()])
        return line

    def result(self) -> dict[str, Any]:
        """All decisions, and a hash of what was played."""
        return {
            "instructions": self._instructions,
            "pulls": self._pulls,
            "reports": self._reports,
            "statistics": {
                str(sender): {_camel(name): value for name, value in asdict(one).items()}
                for sender, one in self._statistics.items()
            },
            "bad": self._mixer.bad_packets,
            "sound": self._digest.hexdigest(),
        }

    def _pull(self, count: int, at: float, tries_ahead: bool) -> None:
        mixer = self._mixer
        self._statistics |= mixer.statistics  # also of those who leave now
        ahead = mixer.read_whole(count, at, certain=True) if tries_ahead else None
        pcm = ahead
        if pcm is None:
            pcm = mixer.read_whole(count, at, certain=False) if tries_ahead else mixer.read(count, at)
        assert pcm is not None
        self.given = pcm.shape[1]
        self._digest.update(pcm.astype("<f4").tobytes())
        self._pulls.append([ahead is not None, self.given, [list(one) for one in sorted(mixer.target_ms.items())]])

    def _observe(self, sender: int, i: PlayoutInstruction, heard_s: float) -> None:
        books = 0 if i.codes is None else i.codes.shape[0]
        noise = None if i.noise is None else list(i.noise)
        line = [i.kind.value, i.frame, i.lost_frames, i.redundant, i.reset, i.pace.value, i.spare_samples, noise]
        self._instructions.setdefault(str(sender), []).append([*line, books, len(i.following), heard_s])


def replay(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """All that Python's receiver decides, and a hash of what it plays."""
    player = Player(lines[0]["playout"])
    for line in lines[1:]:
        player.step(line)
    return player.result()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def read_trace(path: Path) -> list[dict[str, Any]]:
    """A file's lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_traces(folder: Path) -> None:
    """All files."""
    folder.mkdir(exist_ok=True)
    for name in SCENARIOS:
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in make(name))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_traces(Path(sys.argv[1]) if len(sys.argv) > 1 else TRACES)
