"""`streaming-encodec send`: a file into a room, at the pace of speech."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from streaming_encodec.cli.calling import (
    DEFAULT_URL,
    CaOption,
    RoomOption,
    TokenOption,
    UrlOption,
    link_facts,
    on_interrupt,
    read_token,
    tls_of,
)
from streaming_encodec.cli.console import complain, minutes, print_facts, print_json, progress
from streaming_encodec.cli.loading import DEFAULT_MODEL, LoadedModel, ModelOption, load_model
from streaming_encodec.cli.options import (
    BandwidthOption,
    JsonOption,
    ThreadsOption,
    bandwidth_of,
    use_threads,
)

_BLOCK_MS = 20


def send_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Any sound file that libsndfile reads.")],
    url: UrlOption = DEFAULT_URL,
    room: RoomOption = None,
    token: TokenOption = None,
    ca: CaOption = None,
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    frames_per_packet: Annotated[
        int, typer.Option(min=1, max=6, help="Frames in a packet: more save headers and cost delay.")
    ] = 1,
    redundancy_frames: Annotated[
        int,
        typer.Option(min=0, max=32, help="Past frames repeated coarsely in each packet, for lossy links."),
    ] = 0,
    dtx: Annotated[bool, typer.Option("--dtx", help="Send little while nobody speaks.")] = False,
    adapt: Annotated[bool, typer.Option("--adapt/--no-adapt", help="Let listeners' reports choose the rate.")] = True,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Send a sound file into a room as live speech, through a relay; others hear it with `listen`."""
    from streaming_encodec.audio.files import AudioReader
    from streaming_encodec.net.client import VoiceClient
    from streaming_encodec.voice.sender import SenderSettings

    with AudioReader(source):
        pass  # a wrong file is told before a model is loaded
    use_threads(threads)
    loaded = load_model(model)
    call = VoiceClient(
        url,
        read_token(token),
        loaded.model,
        room=room,
        role="publish",
        bandwidth=bandwidth_of(loaded, bandwidth),
        sending=SenderSettings(
            frames_per_packet=frames_per_packet,
            redundant_codebooks=min(2, loaded.config.num_quantizers),
            redundant_frames=redundancy_frames,
        ),
        dtx=dtx,
        adapt=adapt,
        tls=tls_of(ca),
    )
    facts = asyncio.run(_send(source, call, loaded))
    if as_json:
        print_json(facts)
    else:
        print_facts(
            f"{source} → {call.room} at {url}",
            {
                "sent": minutes(facts["seconds"]),
                "packets": f"{facts['packets_sent']} ({facts['wire_kbps']:.1f} kbps with their headers)",
                "dropped": f"{facts['packets_dropped']} packets",
                "connection": f"{facts['connects'] - 1} times lost and mended",
            },
        )
    if facts["interrupted"]:
        complain(f"interrupted after {minutes(facts['seconds'])}")
        raise typer.Exit(1)


async def _send(source: Path, call: Any, loaded: LoadedModel) -> dict[str, Any]:
    from streaming_encodec.audio.files import AudioReader, rechunk

    rate, channels = loaded.config.sampling_rate, loaded.config.audio_channels
    stop = on_interrupt()
    loop = asyncio.get_running_loop()
    samples = 0
    with AudioReader(source, rate, channels) as reader, progress("sending", reader.samples) as advance:
        async with call:
            begin_s = loop.time()
            for block in rechunk(iter(reader), rate * _BLOCK_MS // 1000):
                await asyncio.sleep(max(0.0, begin_s + samples / rate - loop.time()))
                if stop.is_set():
                    break
                await call.send(block)
                samples += block.shape[1]
                advance(block.shape[1])
    seconds = samples / rate
    facts = link_facts(call.statistics)
    return {
        "input": str(source),
        "room": call.room,
        "seconds": seconds,
        **facts,
        "wire_kbps": 8 * facts["bytes_sent"] / seconds / 1000 if seconds else 0.0,
        "interrupted": stop.is_set(),
    }


command = send_command
