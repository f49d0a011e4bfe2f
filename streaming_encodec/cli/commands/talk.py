"""`streaming-encodec talk`: a conversation in a room of a relay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.commands.demo import InputOption, JitterOption, LossOption, OutputOption, RecordOption
from streaming_encodec.cli.shared.calling import DEFAULT_URL, CaOption, TokenOption, UrlOption, read_token, tls_of
from streaming_encodec.cli.shared.console import complain, name_device, note, print_facts, print_json
from streaming_encodec.cli.shared.error_text import error_text
from streaming_encodec.cli.shared.loading import LoadedModel, ModelOption, load_model
from streaming_encodec.cli.shared.options import (
    FRAMES_PER_PACKET,
    BandwidthOption,
    EngineOption,
    FramesPerPacketOption,
    JsonOption,
    ThreadsOption,
    bandwidth_of,
    use_threads,
)
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

if TYPE_CHECKING:
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.live.call_line import CallLine

_KEYS = "+/- bandwidth   m mute   q hang up"
_FAR_BEHIND_S = 0.8
"""Twice the most that the jitter buffer aims at. What lies further back is left out: on a machine too slow for the
model delay would grow to all that the buffer holds."""


def talk_command(
    room: Annotated[str, typer.Argument(metavar="ROOM", help="The room: all who name it hear each other.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca: CaOption = None,
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    frames_per_packet: FramesPerPacketOption = FRAMES_PER_PACKET,
    input_device: InputOption = None,
    output_device: OutputOption = None,
    clip: Annotated[
        Path | None,
        typer.Option("--clip", help="Say this sound file instead of the microphone's; needs --record."),
    ] = None,
    loss: LossOption = 0.0,
    jitter: JitterOption = 0.0,
    record: RecordOption = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.5, help="Hang up after so long.", show_default="on q or Ctrl-C")
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

    if clip is not None and record is None:
        raise typer.BadParameter("say where what is heard goes: --record FILE", param_hint="--clip")
    if record is not None:
        check_target(record, SOUND_ENDINGS, [clip])
    reader = None if clip is None else AudioReader(clip)
    facts = _talk(
        load_model(model),
        _Wishes(
            room=room,
            url=url,
            token=token,
            ca=ca,
            bandwidth=bandwidth,
            frames_per_packet=frames_per_packet,
            input_device=input_device,
            output_device=output_device,
            clip=reader,
            loss=loss,
            jitter=jitter,
            record=record,
            seconds=seconds,
        ),
        engine,
        threads,
    )
    if as_json:
        print_json(facts)
    else:
        _print(room, facts)
    if facts["failure"]:
        complain(facts["failure"])
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Wishes:
    room: str
    url: str
    token: str | None
    ca: Path | None
    bandwidth: float | None
    frames_per_packet: int
    input_device: str | None
    output_device: str | None
    clip: AudioReader | None
    loss: float
    jitter: float
    record: Path | None
    seconds: float | None


def _talk(loaded: LoadedModel, wishes: _Wishes, engine: str, threads: int) -> dict[str, Any]:
    from contextlib import ExitStack

    from streaming_encodec.audio.devices.card import SoundCard
    from streaming_encodec.audio.devices.devices import likely_loudspeaker
    from streaming_encodec.audio.devices.portaudio import PortAudio
    from streaming_encodec.audio.files.sound import AudioWriter
    from streaming_encodec.cli.shared.live_run import LiveSession, check_speed
    from streaming_encodec.client.client import VoiceClient
    from streaming_encodec.engines import make_live_engine
    from streaming_encodec.errors import CallError
    from streaming_encodec.live.call_line import CallLine
    from streaming_encodec.live.file_card import FileCard
    from streaming_encodec.live.howl import HowlGuard
    from streaming_encodec.live.line import LIVE_PLAYOUT
    from streaming_encodec.live.loop import LiveLoop
    from streaming_encodec.live.ready import ready_for_a_call
    from streaming_encodec.voice.detour import Detour
    from streaming_encodec.voice.sender import SenderSettings

    use_threads(threads)
    kbps = bandwidth_of(loaded, wishes.bandwidth)
    rate = loaded.config.sampling_rate
    fast = make_live_engine(engine, loaded.model)
    check_speed(loaded, fast, kbps)
    with ExitStack() as stack:
        stack.enter_context(ready_for_a_call())
        card: SoundCard | FileCard
        if wishes.clip is not None:
            card = FileCard(_read(wishes.clip, rate), rate, tail_s=1.0)
        else:
            card = SoundCard(PortAudio(), rate, input_device=wishes.input_device, output_device=wishes.output_device)
            stack.callback(card.close)
            for kind, name in card.names.items():
                name_device(kind, name)
        on_heard = None
        if wishes.record is not None:
            on_heard = stack.enter_context(AudioWriter(wishes.record, rate)).write
        call = VoiceClient(
            wishes.url,
            read_token(wishes.token),
            loaded.model,
            room=wishes.room,
            role="both",
            bandwidth=kbps,
            engine=fast,
            sending=SenderSettings(frames_per_packet=wishes.frames_per_packet),
            tls=tls_of(wishes.ca, wishes.url),
            detour=Detour(wishes.loss / 100, wishes.jitter) if wishes.loss or wishes.jitter else None,
            playout=replace(LIVE_PLAYOUT, capacity_frames=round(_FAR_BEHIND_S * loaded.config.frame_rate)),
        )
        line = CallLine(call)
        stack.callback(line.close)
        guard = None
        if isinstance(card, SoundCard):
            note(f"you are in {wishes.room}; with loudspeakers the others hear themselves: wear headphones")
            guard = HowlGuard(rate)
            if likely_loudspeaker(card.names["output"]):
                note(
                    f"{card.names['output']} looks like a loudspeaker: if another has one too it will howl, and is "
                    "silenced when it does; press m while you listen, or wear headphones"
                )
        session = LiveSession(
            LiveLoop(card, line, guard=guard, on_heard=on_heard),
            settings=lambda: f"{line.bandwidth:g} kbps, {len(call.present)} others in {wishes.room}",
            keys=_KEYS,
            on_key=lambda key: _on_key(key, loaded, line),
        )
        failure = None
        try:
            facts = session.run(wishes.seconds, done=(lambda: card.done) if isinstance(card, FileCard) else None)
        except CallError as error:
            failure = error_text(error)
            facts = session.facts()
        connects = call.statistics.link.connects
    return {
        "room": wishes.room,
        "model": loaded.name,
        **facts,
        "connects": connects,
        "output": None if wishes.record is None else str(wishes.record),
        "failure": failure,
    }


def _on_key(key: str, loaded: LoadedModel, line: CallLine) -> None:
    from streaming_encodec.cli.shared.live_run import next_bandwidth

    if key in "+-=_":
        line.bandwidth = next_bandwidth(loaded.config.target_bandwidths, line.bandwidth, key in "+=")


def _read(clip: AudioReader, rate: int) -> Any:
    import numpy as np

    with clip as reader:
        reader.convert(rate, 1)
        return np.concatenate([np.zeros((1, 0), np.float32), *reader], axis=1)


def _print(room: str, facts: dict[str, Any]) -> None:
    from streaming_encodec.cli.shared.live_view import summary

    rows = summary(facts)
    rows["connection"] = f"{facts['connects'] - 1} times lost and mended"
    if facts["output"]:
        rows["output"] = facts["output"]
    print_facts(f"{facts['seconds']:.1f} s in {room}", rows)


command = talk_command
