"""What a live command shows: levels, bitrate, frame time, buffer, delay by part, losses and keys."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from streaming_encodec.audio.devices.card import SoundCard
from streaming_encodec.audio.devices.side import CardCounts
from streaming_encodec.cli.shared.printable import printable
from streaming_encodec.live.figures import CallFigures
from streaming_encodec.live.loop import LiveLoop
from streaming_encodec.live.meters import FLOOR_DB, Delays, percentile

_BAR = 30
_BAR_FLOOR_DB = -60.0
_MOST_LOOKS = 100_000  # five hours of them
_BITRATE_LOOKS = 10  # two seconds
_PARTS = tuple(Delays(*[0.0] * 8).parts())
_ROW = 1 + len(_PARTS)
_SHORT = {"microphone": "mic", "network": "net"}


def level_bar(level_db: float) -> Text:
    """A level as a bar: green, yellow from -12, red from -3 decibels on."""
    share = (max(level_db, _BAR_FLOOR_DB) - _BAR_FLOOR_DB) / -_BAR_FLOOR_DB
    filled = min(_BAR, round(_BAR * share))
    colour = "red" if level_db > -3 else "yellow" if level_db > -12 else "green"
    number = "silent" if level_db <= FLOOR_DB else f"{level_db:5.1f} dB"
    return Text.assemble(("█" * filled, colour), ("░" * (_BAR - filled), "dim"), f"  {number}")


@dataclass(frozen=True, slots=True)
class Look:
    """A call at one moment. The loop's thread takes it and another one paints it, so that painting costs no sound."""

    seconds: float
    figures: CallFigures
    delays: Delays
    frame_ms: tuple[float, float]
    deadline_ms: float
    levels_db: tuple[float, float]
    muted: bool
    counts: dict[str, int]
    warnings: tuple[str, ...]
    echo: str
    payload_kbps: float = 0.0
    wire_kbps: float = 0.0


@dataclass(slots=True)
class History:
    """Looks at a call, taken a few times a second, in 32 bytes each: a call may last for hours."""

    _rows: array[float] = field(default_factory=lambda: array("f"))  # seconds and the parts of the delay
    _sent: deque[tuple[float, int, int]] = field(default_factory=lambda: deque([(0.0, 0, 0)], maxlen=_BITRATE_LOOKS))

    @property
    def seconds(self) -> list[float]:
        """When."""
        return list(self._rows[::_ROW])

    @property
    def parts(self) -> dict[str, list[float]]:
        """What, by part."""
        return {name: list(self._rows[i::_ROW]) for i, name in enumerate(_PARTS, 1)}

    def look(self, seconds: float, loop: LiveLoop) -> Look:
        """Look once; before anything is played there is no delay to be remembered."""
        figures = loop.figures()
        delays = loop.delays(figures)
        if delays.buffer_ms > 0 and len(self._rows) < _MOST_LOOKS * _ROW:
            self._rows.extend((seconds, *delays.parts().values()))
        begin, payload, wire = self._sent[0]
        self._sent.append((seconds, figures.payload_bits, figures.wire_bits))
        lately = 1000 * max(0.001, seconds - begin)
        return Look(
            seconds=seconds,
            figures=figures,
            delays=delays,
            frame_ms=loop.frame_ms(),
            deadline_ms=loop.deadline_ms,
            levels_db=(loop.input_level.peak_db, loop.output_level.peak_db),
            muted=loop.muted,
            counts=_counts(loop.card.counts),
            warnings=tuple(_warnings(loop, figures)),
            echo=_echo_words(_echo_facts(loop)),
            payload_kbps=(figures.payload_bits - payload) / lately,
            wire_kbps=(figures.wire_bits - wire) / lately,
        )

    def facts(self, loop: LiveLoop, seconds: float, counts: CardCounts) -> dict[str, Any]:
        """The call in numbers, for `--json` and the summary. Looks at all that was: for the end of the call.

        seconds: how long it was. counts: the card's at its end.
        """
        figures = loop.figures()
        encode, decode = loop.frame_ms()
        parts = self.parts
        totals = [sum(look) for look in zip(*parts.values(), strict=True)]
        third = max(1, len(totals) // 3)
        return {
            "seconds": seconds,
            "payload_kbps": figures.payload_bits / 1000 / max(seconds, 0.001),
            "wire_kbps": figures.wire_bits / 1000 / max(seconds, 0.001),
            "packets_sent": figures.packets_sent,
            "packets_lost": figures.packets_lost,
            "concealed_share": figures.concealed_share,
            "skipped_frames": figures.skipped_frames,
            "mouth_to_ear_ms_p50": percentile(totals, 50),
            "mouth_to_ear_ms_p95": percentile(totals, 95),
            "mouth_to_ear_ms_by_third": [
                percentile(part, 50) for part in (totals[:third], totals[third : 2 * third], totals[2 * third :])
            ],
            "delay_ms": {name: percentile(values, 50) for name, values in parts.items()},
            "frame_deadline_ms": loop.deadline_ms,
            "encode_ms_p95": encode,
            "decode_ms_p95": decode,
            **_counts(counts),
            "skipped_seconds": counts.skipped_samples / loop.sample_rate,
            "echo": _echo_facts(loop),
            "howls": 0 if loop.feedback is None else loop.feedback.caught,
        }


def _echo_facts(loop: LiveLoop) -> dict[str, Any] | None:
    """None without a sound card."""
    if loop.choice is None or not isinstance(loop.card, SoundCard):
        return None
    capture = loop.choice.capture
    return {
        "on": capture is not None and capture.wants_reference,
        "why": loop.choice.why,
        "reduction_db": None if capture is None else capture.reduction_db,
        "delay_ms": 0.0 if capture is None else capture.delay_ms,
        "drift_ppm": loop.card.drift_ppm,
    }


def _echo_words(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return "no sound card, no echo"
    cost = f"{facts['delay_ms']:.1f} ms" if facts["delay_ms"] else "no delay"
    if not facts["on"]:
        return f"as it is, {cost} ({facts['why']})"
    reduced = "not heard yet" if facts["reduction_db"] is None else f"reduced by {facts['reduction_db']:.0f} dB"
    return f"{reduced}, {cost} ({facts['why']})"


def _counts(counts: CardCounts) -> dict[str, int]:
    return {
        "underruns": counts.underruns,
        "overruns": counts.overruns,
        "reported_by_card": counts.reported,
        "lost_devices": counts.lost_devices,
    }


def panel(look: Look, settings: str, keys: str) -> RenderableType:
    """The picture of one moment, for 80 columns. One text: a table takes three times as long to be laid out."""
    picture = Text(no_wrap=True, overflow="ellipsis")

    def row(label: str, *parts: str | tuple[str, str] | Text) -> None:
        picture.append(f"  {label:<14}", "dim")
        for part in parts:
            picture.append(*part) if isinstance(part, tuple) else picture.append(part)
        picture.append("\n")

    figures, delays, counts = look.figures, look.delays, look.counts
    encode, decode = look.frame_ms
    you, heard = look.levels_db
    row("you", level_bar(you), ("  muted" if look.muted else "", "bold yellow"))
    row("heard", level_bar(heard))
    row("settings", settings)
    row("bitrate", f"{look.payload_kbps:.1f} kbps of codes, {look.wire_kbps:.1f} on the wire")
    late = encode + decode > look.deadline_ms
    row("frame time", (f"{encode:.1f} + {decode:.1f} ms of {look.deadline_ms:.1f} ms", "bold red" if late else ""))
    row("buffer", f"{figures.buffer_ms:.0f} ms, aims at {figures.target_ms:.0f} ms")
    parts = " + ".join(f"{_SHORT.get(name, name)} {ms:.0f}" for name, ms in delays.parts().items())
    row("mouth to ear", (f"{delays.total_ms:.0f} ms", "bold"), f" = {parts}")
    row(
        "losses",
        f"{100 * figures.concealed_share:.2f} % concealed, {figures.packets_lost} packets lost, "
        f"{figures.skipped_frames} left out",
    )
    row(
        "sound card",
        f"{counts['underruns']} underruns, {counts['overruns']} overruns, "
        f"{counts['reported_by_card']} reported, {counts['lost_devices']} times gone",
    )
    row("echo", printable(look.echo))
    for warning in look.warnings:
        picture.append(f"  {warning}\n", "bold red")
    row("keys", keys)
    picture.rstrip()
    return picture


def _warnings(loop: LiveLoop, figures: CallFigures) -> list[str]:
    warnings = []
    if not figures.connected:
        warnings.append("the connection is lost; the client reconnects")
    lost = getattr(loop.card, "lost", ())
    if lost:
        warnings.append(f"the audio {' and '.join(lost)} is gone: plug it in again, the call goes on")
    if loop.feedback is not None and loop.feedback.gain < 1:
        warnings.append(f"howling: turned down to {100 * loop.feedback.gain:.0f} % for some minutes; use headphones")
    return warnings


def summary(facts: dict[str, Any]) -> dict[str, str]:
    """The facts in words."""
    parts = " + ".join(f"{name} {ms:.0f}" for name, ms in facts["delay_ms"].items())
    rows = {
        "bitrate": f"{facts['payload_kbps']:.1f} kbps of codes, {facts['wire_kbps']:.1f} kbps on the wire",
        "mouth to ear": f"p50 {facts['mouth_to_ear_ms_p50']:.0f}, p95 {facts['mouth_to_ear_ms_p95']:.0f} ms ({parts})"
        if facts["mouth_to_ear_ms_p50"]
        else "nobody was heard",
        "frame time": f"p95 {facts['encode_ms_p95']:.1f} + {facts['decode_ms_p95']:.1f} ms "
        f"of {facts['frame_deadline_ms']:.1f} ms",
        "losses": f"{facts['packets_lost']} packets, {100 * facts['concealed_share']:.2f} % of the sound concealed, "
        f"{facts['skipped_frames']} frames left out",
        "sound card": f"{facts['underruns']} underruns, {facts['overruns']} overruns, "
        f"{facts['reported_by_card']} reported by it",
    }
    if facts["echo"] is not None:
        rows["echo"] = printable(_echo_words(facts["echo"]))
    if facts["skipped_seconds"]:
        rows["skipped"] = (
            f"{facts['skipped_seconds']:.1f} s of the clip, past when this machine, which had stood still, went on"
        )
    if facts["howls"]:
        rows["howling"] = f"caught {facts['howls']} times: use headphones"
    return rows
