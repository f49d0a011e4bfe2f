"""Streams and tiny networks for tests of playout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.ladder import Kind, PlayoutInstruction
from streaming_encodec.voice.receiver import Receiver, ReceiverSettings
from streaming_encodec.wire.packet import Packet, StreamFormat, serialize_packet

FORMAT = StreamFormat("0" * 32)
FRAME = FORMAT.frame_seconds


def codes_of(frames: Sequence[int], codebooks: int = 4) -> np.ndarray:
    """Codes [K, F] whose first row is the frame's number, modulo 1024."""
    return np.tile(np.array(frames, dtype=np.int64) % 1024, (codebooks, 1))


def packet(
    number: int,
    *,
    per_packet: int = 1,
    red: int = 0,
    codebooks: int = 4,
    shift: int = 0,
    first: int = 0,
    **more: object,
) -> bytes:
    """Packet ``number`` of a plain stream; ``red`` frames of two redundant codebooks."""
    frame = number * per_packet
    frames = [frame + i for i in range(per_packet)]
    past = [max(0, frame - red + i) for i in range(red)]
    return serialize_packet(
        Packet(
            sequence=(first + number) & 0xFFFF,
            timestamp=(shift + frame) & 0xFFFFFFFF,
            codes=codes_of(frames, codebooks),
            redundancy=codes_of(past, 2) if red else None,
            **more,  # type: ignore[arg-type]
        )
    )


def noise_packet(sequence: int, timestamp: int, **more: object) -> bytes:
    noise = Packet(sequence, timestamp, noise=(60,) * 6, **more)  # type: ignore[arg-type]
    return serialize_packet(noise)


def receiver(minimum: int = 2, initial: int = 2, **more: object) -> Receiver:
    delay = DelaySettings(minimum_frames=minimum, initial_frames=initial)
    return Receiver(FORMAT, ReceiverSettings(delay=delay, **more))  # type: ignore[arg-type]


def drive(target: Receiver, arrivals: dict[float, bytes | list[bytes]], frames: int) -> list[PlayoutInstruction]:
    """Pull once a frame period; arrivals are in frame periods and come before the pull of their time."""
    waiting = sorted(
        (time, data) for time, many in arrivals.items() for data in ([many] if isinstance(many, bytes) else many)
    )
    made: list[PlayoutInstruction] = []
    debt = 0
    for i in range(frames):
        while waiting and waiting[0][0] <= i:
            time, data = waiting.pop(0)
            target.receive(data, time * FRAME)
        if debt:
            debt -= 1
            continue
        got = target.pull(i * FRAME)
        made += got
        debt = len(got) - 1
    return made


def spell(made: Sequence[PlayoutInstruction]) -> list[object]:
    """What was played, for reading in an assertion: frame numbers, 'r' repeat, 'n' noise, '.' silence."""
    letters = {Kind.REPEAT: "r", Kind.NOISE: "n", Kind.SILENCE: "."}
    return [int(m.codes[0, 0]) if m.codes is not None else letters[m.kind] for m in made]
