"""`streaming-encodec send`: a file at the pace of speech, or the microphone, into a room."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, aclosing
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
from streaming_encodec.cli.shared.console import complain, minutes, note, print_facts, print_json, progress
from streaming_encodec.cli.shared.inputs import SourceHelp, input_facts, told_of_input
from streaming_encodec.cli.shared.loading import LoadedModel, ModelOption, load_model
from streaming_encodec.cli.shared.options import (
    FRAMES_PER_PACKET,
    BandwidthOption,
    FramesPerPacketOption,
    InputOption,
    JsonOption,
    ThreadsOption,
    bandwidth_of,
    use_threads,
)
from streaming_encodec.cli.shared.trace import Trace, TraceOption, check_trace
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL
from streaming_encodec.voice.pace import FilePace
from streaming_encodec.wire.wire_size import wire_bytes

if TYPE_CHECKING:
    from streaming_encodec.audio.devices.card import SoundCard
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.types import Pcm

_BLOCK_MS = 20
_PUMPED_BLOCKS = 5  # 0.1 s of a pipe
_MICROPHONE_POLL_S = 0.005


def command(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="IN", help=f"{SourceHelp} Without one, the microphone."),
    ] = None,
    url: UrlOption = None,
    room: RoomOption = None,
    token: TokenOption = None,
    ca: CaOption = None,
    name: NameOption = None,
    transport: TransportOption = Transport.AUTO,
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    frames_per_packet: FramesPerPacketOption = FRAMES_PER_PACKET,
    redundancy_frames: Annotated[
        int,
        typer.Option(
            min=0, max=32, help="Past frames repeated coarsely in each packet, for lossy links; --adapt may send more."
        ),
    ] = 0,
    dtx: Annotated[bool, typer.Option("--dtx", help="Send little while nobody speaks.")] = False,
    adapt: Annotated[bool, typer.Option("--adapt/--no-adapt", help="Let listeners' reports choose the rate.")] = True,
    input_device: InputOption = None,
    trace: TraceOption = None,
    threads: ThreadsOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Send a sound file into a room as live speech, or the microphone until Ctrl-C; others hear it with `listen`."""
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.client.client import VoiceClient
    from streaming_encodec.client.settings import CodecSettings, ConnectionSettings
    from streaming_encodec.voice.sender import SenderSettings

    # A wrong file is reported before a model is loaded.
    check_trace(trace, [source])
    reader = None if source is None else AudioReader(source)
    urls = urls_of(url)
    use_threads(threads)
    loaded = load_model(model)
    packets = SenderSettings(
        frames_per_packet=frames_per_packet,
        redundant_codebooks=min(2, loaded.config.num_quantizers) if redundancy_frames else 0,
        redundant_frames=redundancy_frames,
    )
    call = VoiceClient(
        urls,
        read_token(token),
        loaded.model,
        room=room,
        role="publish",
        codec=CodecSettings(bandwidth_of(loaded, bandwidth), packets=packets, dtx=dtx, adapt=adapt),
        connection=ConnectionSettings(tls_of(ca, urls), name=name, transport=transport.value),
    )
    # A missing microphone is reported before the call.
    speaks = reader if reader is not None else _open_microphone(input_device, loaded.config.sampling_rate)
    facts = asyncio.run(_send(speaks, call, loaded, trace, tls=urls[0].lower().startswith("wss:")))
    if as_json:
        print_json(facts)
    else:
        print_facts(f"{facts['input']} → {call.room} at {call.url}", _rows(facts))
    if facts["interrupted"] and source is not None:
        complain(f"interrupted after {minutes(facts['seconds'])}")
        raise typer.Exit(1)


def _rows(facts: dict[str, Any]) -> dict[str, str]:
    rows = {
        "sent": minutes(facts["seconds"]),
        "packets": f"{facts['packets_sent']} ({facts['packet_kbps']:.1f} kbps, {facts['wire_kbps']:.1f} on the wire)",
        "dropped": f"{facts['packets_dropped']} packets",
        "transport": told_of_ways(facts["datagrams_sent"], facts["packets_sent"]),
        "connection": f"{facts['connects'] - 1} times lost and restored",
    }
    if facts["stalls"]:
        rows["skipped"] = (
            f"{minutes(facts['skipped_seconds'])}, past when this machine, which had stood still, went on "
            f"({facts['stalls']} times)"
        )
    return rows | (told_of_input(facts) if "input_samples" in facts else {})


async def _send(
    source: AudioReader | SoundCard, call: Any, loaded: LoadedModel, trace: Path | None, *, tls: bool
) -> dict[str, Any]:
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.corpus.transcode import source_file

    rate, channels = loaded.config.sampling_rate, loaded.config.audio_channels
    stop = on_interrupt()
    samples = 0
    pace = FilePace(rate)
    with ExitStack() as cleanup:
        diary = cleanup.enter_context(Trace(trace))
        if isinstance(source, AudioReader):
            source.convert(rate, channels)
            blocks = _from_file(source, stop, pace)
        else:
            cleanup.callback(source.close)
            blocks = microphone(source, channels, stop)
        async with aclosing(blocks), call:
            diary.joined()
            async for block in blocks:
                diary.block(samples, block.shape[1])
                await call.send(block)
                samples += block.shape[1]
    seconds = samples / rate
    facts = link_facts(call.statistics)
    packet_bytes = facts["bytes_sent"]
    kbps_per_byte = 8 / seconds / 1000 if seconds else 0.0
    return {
        "input": str(source.info.path) if isinstance(source, AudioReader) else "microphone",
        "room": call.room,
        "seconds": seconds,
        "skipped_seconds": pace.skipped_samples / rate,
        "stalls": pace.stalls,
        **(input_facts(source.info.path, source_file(source)) if isinstance(source, AudioReader) else {}),
        **facts,
        "packet_kbps": packet_bytes * kbps_per_byte,
        # With all headers; the acknowledgements that come back are not in it.
        "wire_kbps": kbps_per_byte
        * wire_bytes(facts["packets_sent"], packet_bytes, tls=tls, datagrams=facts["datagrams_sent"]),
        "interrupted": stop.is_set(),
    }


async def _from_file(reader: AudioReader, stop: asyncio.Event, pace: FilePace) -> AsyncGenerator[Pcm]:
    """A file's sound, 20 ms every 20 ms; what is past after this program stood still is left out."""
    loop = asyncio.get_running_loop()
    done = 0
    with progress("sending") as show:
        blocks = reader.blocks(reader.sample_rate * _BLOCK_MS // 1000)
        pump = _Pump(blocks) if reader.is_live else None
        while True:
            begin_s = loop.time()
            block = next(blocks, None) if pump is None else await pump.next(stop)
            if block is None:
                break
            if pump is not None:
                pace.source_waited(loop.time() - begin_s, loop.time())
            await asyncio.sleep(max(0.0, pace.wait_s(loop.time())))
            if stop.is_set():
                break
            if not pace.is_past(block.shape[1], loop.time()):
                yield block
            done += block.shape[1]
            show(done, reader.samples)
    if pump is None:
        reader.close()  # else the thread may still be in it


class _Pump:
    """Reads a pipe in a thread of its own: it may give nothing for long, and the call goes on meanwhile.

    The thread may wait for the pipe for ever; it ends with the program.
    """

    def __init__(self, blocks: Iterator[Pcm]) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Pcm | BaseException | None] = asyncio.Queue(_PUMPED_BLOCKS)
        threading.Thread(target=self._run, args=(blocks,), daemon=True, name="pipe").start()

    async def next(self, stop: asyncio.Event) -> Pcm | None:
        """The next block; None at the end, or once `stop` is set. Raises what reading raises."""
        came = asyncio.create_task(self._queue.get())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({came, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not came.done():
            came.cancel()
            return None
        if isinstance(block := came.result(), BaseException):
            raise block
        return block

    def _run(self, blocks: Iterator[Pcm]) -> None:
        try:
            for block in blocks:
                self._put(block)
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Pcm | BaseException | None) -> None:
        putting = self._queue.put(item)
        try:
            asyncio.run_coroutine_threadsafe(putting, self._loop).result()
        except (RuntimeError, CancelledError):  # the call is over
            putting.close()


def _open_microphone(device: str | None, rate: int) -> SoundCard:
    from streaming_encodec.audio.devices.card import SoundCard

    card = SoundCard(rate, input_device=device, use_output=False)
    note("sending the microphone; Ctrl-C stops")
    return card


async def microphone(card: SoundCard, channels: int, stop: asyncio.Event) -> AsyncGenerator[Pcm]:
    """The card's microphone [channels, n], a few milliseconds at a time, until ``stop``."""
    while not stop.is_set():
        card.maintain()  # opens a lost device again
        block = card.read()
        if block.shape[1]:
            yield block.repeat(channels, axis=0)
        await asyncio.sleep(_MICROPHONE_POLL_S)
