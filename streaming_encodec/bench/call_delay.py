"""From mouth to ear without sound cards: `bench call`.

A relay and two clients in one process on this machine; speech goes in at the pace of a microphone, and each
frame is timed from its first sample's being said to its being due at the speaker. Frames are played in order,
so the n-th one decoded is the n-th one said, as long as none is skipped (which the result says).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from streaming_encodec.bench.measure import noise
from streaming_encodec.bench.tables import Table
from streaming_encodec.call.decoders import SpeakerDecoders, make_decoders
from streaming_encodec.client.client import VoiceClient
from streaming_encodec.client.settings import CodecSettings
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.model.find import CodecModel
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.types import Pcm
from streaming_encodec.voice.playout import DecodeRequest
from streaming_encodec.voice.sender import SenderSettings


class _Noted:
    """Decoders that count frames and note how long each step took."""

    def __init__(self, decoders: SpeakerDecoders) -> None:
        self._decoders = decoders
        self.open, self.close, self.warm_up = decoders.open, decoders.close, decoders.warm_up
        self.decoded = 0
        self.took_s: list[float] = []

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, Pcm]:
        begin_s = time.perf_counter()
        sounds = self._decoders.decode(requests)
        self.took_s.append(time.perf_counter() - begin_s)
        self.decoded += sum(request.codes is not None for request in requests.values())
        return sounds


async def measure(
    model: CodecModel, pcm: Pcm, *, bandwidth: float, engine: str, frames_per_packet: int
) -> dict[str, Any]:
    """Times of one call in milliseconds; pcm: [n] at the model's rate."""
    shared = find_engine(engine, model)
    hop, rate = model.config.hop_length, model.config.sampling_rate
    pcm = pcm[: len(pcm) // hop * hop]
    encoder = StreamingEncoder(model, bandwidth, engine=shared)
    encoder.warm_up()
    encode_s = []
    for number in range(len(pcm) // hop):
        begin_s = time.perf_counter()
        encoder.push(pcm[number * hop : (number + 1) * hop])
        encode_s.append(time.perf_counter() - begin_s)
    decoder = _Noted(make_decoders(model, shared))
    packets = SenderSettings(frames_per_packet=frames_per_packet)
    codec = CodecSettings(bandwidth, shared, packets, adapt=False, decoders=decoder)
    async with (
        Relay(RelayConfig(port=0, datagrams=False)) as relay,
        VoiceClient(relay.url, None, model, role="subscribe", codec=codec) as ear,
        VoiceClient(relay.url, None, model, role="publish", codec=codec) as mouth,
    ):
        begin_s = time.monotonic() + 0.1
        heard: list[float] = []

        async def listen() -> None:
            due_s = begin_s
            while due_s < begin_s + len(pcm) / rate + 0.5:
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                await ear.pull(hop, due_s)
                heard.extend([due_s] * (decoder.decoded - len(heard)))
                due_s += hop / rate

        listening = asyncio.create_task(listen())
        for number in range(len(pcm) // hop):
            # A frame's last sample is there one frame after its first.
            await asyncio.sleep(max(0.0, begin_s + (number + 1) * hop / rate - time.monotonic()))
            await mouth.send(pcm[number * hop : (number + 1) * hop])
        await mouth.finish()
        await listening
        statistics = next(iter(ear.statistics.speakers.values()))
    total = [1000 * (at_s - begin_s - number * hop / rate) for number, at_s in enumerate(heard)]
    settled = total[len(total) // 2 :]
    return {
        "frames": len(total),
        "frames_per_packet": frames_per_packet,
        "frame_ms": 1000 * hop / rate,
        "wait_for_packet_ms": 1000 * (frames_per_packet - 1) * hop / rate,
        "encode_ms": _spread([1000 * s for s in encode_s]),
        "decode_ms": _spread([1000 * s for s in decoder.took_s]),
        "buffer_mean_ms": statistics.mean_delay_ms,
        "network_jitter_ms": 1000 * statistics.jitter,
        "concealed_share": statistics.concealed_share,
        "skipped_frames": statistics.skipped_frames,
        "mouth_to_ear_ms": _spread(total),
        "mouth_to_ear_second_half_ms": _spread(settled),
    }


def _spread(values: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99), "max": float(max(values))}


def measure_clients(
    model: CodecModel, *, bandwidth: float, engine: str, frames_per_packet: int, seconds: float
) -> dict[str, Any]:
    """Figures of a call of so many seconds; times in milliseconds."""
    # The sound does not influence time.
    pcm = noise(1, int(seconds * model.config.sampling_rate))[0]
    return asyncio.run(measure(model, pcm, bandwidth=bandwidth, engine=engine, frames_per_packet=frames_per_packet))


def clients_table(figures: dict[str, Any]) -> Table:
    """A call's delay and what it is made of."""

    def spread(name: str) -> str:
        return " / ".join(f"{figures[name][part]:.1f}" for part in ("p50", "p95", "p99"))

    rows = [
        ["mouth to ear, p50 / p95 / p99 ms", spread("mouth_to_ear_ms")],
        ["its second half", spread("mouth_to_ear_second_half_ms")],
        ["frame + wait for the packet, ms", f"{figures['frame_ms']:.1f} + {figures['wait_for_packet_ms']:.1f}"],
        ["encode a frame", spread("encode_ms")],
        ["decode", spread("decode_ms")],
        ["buffer, mean ms", f"{figures['buffer_mean_ms']:.1f}"],
        ["network jitter, ms", f"{figures['network_jitter_ms']:.1f}"],
        ["concealed", f"{figures['concealed_share']:.2%}"],
        ["frames left out", str(figures["skipped_frames"])],
    ]
    return Table("a call of two clients, without sound cards", ["", "figure"], rows)
