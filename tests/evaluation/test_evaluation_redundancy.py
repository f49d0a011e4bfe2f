"""Redundancy at equal bitrate: who gets which codebooks, and that they are what is decoded."""

from __future__ import annotations

import numpy as np
import torch
from evaluation_kit import small_model

from streaming_encodec.bench.redundancy import (
    FRAMES_PER_PACKET,
    PLAIN,
    REDUNDANT,
    codebooks_that_arrive,
)
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.evaluation.received import receive_clip
from streaming_encodec.streaming.decoder import StreamingDecoder

HOP = 320


def test_both_ways_of_sending_cost_the_same() -> None:
    assert abs(PLAIN.packet_bytes - REDUNDANT.packet_bytes) <= 1


def test_redundancy_covers_the_two_packets_before() -> None:
    lost = np.array([False, True, True, False, True, True, True, False, True])
    plain = codebooks_that_arrive(PLAIN, lost, 26)
    assert plain.tolist() == [8] * 3 + [0] * 6 + [8] * 3 + [0] * 9 + [8] * 3 + [0] * 2
    # A hole of two packets is filled; of one of three the first stays empty, and nothing comes after the last.
    redundant = codebooks_that_arrive(REDUNDANT, lost, 26)
    assert redundant.tolist() == [4] * 3 + [2] * 6 + [4] * 3 + [0] * 3 + [2] * 6 + [4] * 3 + [0] * 2


def test_without_loss_the_stream_is_heard_as_it_was_sent() -> None:
    model = small_model()
    frames = 4 * FRAMES_PER_PACKET
    codebooks = model.config.num_quantizers
    codes = torch.randint(0, model.config.codebook_size, (1, codebooks, frames), generator=torch.manual_seed(0))
    books = np.full(frames, codebooks)
    decoder = StreamingDecoder(model, frames_per_step=4)
    wanted = decoder.push(codes)[0].mean(dim=0).float().numpy()
    engine = find_engine("eager", model)
    got = receive_clip(engine, codes[0].numpy(), books)
    np.testing.assert_allclose(got[HOP:], wanted[HOP:], atol=1e-6)  # a receiver fades a stream in
    books[5] = 0
    difference = np.abs(receive_clip(engine, codes[0].numpy(), books) - wanted)
    assert difference[HOP : 5 * HOP].max() < 1e-6 < 1e-4 < difference[5 * HOP :].max()
