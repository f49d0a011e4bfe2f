"""Losses, the streaming path, and the checks for clicks and hostile signals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_kit import RATE, small_model, speech
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.errors import StreamError
from streaming_encodec.evaluation.clips import Clip
from streaming_encodec.evaluation.packet_loss import bursty_loss
from streaming_encodec.evaluation.received import receive_set
from streaming_encodec.evaluation.robustness import (
    CLICK_RATIO,
    border_ratio,
    check_signals,
    decode_forgetful,
    decode_offline,
    hostile_signals,
)
from streaming_encodec.evaluation.streamed import decode_clips, encode_clips, encode_set, like_lengths
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder


def runs(lost: np.ndarray) -> np.ndarray:
    """Lengths of bursts."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(np.int8), [0]])))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize("rate", [0.02, 0.20])
@pytest.mark.parametrize(("packet_ms", "mean"), [(40 / 3, 4.5), (20.0, 3.0), (60.0, 1.0)])
def test_bursty_loss_has_its_rate_and_its_bursts(rate: float, packet_ms: float, mean: float) -> None:
    lost = bursty_loss(60_000, packet_ms, rate, 3, burst_ms=60.0)
    assert lost.mean() == pytest.approx(rate, rel=0.2)
    assert runs(lost).mean() == pytest.approx(mean, rel=0.15)


def test_no_loss_is_no_loss_and_a_seed_repeats() -> None:
    assert not bursty_loss(1000, 20.0, 0.0, 0).any()
    first, second = (bursty_loss(1000, 20.0, 0.2, 7) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_impossible_loss_rates(rate: float) -> None:
    with pytest.raises(StreamError, match="loss share"):
        bursty_loss(10, 20.0, rate, 0)


def clips_of_three_lengths() -> list[Clip]:
    sentence = speech().samples
    return [Clip(str(n), sentence[9000 : 9000 + n], RATE) for n in (24_000, 17_777, 320)]


def test_clips_in_step_are_what_single_live_streams_give() -> None:
    model, clips = small_model(), clips_of_three_lengths()
    coded = encode_clips(model, clips, 3.0)
    sounds = decode_clips(model, coded)
    assert coded.kbps == 3.0
    assert coded.frames == (75, 56, 1)
    for row, clip in enumerate(clips):
        encoder, decoder = StreamingEncoder(model, bandwidth=3.0), StreamingDecoder(model)
        padded = np.pad(clip.samples, (0, -len(clip.samples) % 320))
        codes = encoder.push(padded)
        same = (coded.codes[row, :, : coded.frames[row]].numpy() == codes).mean()
        assert same > 0.98, "float32 ties may fall either way"
        out = decoder.push(coded.codes[row, :, : coded.frames[row]].numpy())
        assert np.allclose(out[0, : len(clip.samples)], sounds[row], atol=1e-5)
        assert len(sounds[row]) == len(clip.samples)


@given(st.lists(st.floats(1.0, 900.0), min_size=1, max_size=40), st.floats(10.0, 600.0))
def test_groups_of_clips_hold_each_once_and_stay_within_their_bound(seconds: list[float], most: float) -> None:
    clips = [Clip("x", np.zeros(round(10 * s), np.float32), 10) for s in seconds]
    groups = like_lengths(clips, most)
    assert sorted(place for group in groups for place in group) == list(range(len(clips)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(clips[place].seconds for place in group) <= most


def test_clips_in_groups_are_what_clips_in_step_give(monkeypatch: pytest.MonkeyPatch) -> None:
    model, clips = small_model(), clips_of_three_lengths()[::-1]
    coded = encode_clips(model, clips, 3.0)
    expected = decode_clips(model, coded)
    monkeypatch.setattr("streaming_encodec.evaluation.streamed.like_lengths", lambda clips: ((2, 1), (0,)))
    grouped = encode_set(model, clips, 3.0)
    assert (grouped.frames, grouped.kbps) == (list(coded.frames), 3.0)
    for got, want in zip(grouped.decode(model), expected, strict=True):
        assert len(got) == len(want)
        # A tie in float32 may fall either way and then sounds otherwise for a moment.
        assert np.mean(np.abs(got - want) < 1e-4) > 0.95


def received(lost: dict[int, list[int]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Three clips decoded whole, and through the receiver without these frames of these clips."""
    model, clips = small_model(), clips_of_three_lengths()
    coded = encode_set(model, clips, 6.0)
    masks = [np.isin(np.arange(frames), lost.get(place, [])) for place, frames in enumerate(coded.frames)]
    return coded.decode(model), receive_set(model, coded, masks)


def test_the_receiver_that_loses_nothing_plays_what_the_stream_gives() -> None:
    whole, heard = received({})
    for clip, sound in zip(whole, heard, strict=True):
        assert len(clip) == len(sound)
        assert np.allclose(clip[320:], sound[320:], atol=1e-5), "after the first frame, which is faded in"


def test_loss_changes_nothing_before_it_and_no_other_clip() -> None:
    (whole, *others), (holed, *same) = received({0: [40, 41, 42]})
    assert np.allclose(holed[320 : 40 * 320], whole[320 : 40 * 320], atol=1e-5)
    assert not np.allclose(holed[40 * 320 : 43 * 320], whole[40 * 320 : 43 * 320], atol=1e-4)
    for clip, sound in zip(others, same, strict=True):
        assert np.allclose(clip[320:], sound[320:], atol=1e-5)


def test_a_long_gap_ends_in_the_receivers_noise_and_a_lost_beginning_is_silent() -> None:
    (whole, *_), (holed, *_) = received({0: [0, 1, *range(30, 60)]})
    assert not holed[: 2 * 320].any()
    assert np.isfinite(holed).all()
    level, gap = (float(np.sqrt(np.mean(sound[45 * 320 : 59 * 320] ** 2))) for sound in (whole, holed))
    assert gap < level / 2
    before, first = (float(np.std(holed[frame * 320 : (frame + 1) * 320])) for frame in (29, 30))
    assert first > before / 3, "the first frame of a gap is the last one again"


def test_border_ratio_is_one_for_noise_and_tells_clicks() -> None:
    rng = np.random.default_rng(5)
    sound = rng.standard_normal(320 * 600).astype(np.float32) * 0.1
    assert border_ratio([sound], 320) == pytest.approx(1.0, abs=0.1)
    clicking = sound.copy()
    clicking[::320] += 1.0
    assert border_ratio([clicking], 320) > 3.0
    stepping = sound + np.repeat(rng.choice([-1.0, 1.0], 600), 320).astype(np.float32)
    assert border_ratio([stepping], 320) > 3.0


def test_clicks_of_a_forgetful_decoder_are_seen_and_the_stream_has_none() -> None:
    model = small_model(seed=1)
    coded = encode_clips(model, [speech(3.0)], 6.0)
    streamed = border_ratio(decode_clips(model, coded), 320)
    assert streamed == pytest.approx(border_ratio(decode_offline(model, coded), 320), rel=0.05)
    assert border_ratio(decode_forgetful(model, coded), 320) > CLICK_RATIO > 2 * streamed


def test_hostile_signals_are_hostile() -> None:
    silence, square, noise, stops = (clip.samples for clip in hostile_signals(RATE, 0.5))
    assert not silence.any()
    assert set(np.unique(square)) == {-1.0, 1.0}
    assert np.abs(noise).max() > 0.99
    assert not stops[len(stops) // 2 :].any()


def test_check_signals_tells_numbers_from_nan() -> None:
    model = small_model()
    results = check_signals(model, (1.5, 6.0), seconds=0.4)
    assert len(results) == 8
    assert all(result.finite and np.isfinite(result.peak) for result in results)
    with torch.no_grad():
        next(model.decoder.parameters())[0] = float("nan")
    assert not any(result.finite for result in check_signals(model, (6.0,), seconds=0.4))
