"""A call's receiver on lost packets: evaluation conceals as a call does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from streaming_encodec.call.voice_decoder import VoiceDecoder
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.evaluation.packet_loss import Lost
from streaming_encodec.evaluation.streamed import CodedSet
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.types import IntArray, Pcm
from streaming_encodec.wire.packet import Packet, serialize_packet


def receive_set(model: EncodecModel, coded: CodedSet, lost: Sequence[Lost]) -> list[Pcm]:
    """Each clip's frames, one a packet, through a receiver without the ``lost`` ones. Returns [T] each.

    The receiver repeats the last frame more and more softly, then gives comfort noise, as in a call.
    """
    engine = find_engine("auto", model)
    sounds: dict[int, Pcm] = {}
    for group, part in zip(coded.groups, coded.coded, strict=True):
        for row, place in enumerate(group):
            codes = part.codes[row, :, : part.frames[row]].cpu().numpy()
            books = np.where(lost[place][: codes.shape[1]], 0, len(codes))
            sounds[place] = receive_clip(engine, codes, books)[: part.lengths[row]]
    return [sounds[place] for place in range(len(sounds))]


@torch.no_grad()
def receive_clip(engine: Engine, codes: IntArray, books: IntArray) -> Pcm:
    """Codes [K, F] of a clip, and how many codebooks of each frame arrive [F]; 0: the frame is lost → [F · hop]."""
    config = engine.model.config
    decoder = VoiceDecoder(config.sampling_rate, config.frame_ms, model=engine.model, output="float32", engine=engine)
    sound = np.zeros((codes.shape[1], config.hop_length), np.float32)
    for frame, kept in enumerate(books.tolist()):
        if not kept:
            # As before the first packet: there is nothing to repeat yet.
            sound[frame] = decoder.decode_lost(config.hop_length)
            continue
        packet = Packet(
            sequence=frame & 0xFFFF,
            timestamp=frame & 0xFFFFFFFF,
            codes=codes[:kept, frame : frame + 1],
            start=frame == 0,
            bits_per_code=config.bits_per_codebook,
        )
        decoder.push(serialize_packet(packet))
        sound[frame] = decoder.pull(config.hop_length)
    return sound.reshape(-1)
