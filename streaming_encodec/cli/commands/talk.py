"""`streaming-encodec talk`: a conversation in a room of a relay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.shared.calling import (
    CaOption,
    NameOption,
    TokenOption,
    Transport,
    TransportOption,
    UrlOption,
    read_token,
    tls_of,
    urls_of,
)
from streaming_encodec.cli.shared.console import complain, note, print_facts, print_json
from streaming_encodec.cli.shared.error_text import error_text
from streaming_encodec.cli.shared.loading import LoadedModel, ModelOption, load_model
from streaming_encodec.cli.shared.options import (
    FRAMES_PER_PACKET,
    BandwidthOption,
    EchoOption,
    EngineOption,
    FramesPerPacketOption,
    GainOption,
    InputOption,
    JitterOption,
    JsonOption,
    LossOption,
    NoiseSuppressionOption,
    OutputOption,
    RecordOption,
    ThreadsOption,
    bandwidth_of,
    use_threads,
)
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

if TYPE_CHECKING:
    from streaming_encodec.audio.devices.card import SoundCard
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.client.threaded import ThreadedVoiceClient
    from streaming_encodec.live.capture import CaptureSettings
    from streaming_encodec.voice.network import NetworkImpairment

_KEYS = "+/- bandwidth   m mute   q hang up"
_FAR_BEHIND_S = 0.8
"""Twice the most that the jitter buffer aims at. What lies further back is left out: on a machine too slow for the
model delay would grow to all that the buffer holds."""


def command(
    room: Annotated[str, typer.Argument(metavar="ROOM", help="The room: all who name it hear each other.")],
    url: UrlOption = None,
    token: TokenOption = None,
    ca: CaOption = None,
    name: NameOption = None,
    transport: TransportOption = Transport.AUTO,
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    frames_per_packet: FramesPerPacketOption = FRAMES_PER_PACKET,
    input_device: InputOption = None,
    output_device: OutputOption = None,
    echo: EchoOption = "auto",
    noise_suppression: NoiseSuppressionOption = False,
    gain: GainOption = False,
    clip: Annotated[
        Path | None,
        typer.Option("--clip", help="Say this sound file instead of the microphone's; needs --record."),
    ] = None,
    loss: LossOption = 0.0,
    jitter: JitterOption = 0.0,
    record: RecordOption = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.5, help="End the call after this time.", show_default="on q or Ctrl-C")
    ] = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Talk with everybody in ROOM, through a relay that `streaming-encodec serve` runs.

    With --clip and --record it needs no sound devices: it says a file and records what it hears until the
    file ends.
    """
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.audio.files.targets import check_target
    from streaming_encodec.audio.files.writer import SOUND_ENDINGS
    from streaming_encodec.cli.shared.live_command import check_speed
    from streaming_encodec.client.settings import CodecSettings, ConnectionSettings
    from streaming_encodec.client.threaded import ThreadedVoiceClient
    from streaming_encodec.engines import make_live_engine
    from streaming_encodec.live.capture import CaptureSettings, EchoMode
    from streaming_encodec.live.loop import LIVE_PLAYOUT
    from streaming_encodec.voice.network import NetworkImpairment
    from streaming_encodec.voice.sender import SenderSettings

    if clip is not None and record is None:
        raise typer.BadParameter("say where what is heard goes: --record FILE", param_hint="--clip")
    if record is not None:
        check_target(record, SOUND_ENDINGS, [clip])
    reader = None if clip is None else AudioReader(clip)
    urls = urls_of(url)
    use_threads(threads)
    loaded = load_model(model)
    kbps = bandwidth_of(loaded, bandwidth)
    fast = make_live_engine(engine, loaded.model)
    network = NetworkImpairment(loss / 100, jitter)
    call = ThreadedVoiceClient(
        urls,
        read_token(token),
        loaded.model,
        room=room,
        role="both",
        codec=CodecSettings(kbps, fast, SenderSettings(frames_per_packet=frames_per_packet)),
        playout=replace(LIVE_PLAYOUT, capacity_frames=round(_FAR_BEHIND_S * loaded.config.frame_rate)),
        connection=ConnectionSettings(
            tls_of(ca, urls), impairment=network if loss or jitter else None, name=name, transport=transport.value
        ),
    )
    check_speed(loaded, fast, kbps)
    capture = CaptureSettings(EchoMode(echo), noise_suppression, gain)
    facts = _talk(call, network, loaded, reader, (input_device, output_device), capture, record, seconds)
    if as_json:
        print_json(facts)
    else:
        _print(room, facts)
    if facts["failure"]:
        complain(facts["failure"])
        raise typer.Exit(1)


def _talk(
    call: ThreadedVoiceClient,
    network: NetworkImpairment,
    loaded: LoadedModel,
    clip: AudioReader | None,
    devices: tuple[str | None, str | None],
    capture: CaptureSettings,
    record: Path | None,
    seconds: float | None,
) -> dict[str, Any]:
    from contextlib import ExitStack

    from streaming_encodec.cli.shared.live_command import change_bandwidth, live_session, open_card, read_clip
    from streaming_encodec.errors import CallError
    from streaming_encodec.live.figures import CallMeter
    from streaming_encodec.live.file_card import FileCard
    from streaming_encodec.live.ready import ready_for_a_call

    rate = call.format.sample_rate
    with ExitStack() as stack:
        stack.enter_context(ready_for_a_call())
        card: SoundCard | FileCard
        if clip is not None:
            card = FileCard(read_clip(clip, rate), rate, tail_s=1.0)
        else:
            note(f"you are in {call.room}")
            card = sound_card = open_card(rate, *devices)
            stack.callback(sound_card.close)
        stack.enter_context(call)
        # Of the way to the others only this end is known: for a speaker as far from the relay it is a round trip.
        meter = CallMeter(call, call, lambda: 1000 * call.round_trip_s + network.jitter_ms)
        session = stack.enter_context(
            live_session(
                card,
                call,
                call,
                meter.look,
                record=record,
                capture=capture,
                settings=lambda: f"{call.bandwidth:g} kbps over {call.transport}, {_others(call)} in {call.room}",
                keys=_KEYS,
                on_key=lambda key: change_bandwidth(key, loaded.config.target_bandwidths, call),
            )
        )
        failure = None
        try:
            facts = session.run(seconds)
        except CallError as error:
            failure = error_text(error)
            facts = session.facts()
    return {
        "room": call.room,
        "model": loaded.name,
        **facts,
        "connects": call.statistics.link.connects,
        "datagrams_sent": call.statistics.link.datagrams_sent,
        "datagrams_received": call.statistics.link.datagrams_received,
        "output": None if record is None else str(record),
        "failure": failure,
    }


def _others(call: ThreadedVoiceClient) -> str:
    """How many are there besides, and what they are called."""
    present, names = call.present, call.names
    called = ", ".join(names[number] for number in sorted(present) if number in names)
    return f"{len(present)} others" + (f" ({called})" if called else "")


def _print(room: str, facts: dict[str, Any]) -> None:
    from streaming_encodec.cli.shared.live_view import summary

    rows = summary(facts)
    rows["connection"] = f"{facts['connects'] - 1} times lost and restored"
    if facts["output"]:
        rows["output"] = facts["output"]
    print_facts(f"{facts['seconds']:.1f} s in {room}", rows)
