"""`streaming-encodec demo`: hear yourself through the whole path, live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.shared.console import name_device, note, print_facts, print_json
from streaming_encodec.cli.shared.loading import LoadedModel, ModelOption, caveat, load_model
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
from streaming_encodec.errors import DeviceError, MissingExtraError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

if TYPE_CHECKING:
    from streaming_encodec.audio.devices.card import SoundCard
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.live.loop_line import LoopLine

InputOption = Annotated[
    str | None,
    typer.Option("--input", "-i", help="Microphone: number or part of its name.", show_default="the system's"),
]
OutputOption = Annotated[
    str | None,
    typer.Option("--output", "-o", help="Speaker: number or part of its name.", show_default="the system's"),
]
LossOption = Annotated[
    float, typer.Option(min=0, max=50, help="To try things: lose so many per cent of the packets that arrive.")
]
JitterOption = Annotated[
    float, typer.Option(min=0, max=500, help="To try things: delay what arrives by so many ms on average.")
]
RecordOption = Annotated[Path | None, typer.Option("--record", help="Also write what is heard to this sound file.")]

CLIP_RECORD = Path("demo.wav")
"""What a clip becomes without --record."""

_LOSSES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3)
_JITTERS_MS = (0.0, 5.0, 20.0, 50.0)
_KEYS = "+/- bandwidth   l loss   j jitter   m mute   q quit"


def demo_command(
    clip: Annotated[Path | None, typer.Option("--clip", help="Send this sound file instead of the microphone.")] = None,
    loss: LossOption = 0.0,
    jitter: JitterOption = 0.0,
    bandwidth: BandwidthOption = None,
    frames_per_packet: FramesPerPacketOption = FRAMES_PER_PACKET,
    model: ModelOption = DEFAULT_MODEL,
    record: RecordOption = None,
    input_device: InputOption = None,
    output_device: OutputOption = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.5, help="Stop after so long.", show_default="on q or Ctrl-C")
    ] = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Speak and hear yourself through encoder, packets, a relay on this machine, jitter buffer and decoder.

    With a microphone and a speaker it runs live, with meters and keys. Wear headphones: through loudspeakers a live
    loop howls, and is silenced when it does. Without devices it runs a clip through the same path, at the same pace,
    and writes demo.wav and demo.png.
    """
    from streaming_encodec.audio.files.atomic import check_writable
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.audio.files.targets import check_target
    from streaming_encodec.audio.files.writer import SOUND_ENDINGS
    from streaming_encodec.cli.shared.live_run import check_speed
    from streaming_encodec.engines import make_live_engine
    from streaming_encodec.live.loop_line import LoopLine
    from streaming_encodec.live.ready import ready_for_a_call
    from streaming_encodec.voice.detour import Detour

    if record is not None or clip is not None:
        check_target(record or CLIP_RECORD, SOUND_ENDINGS, [clip])
        check_writable((record or CLIP_RECORD).with_suffix(".png"))
    reader = None if clip is None else AudioReader(clip)
    use_threads(threads)
    loaded = load_model(model)
    kbps = bandwidth_of(loaded, bandwidth)
    fast = make_live_engine(engine, loaded.model)
    with ready_for_a_call():
        card = None if clip is not None else _open_card(loaded, input_device, output_device)
        try:
            check_speed(loaded, fast, kbps, must=card is not None)
            line = LoopLine(
                loaded.model, kbps, engine=fast, frames_per_packet=frames_per_packet, detour=Detour(loss / 100, jitter)
            )
            try:
                if card is None:
                    facts = _run_clip(loaded, line, reader, record or CLIP_RECORD, seconds)
                else:
                    facts = _run_live(loaded, line, card, record, seconds)
            finally:
                line.close()
        finally:
            if card is not None:
                card.close()
    facts = {"model": loaded.name, "weights": loaded.weights, "engine": fast.name, **facts}
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _open_card(loaded: LoadedModel, input_device: str | None, output_device: str | None) -> SoundCard | None:
    """The devices, or None (and a note) where there are none and none were asked for."""
    from streaming_encodec.audio.devices.card import SoundCard
    from streaming_encodec.audio.devices.portaudio import PortAudio

    try:
        return SoundCard(
            PortAudio(),
            loaded.config.sampling_rate,
            input_device=input_device,
            output_device=output_device,
        )
    except DeviceError as error:
        if input_device is not None or output_device is not None:
            raise
        note(f"{error}. Until then a clip goes through the same path")
        return None


def _run_live(
    loaded: LoadedModel, line: LoopLine, card: SoundCard, record: Path | None, seconds: float | None
) -> dict[str, Any]:
    from contextlib import ExitStack

    from streaming_encodec.audio.devices.devices import likely_loudspeaker
    from streaming_encodec.audio.files.sound import AudioWriter
    from streaming_encodec.cli.shared.live_run import LiveSession
    from streaming_encodec.live.howl import HowlGuard
    from streaming_encodec.live.loop import LiveLoop

    note("wear headphones: what the speaker plays, the microphone hears again, and it howls")
    if likely_loudspeaker(card.names["output"]):
        note(f"{card.names['output']} looks like a loudspeaker: a howl is silenced, but headphones are the cure")
    for kind, name in card.names.items():
        name_device(kind, name)
    with ExitStack() as stack:
        on_heard = None
        if record is not None:
            on_heard = stack.enter_context(AudioWriter(record, line.sample_rate)).write
        loop = LiveLoop(card, line, guard=HowlGuard(line.sample_rate), on_heard=on_heard)
        session = LiveSession(
            loop,
            settings=lambda: _settings(line),
            keys=_KEYS,
            on_key=lambda key: _on_key(key, loaded, line),
        )
        facts = session.run(seconds)
    return {"devices": card.names, **facts, "output": None if record is None else str(record)}


def _run_clip(
    loaded: LoadedModel, line: LoopLine, clip: AudioReader | None, target: Path, seconds: float | None
) -> dict[str, Any]:
    import numpy as np

    from streaming_encodec.audio.files.sound import AudioReader, AudioWriter
    from streaming_encodec.cli.shared.live_run import LiveSession
    from streaming_encodec.cli.shared.picture import draw_call
    from streaming_encodec.live.file_card import FileCard
    from streaming_encodec.live.loop import LiveLoop

    rate = line.sample_rate
    with clip or AudioReader(bundled_clip()) as reader:
        reader.convert(rate, 1)
        sound = np.concatenate([np.zeros((1, 0), np.float32), *reader], axis=1)
    if seconds is not None:
        sound = sound[:, : round(seconds * rate)]
    picture = target.with_suffix(".png")
    with AudioWriter(target, rate) as writer:
        card = FileCard(sound, rate)
        session = LiveSession(
            LiveLoop(card, line),
            settings=lambda: _settings(line),
            keys=_KEYS,
            on_key=lambda key: _on_key(key, loaded, line),
        )
        facts = session.run(done=lambda: card.done)
        heard = card.heard
        writer.write(heard)
    try:
        draw_call(picture, sound[0], heard[0], rate, session.history)
    except MissingExtraError as error:
        note(str(error))
        return {"devices": {}, **facts, "output": str(target), "picture": None}
    return {"devices": {}, **facts, "output": str(target), "picture": str(picture)}


def bundled_clip() -> Path:
    """The piece of speech that comes with the package."""
    from importlib.resources import files

    return Path(str(files("streaming_encodec"))) / "assets" / "speech.flac"


def _settings(line: LoopLine) -> str:
    return f"{line.bandwidth:g} kbps, {100 * line.detour.loss:g} % loss, {line.detour.jitter_ms:g} ms jitter"


def _on_key(key: str, loaded: LoadedModel, line: LoopLine) -> None:
    from streaming_encodec.cli.shared.live_run import next_bandwidth

    if key in "+-=_":
        line.bandwidth = next_bandwidth(loaded.config.target_bandwidths, line.bandwidth, key in "+=")
    elif key == "l":
        line.detour.set(_after(_LOSSES, line.detour.loss), line.detour.jitter_ms)
    elif key == "j":
        line.detour.set(line.detour.loss, _after(_JITTERS_MS, line.detour.jitter_ms))


def _after(choices: tuple[float, ...], now: float) -> float:
    """The next larger choice, and from the largest back to the first."""
    return next((choice for choice in choices if choice > now), choices[0])


def _print(facts: dict[str, Any]) -> None:
    from streaming_encodec.cli.shared.live_view import summary

    rows = {"model": f"{facts['model']}{caveat(facts['weights'])}, engine {facts['engine']}", **summary(facts)}
    for name in ("output", "picture"):
        if facts.get(name):
            rows[name] = facts[name]
    print_facts(f"{facts['seconds']:.1f} s through the whole path", rows)


command = demo_command
