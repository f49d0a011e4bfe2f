"""One concealment rule: the receiver of a call, evaluation and training give the same sound for the same losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from call_kit import sound, tiny_model

from streaming_encodec.call.voice_decoder import VoiceDecoder
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.evaluation.packet_loss import bursty_loss
from streaming_encodec.evaluation.received import receive_clip
from streaming_encodec.streaming.conceal import LATENT_DECAY, conceal_latent
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.training.config import LostFramesConfig
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.wire.packet import Packet, serialize_packet

FRAMES, HOP = 120, 320


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_the_rule_is_the_same_for_arrays_and_tensors_and_leaves_the_callers_alone(convert: object) -> None:
    latent = convert(np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]], [[1.0, 2.0, 3.0, 4.0, 5.0]]]))  # type: ignore[operator]
    lost = np.array([[False, True, True, False, True], [True, False, False, False, False]])
    got = conceal_latent(latent, lost, decay=0.5)
    assert type(got) is type(latent)
    assert got.tolist() == [[[1.0, 0.5, 0.25, 4.0, 2.0]], [[0.0, 2.0, 3.0, 4.0, 5.0]]]
    assert latent[0, 0, 1] == 2.0, "the caller's latent stays"


def test_a_call_evaluation_and_training_give_the_same_sound_for_the_same_losses() -> None:
    model = tiny_model()
    codes = StreamingEncoder(model, 6.0).push(sound(FRAMES * HOP / 24_000))  # [K, F]
    lost = bursty_loss(FRAMES, 40.0 / 3, 0.2, seed=4, burst_ms=50.0)
    lost[:2] = False  # before the first packet a receiver is silent
    holes = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(int), [0]]))))[::2]
    assert 3 < holes.max() <= ReceiverSettings().repeat_frames, "after longer ones comes comfort noise"

    # Training: the whole latent at once, holes filled, gradients and all.
    latent = model.quantizer.decode(torch.from_numpy(codes)[None])
    decay = LostFramesConfig().decay
    trained = StreamingDecoder(model).push_latent(conceal_latent(latent, lost[None], decay), len(codes))[0, 0]

    # Evaluation, and a call: packets, and a receiver that is told of each that is missing.
    engine = find_engine("eager", model)
    evaluated = receive_clip(engine, codes, np.where(lost, 0, len(codes)))
    decoder = VoiceDecoder(24_000, 40 / 3, model=model, output="float32", engine=engine)
    called = []
    for frame in range(FRAMES):
        if lost[frame]:
            called.append(decoder.decode_lost(HOP))
            continue
        here = codes[:, frame : frame + 1]
        bits = model.config.bits_per_codebook
        decoder.push(serialize_packet(Packet(frame, frame, here, start=frame == 0, bits_per_code=bits)))
        called.append(decoder.pull(HOP))

    wanted = trained.numpy()
    assert decay == LATENT_DECAY
    assert decoder.statistics.silent_concealed_samples == 0 < decoder.statistics.concealed_samples
    np.testing.assert_allclose(evaluated[HOP:], wanted[HOP:], atol=1e-5)  # a receiver fades a stream in
    np.testing.assert_allclose(np.concatenate(called)[HOP:], wanted[HOP:], atol=1e-5)
    assert np.abs(wanted).max() > 1e-2
