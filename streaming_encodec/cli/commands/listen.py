"""`streaming-encodec listen`: what is said in a room, into a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.shared.calling import (
    CaOption,
    NameOption,
    RoomOption,
    TokenOption,
    Transport,
    TransportOption,
    UrlOption,
    link_facts,
    on_interrupt,
    read_token,
    tls_of,
    told_of_ways,
    urls_of,
)
from streaming_encodec.cli.shared.console import complain, minutes, note, print_facts, print_json
from streaming_encodec.cli.shared.error_text import error_text
from streaming_encodec.cli.shared.loading import LoadedModel, ModelOption, load_model
from streaming_encodec.cli.shared.options import JsonOption, ThreadsOption, use_threads
from streaming_encodec.cli.shared.trace import Trace, TraceOption, check_trace
from streaming_encodec.errors import CallError
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

if TYPE_CHECKING:
    from streaming_encodec.voice.statistics import ReceiverStatistics


def command(
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The sound file to write, such as out.wav or out.flac.")
    ],
    url: UrlOption = None,
    room: RoomOption = None,
    token: TokenOption = None,
    ca: CaOption = None,
    name: NameOption = None,
    transport: TransportOption = Transport.AUTO,
    model: ModelOption = DEFAULT_MODEL,
    max_codebooks: Annotated[
        int | None,
        typer.Option(min=1, max=32, help="Have the relay send so many codebooks at most: less bandwidth."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="Stop after so much sound.", show_default="when all have left"),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Stay when all speakers have left.")] = False,
    trace: TraceOption = None,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Write what is said in a room to a sound file, all speakers mixed.

    The file begins with the first word and ends when all speakers have left, after --seconds, or on Ctrl-C.
    """
    from streaming_encodec.audio.files.targets import check_target
    from streaming_encodec.audio.files.writer import SOUND_ENDINGS
    from streaming_encodec.client.client import VoiceClient
    from streaming_encodec.client.settings import ConnectionSettings

    check_target(target, SOUND_ENDINGS)
    check_trace(trace, [target])
    urls = urls_of(url)
    use_threads(threads)
    loaded = load_model(model)
    call = VoiceClient(
        urls,
        read_token(token),
        loaded.model,
        room=room,
        role="subscribe",
        connection=ConnectionSettings(
            tls_of(ca, urls), max_codebooks=max_codebooks, name=name, transport=transport.value
        ),
    )
    facts = asyncio.run(_listen(target, call, loaded, seconds, keep, trace))
    if as_json:
        print_json(facts)
    else:
        print_facts(
            f"{call.room} at {call.url} → {target}",
            {
                "sound": minutes(facts["seconds"]),
                "speakers": str(facts["speakers"]),
                "lost": f"{facts['packets_lost']} of {facts['packets_received'] + facts['packets_lost']} packets",
                "skipped": f"{facts['skipped_frames']} frames that came too late",
                "concealed": f"{100 * facts['concealed_share']:.2f} % of what was played",
                "buffer": f"{facts['mean_delay_ms']:.0f} ms on average",
                "transport": told_of_ways(facts["datagrams_received"], facts["packets_received"]),
                "connection": f"{facts['connects'] - 1} times lost and restored",
            },
        )
    if facts["failed"]:
        raise typer.Exit(1)


async def _listen(
    target: Path, call: Any, loaded: LoadedModel, seconds: float | None, keep: bool, trace: Path | None = None
) -> dict[str, Any]:
    from streaming_encodec.audio.files.writer import AudioWriter
    from streaming_encodec.live.figures import SpeakerTotals
    from streaming_encodec.voice.statistics import ReceiverStatistics

    rate, channels = loaded.config.sampling_rate, loaded.config.audio_channels
    wanted = None if seconds is None else round(seconds * rate)
    stop = on_interrupt()
    totals, now = SpeakerTotals(), ReceiverStatistics()
    seen: dict[int, ReceiverStatistics] = {}
    failed = False
    # Opened before anybody is called: what cannot be written is reported now, not at the first word.
    with Trace(trace) as diary, AudioWriter(target, rate, channels) as writer:
        diary.dials()
        async with call:
            diary.joined()
            note(f"listening in {call.room}; Ctrl-C stops")
            stopped = asyncio.create_task(stop.wait())
            heard = asyncio.create_task(call.wait_for_voice())
            await asyncio.wait({stopped, heard}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if heard.done():
                heard.result()
            heard.cancel()
            try:
                if not stop.is_set():
                    async with aclosing(call.receive()) as blocks:
                        async for block in blocks:
                            speakers = call.statistics.speakers.values()
                            now = totals.look(speakers)
                            seen |= {id(each): each for each in speakers}
                            playing = now.total_samples_received > 0
                            if playing:  # the buffer's first filling is not sound yet
                                diary.block(writer.samples, block.shape[1], speakers=_played(seen.values()))
                                writer.write(block)
                            if (
                                stop.is_set()
                                or (wanted is not None and writer.samples >= wanted)
                                or (
                                    not keep
                                    and playing
                                    and not call.speakers
                                    and not call.present
                                    and not call.others_returning
                                )
                            ):
                                break
            except CallError as error:  # what was heard so far is worth keeping
                complain(error_text(error))
                failed = True
            written = writer.samples
        return {
            "output": str(target),
            "room": call.room,
            "seconds": written / rate,
            "speakers": totals.speakers,
            "packets_received": now.packets_received,
            "packets_lost": now.packets_lost,
            "skipped_frames": now.skipped_frames,
            "concealed_share": now.concealed_share,
            "mean_delay_ms": now.mean_delay_ms,
            **link_facts(call.statistics),
            "interrupted": stop.is_set(),
            "failed": failed,
        }


def _played(speakers: Iterable[ReceiverStatistics]) -> list[dict[str, Any]]:
    """How far voices were played, for a trace."""
    return [
        {
            "frame": s.last_played_frame,
            "heard_s": s.last_played_timestamp,
            "played_samples": s.total_samples_received,
            "concealed_samples": s.concealed_samples,
        }
        for s in speakers
    ]
