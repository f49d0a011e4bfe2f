"""`streaming-encodec doctor`: can this machine call, and if not, what to do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from streaming_encodec.cli.shared.calling import CaOption, tls_of
from streaming_encodec.cli.shared.console import note, out, print_json
from streaming_encodec.cli.shared.error_text import option_hint
from streaming_encodec.cli.shared.loading import ModelOption, load_model
from streaming_encodec.cli.shared.options import (
    EngineOption,
    InputOption,
    JsonOption,
    OutputOption,
    ThreadsOption,
    bandwidth_of,
    use_threads,
)
from streaming_encodec.errors import CallError, CallErrorReason, ConfigError, StreamingEncodecError
from streaming_encodec.live.echo_path import TAIL_MS, Echo, EchoPath
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

_LOUDEST_DB, _LATEST_MS, _MOST_LATER_DB, _MOST_DRIFT_PPM = 6.0, 100.0, -15.0, 300.0
"""Of an echo that can be cancelled well: its level, its begin in the filter, what comes after the filter, the drift.
Simulated rooms in which cancellation reaches its marks come to -8, 25, -23 and 100."""
_COLOURS = {"ok": "green", "poor": "yellow", "bad": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: ``ok``, ``poor`` (it works, not well) or ``bad``; and what to do about it."""

    subject: str
    verdict: str
    details: str
    cure: str = ""


def command(
    url: Annotated[
        list[str] | None, typer.Option("--url", "-u", help="Also check whether this relay can be reached; repeatable.")
    ] = None,
    ca: CaOption = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="Play three sweeps, and measure the echo that the microphone hears.")
    ] = False,
    input_device: InputOption = None,
    output_device: OutputOption = None,
    model: ModelOption = DEFAULT_MODEL,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Check everything that a call needs: PortAudio, devices, rates, speed, relay.

    The exit code is 1 if something is bad. Nothing is played unless --loop is given.
    """
    if ca is not None and not url:
        raise typer.BadParameter("which relay? give --url", param_hint="--ca")
    tls = None if not url else tls_of(ca, url)
    use_threads(threads)
    findings = look_at_sound(input_device, output_device)
    if loop and all(finding.verdict != "bad" for finding in findings):
        note("playing three sweeps for 7 s: leave the room quiet, and the volume as in a call")
        findings += _look(lambda: look_at_loop(input_device, output_device), "loop")
    elif loop:
        findings.append(Finding("loop", "bad", "not measured: it takes a microphone and a speaker"))
    findings += [look_at_kernel(), *_look(lambda: look_at_speed(model, engine), "speed")]
    for each in url or ():
        findings += _look(partial(look_at_relay, each, tls), "relay")
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        table = Table(show_header=False)
        for finding in findings:
            cure = ("\n", ("→", "dim"), " ", finding.cure) if finding.cure else ()
            verdict = Text(finding.verdict, _COLOURS[finding.verdict])
            table.add_row(finding.subject, verdict, Text.assemble(finding.details, *cure))
        out().print(table)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


def _look(look: Callable[[], list[Finding]], subject: str) -> list[Finding]:
    """An error of the package is a finding; its message says what to do."""
    try:
        return look()
    except StreamingEncodecError as error:
        return [Finding(subject, "bad", str(error))]


def look_at_sound(input_device: str | None = None, output_device: str | None = None) -> list[Finding]:
    """PortAudio, a microphone and a speaker, each with the rate it would be opened at."""
    from streaming_encodec.audio.devices.portaudio import PortAudio

    backend = PortAudio()
    try:
        version, devices = backend.version(), backend.devices()
    except StreamingEncodecError as error:
        return [Finding("PortAudio", "bad", str(error))]
    from streaming_encodec.audio.devices.devices import choose_shape, find_device

    findings = [Finding("PortAudio", "ok", f"{version.split(',')[0]}, {len(devices)} devices")]
    for kind, name, wanted in (("input", "microphone", input_device), ("output", "speaker", output_device)):
        try:
            device = find_device(devices, kind, wanted)  # type: ignore[arg-type]  # one of the two
            rate, channels = choose_shape(backend, device, kind, 24_000)  # type: ignore[arg-type]
        except StreamingEncodecError as error:
            findings.append(Finding(name, "bad", str(error)))
            continue
        resampled = "" if rate == 24_000 else ", resampled to 24000 Hz (about 1 ms)"
        findings.append(Finding(name, "ok", f"{device.name} at {rate} Hz, {channels} channels{resampled}"))
    return findings


def look_at_loop(input_device: str | None = None, output_device: str | None = None) -> list[Finding]:
    """The echo from speaker to microphone; plays for some seconds. Raises DeviceError."""
    from streaming_encodec.audio.devices.card import SoundCard
    from streaming_encodec.live.echo_path import measure_echo_path

    card = SoundCard(24_000, input_device=input_device, output_device=output_device)
    try:
        path = measure_echo_path(card)
    finally:
        card.close()
    return loop_findings(path)


def loop_findings(path: EchoPath) -> list[Finding]:
    """What a measured echo means for a call."""
    if path.silent:
        cure = "is it muted, or forbidden to this program?"
        return [Finding("loop", "poor", "the microphone gives nothing but digital silence", cure)]
    if path.heard is None:
        details = "the microphone does not hear the speaker: nothing needs to be cancelled"
        return [Finding("loop", "ok", details, "with a loudspeaker: is it muted, or very soft?")]
    heard = path.heard
    findings = [
        Finding("echo delay", "ok", f"the echo comes back {heard.delay_ms:.0f} ms after the card took the sound"),
        _level_finding(path, heard),
        _drift_finding(heard),
    ]
    return [*findings, _cancellation_finding(heard)]


def _level_finding(path: EchoPath, heard: Echo) -> Finding:
    side = "below" if heard.level_db < 0 else "above"
    details = f"the echo is {abs(heard.level_db):.0f} dB {side} what was played"
    if path.clipped:
        return Finding("echo level", "poor", f"{details}, and the microphone clips", "turn the microphone down")
    if heard.level_db > _LOUDEST_DB:
        cure = "turn the speaker or the microphone down: who speaks here hardly gets through"
        return Finding("echo level", "poor", details, cure)
    return Finding("echo level", "ok", details)


def _drift_finding(heard: Echo) -> Finding:
    drift = heard.drift_ppm
    if drift is None:
        details = "the delay jumps: a device leaves out or repeats sound, and cancellation must learn again each time"
        return Finding("clock drift", "poor", details, "use one device for both, or a cable in place of Bluetooth")
    if drift == 0.0:
        return Finding("clock drift", "ok", "both devices run by the same clock, as far as can be seen")
    pace = "faster" if drift > 0 else "slower"
    details = f"the speaker's clock is {abs(drift):.0f} ppm {pace} than the microphone's"
    if abs(drift) > _MOST_DRIFT_PPM:
        return Finding("clock drift", "poor", details, "more than cards usually have: use one device for both")
    return Finding("clock drift", "ok", f"{details}; calls follow that")


def _cancellation_finding(heard: Echo) -> Finding:
    begins, tail = heard.begins_ms, TAIL_MS
    if not 0 <= begins <= tail:
        off = f"{-begins:.0f} ms before" if begins < 0 else f"{begins - tail:.0f} ms after the end of"
        details = f"it will not hold: the echo comes {off} what the canceller looks at"
        cure = "the devices misstate their delay: use a headset, or a speaker by cable"
        return Finding("cancellation", "bad", details, cure)
    details = f"the echo begins {begins:.0f} ms into the canceller's {tail:.0f} ms"
    details += f", what comes after those is {-heard.later_db:.0f} dB weaker"
    if begins > _LATEST_MS or heard.later_db > _MOST_LATER_DB:
        cure = "use a headset, or put the speaker nearer to the microphone"
        return Finding("cancellation", "poor", f"it will hold in part: {details}", cure)
    return Finding("cancellation", "ok", f"it will hold: {details}")


def look_at_kernel() -> Finding:
    """Whether the codec's own library runs here; without it, a slower engine does."""
    from streaming_encodec.engines.kernel.self_test import load_library, why_missing

    reason = why_missing()
    if reason is not None:
        return Finding(
            "kernel", "poor", "missing: calls take more of a core, and codes differ between machines", reason
        )
    return Finding("kernel", "ok", load_library().name)


def look_at_speed(model: str, engine: str) -> list[Finding]:
    """A frame's time against its deadline."""
    from streaming_encodec.engines import make_live_engine
    from streaming_encodec.live.speed import TIGHT, measure_speed

    loaded = load_model(model)
    fast = make_live_engine(engine, loaded.model)
    speed = measure_speed(loaded.model, fast, bandwidth_of(loaded, None))
    usual, slow, deadline = speed.usual_ms, speed.slow_ms, speed.deadline_ms
    details = (
        f"{loaded.name}, engine {fast.name}: a frame of {deadline:.1f} ms takes {usual:.1f} ms, "
        f"the slowest in twenty {slow:.1f} ms ({100 * usual / deadline:.0f} % of a core)"
    )
    lighter = "close other programs"
    if loaded.name != DEFAULT_MODEL:
        lighter += f", or take the lighter --model {DEFAULT_MODEL}"
    if usual > deadline:
        return [Finding("speed", "bad", details, f"too slow to talk: {lighter}")]
    if slow > TIGHT * deadline:
        return [Finding("speed", "poor", details, f"there will be drop-outs: {lighter}")]
    return [Finding("speed", "ok", details)]


def look_at_relay(url: str, tls: ssl.SSLContext | None = None) -> list[Finding]:
    """Whether something that speaks WebSocket and our protocol answers, and how soon."""
    return [asyncio.run(_visit(url, tls))]


def _unreached(error: CallError) -> Finding:
    cure = option_hint(error)
    if error.reason is CallErrorReason.UNREACHABLE:
        cure = "start one with `streaming-encodec serve`, or check host, port and firewall"
    return Finding("relay", "bad", str(error), cure)


async def _visit(url: str, tls: ssl.SSLContext | None = None) -> Finding:
    import time

    from streaming_encodec.transport.addresses import SUBPROTOCOL
    from streaming_encodec.transport.base import ConnectionEnded
    from streaming_encodec.transport.failures import ended_error, system_error
    from streaming_encodec.transport.websocket.client import WebSocketDialer

    begin = time.perf_counter()
    try:
        dialer = WebSocketDialer(url, tls)
        try:
            connection = await dialer.connect()
        except CallError as error:
            return _unreached(await dialer.diagnose(error))
    except ConfigError as error:
        return Finding("relay", "bad", str(error))
    opening_ms = 1000 * (time.perf_counter() - begin)
    try:
        async with asyncio.timeout(5.0):
            answer_ms = 1000 * await connection.ask()
        spoken = connection.subprotocol
    except ConnectionEnded as ended:
        return Finding("relay", "bad", f"{url} ends the connection at once", str(ended_error(url, ended)))
    except TimeoutError as error:
        return _unreached(system_error(url, error))
    finally:
        await connection.close()
    if spoken != SUBPROTOCOL:
        return Finding("relay", "bad", f"{url} is not a relay of this kind", "check the address")
    details = f"{url} opens in {opening_ms:.0f} ms and answers in {answer_ms:.0f} ms"
    if answer_ms > 150:
        return Finding("relay", "poor", details, "talk will feel late: use a relay nearer to you")
    return Finding("relay", "ok", details)
