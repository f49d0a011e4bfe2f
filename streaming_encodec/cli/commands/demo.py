"""`streaming-encodec demo`: hear yourself through the whole path, live."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.shared.console import note, print_facts, print_json
from streaming_encodec.cli.shared.loading import LoadedModel, ModelOption, caveat, load_model
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
from streaming_encodec.errors import DeviceError, MissingExtraError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL
from streaming_encodec.types import Pcm

if TYPE_CHECKING:
    from streaming_encodec.audio.devices.card import SoundCard
    from streaming_encodec.cli.shared.live_command import LiveSession
    from streaming_encodec.live.capture import CaptureSettings
    from streaming_encodec.live.file_card import FileCard
    from streaming_encodec.live.own_call import OwnCall

CLIP_RECORD = Path("demo.wav")
"""What a clip becomes without --record."""

_LOSSES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3)
_JITTERS_MS = (0.0, 5.0, 20.0, 50.0)
_KEYS = "+/- bandwidth   l loss   j jitter   m mute   q quit"


def command(
    clip: Annotated[Path | None, typer.Option("--clip", help="Send this sound file instead of the microphone.")] = None,
    loss: LossOption = 0.0,
    jitter: JitterOption = 0.0,
    bandwidth: BandwidthOption = None,
    frames_per_packet: FramesPerPacketOption = FRAMES_PER_PACKET,
    model: ModelOption = DEFAULT_MODEL,
    record: RecordOption = None,
    input_device: InputOption = None,
    output_device: OutputOption = None,
    echo: EchoOption = "auto",
    noise_suppression: NoiseSuppressionOption = False,
    gain: GainOption = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.5, help="Stop after so long.", show_default="on q or Ctrl-C")
    ] = None,
    engine: EngineOption = "auto",
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Speak and hear yourself through encoder, packets, a relay on this machine, jitter buffer and decoder.

    With a microphone and a speaker it runs live, with meters and keys. Through loudspeakers the echo is cancelled; a
    loop that howls all the same is silenced. Without devices it runs a clip through the same path, at the same pace,
    and writes demo.wav and demo.png.
    """
    from streaming_encodec.audio.files.atomic import check_writable
    from streaming_encodec.audio.files.bundled import bundled_clip
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.audio.files.targets import check_target
    from streaming_encodec.audio.files.writer import SOUND_ENDINGS
    from streaming_encodec.cli.shared.live_command import check_speed, read_clip
    from streaming_encodec.client.settings import CodecSettings
    from streaming_encodec.engines import make_live_engine
    from streaming_encodec.live.capture import CaptureSettings, EchoMode
    from streaming_encodec.live.file_card import FileCard
    from streaming_encodec.live.own_call import OwnCall
    from streaming_encodec.live.ready import ready_for_a_call
    from streaming_encodec.voice.network import NetworkImpairment
    from streaming_encodec.voice.sender import SenderSettings

    if record is not None or clip is not None:
        check_target(record or CLIP_RECORD, SOUND_ENDINGS, [clip])
        check_writable((record or CLIP_RECORD).with_suffix(".png"))
    reader = None if clip is None else AudioReader(clip)
    use_threads(threads)
    loaded = load_model(model)
    kbps, rate = bandwidth_of(loaded, bandwidth), loaded.config.sampling_rate
    fast = make_live_engine(engine, loaded.model)
    codec = CodecSettings(kbps, fast, SenderSettings(frames_per_packet=frames_per_packet), adapt=False)
    with ExitStack() as stack:
        stack.enter_context(ready_for_a_call())
        card = None if reader is not None else _open_card(rate, input_device, output_device)
        if card is not None:
            stack.callback(card.close)
        check_speed(loaded, fast, kbps, must=card is not None)
        call = stack.enter_context(OwnCall(loaded.model, codec, NetworkImpairment(loss / 100, jitter)))
        if card is None:
            sound = read_clip(reader or AudioReader(bundled_clip()), rate, seconds)
            facts = _run_clip(FileCard(sound, rate), sound, loaded, call, record or CLIP_RECORD)
        else:
            capture = CaptureSettings(EchoMode(echo), noise_suppression, gain)
            with _session(card, loaded, call, record, capture) as session:
                facts = session.run(seconds)
            facts |= {"devices": card.names, "output": None if record is None else str(record)}
    facts = {"model": loaded.name, "weights": loaded.weights, "engine": fast.name, **facts}
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _open_card(rate: int, input_device: str | None, output_device: str | None) -> SoundCard | None:
    """The devices, or None (and a note) where there are none and none were asked for."""
    from streaming_encodec.cli.shared.live_command import open_card

    try:
        return open_card(rate, input_device, output_device)
    except DeviceError as error:
        if input_device is not None or output_device is not None:
            raise
        note(f"{error}. Until then a clip goes through the same path")
        return None


def _session(
    card: SoundCard | FileCard, loaded: LoadedModel, call: OwnCall, record: Path | None, capture: CaptureSettings
) -> AbstractContextManager[LiveSession]:
    from streaming_encodec.cli.shared.live_command import live_session

    return live_session(
        card,
        call.speaker,
        call.listener,
        call.figures,
        record=record,
        capture=capture,
        settings=lambda: _settings(call),
        keys=_KEYS,
        on_key=lambda key: _on_key(key, loaded, call),
    )


def _run_clip(card: FileCard, sound: Pcm, loaded: LoadedModel, call: OwnCall, target: Path) -> dict[str, Any]:
    from streaming_encodec.audio.files.writer import AudioWriter
    from streaming_encodec.cli.shared.picture import draw_call
    from streaming_encodec.live.capture import CaptureSettings

    picture, rate = target.with_suffix(".png"), call.speaker.format.sample_rate
    with AudioWriter(target, rate) as writer, _session(card, loaded, call, None, CaptureSettings()) as session:
        facts = session.run() | {"devices": {}, "output": str(target), "picture": None}
        writer.write(card.heard)
    try:
        draw_call(picture, sound[0], card.heard[0], rate, session.history)
    except MissingExtraError as error:
        note(str(error))
        return facts
    return facts | {"picture": str(picture)}


def _settings(call: OwnCall) -> str:
    network = call.impairment
    return f"{call.speaker.bandwidth:g} kbps, {100 * network.loss:g} % loss, {network.jitter_ms:g} ms jitter"


def _on_key(key: str, loaded: LoadedModel, call: OwnCall) -> None:
    from streaming_encodec.cli.shared.live_command import change_bandwidth

    network = call.impairment
    if key == "l":
        network.set(_after(_LOSSES, network.loss), network.jitter_ms)
    elif key == "j":
        network.set(network.loss, _after(_JITTERS_MS, network.jitter_ms))
    else:
        change_bandwidth(key, loaded.config.target_bandwidths, call.speaker)


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
