"""The simulated network does what its model says, and playout survives it: the marks, in short runs."""

from __future__ import annotations

import numpy as np
import pytest

from streaming_encodec.bench.playout import added_delay_ms
from streaming_encodec.bench.simulated_call import CallResult, CallSettings, simulate_call
from streaming_encodec.errors import StreamError
from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.network import PRESETS, GilbertElliott, Network, NetworkModel, Stalls

FRAME_MS = 1000 / 75


def call(network: NetworkModel, seconds: float = 30.0, **more: object) -> CallResult:
    delay = DelaySettings()
    return simulate_call(CallSettings(network, seconds=seconds, seed=1, delay=delay, **more))  # type: ignore[arg-type]


def test_the_same_seed_is_the_same_network() -> None:
    runs = []
    for seed in (1, 1, 2):
        network = Network(PRESETS["wifi"], seed)
        runs.append([network.send(b"x", i / 25) for i in range(2000)])
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("burst", [1.5, 4.0])
def test_loss_has_its_share_and_its_bursts(share: float, burst: float) -> None:
    network = Network(NetworkModel(loss=GilbertElliott.with_loss(share, burst)), 5)
    lost = np.array([not network.send(b"x", i / 25) for i in range(40_000)])
    assert lost.mean() == pytest.approx(share, rel=0.25)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(int), [0]])))
    assert np.diff(edges)[::2].mean() == pytest.approx(burst, rel=0.15)


def test_an_ordered_network_loses_nothing_and_keeps_order() -> None:
    network = Network(PRESETS["wifi-tcp"], 3)
    arrivals = [d.time_s for i in range(5000) for d in network.send(b"x", i / 25)]
    assert len(arrivals) == 5000
    assert arrivals == sorted(arrivals)


def test_nothing_arrives_during_a_stall() -> None:
    network = Network(NetworkModel(jitter_ms=5.0, stalls=(Stalls(5.0, 100.0, 400.0),)), 3)
    arrivals = np.array([d.time_s for i in range(5000) for d in network.send(b"x", i / 25)])
    assert len(network.stalls_passed) > 20
    for begins, ends in network.stalls_passed[:-1]:
        assert not ((arrivals > begins) & (arrivals < ends)).any()


def test_models_that_cannot_be() -> None:
    with pytest.raises(StreamError):
        GilbertElliott.with_loss(0.9, 1.0)
    with pytest.raises(StreamError):
        GilbertElliott(1.5)
    with pytest.raises(StreamError):
        CallSettings(PRESETS["clean"], num_codebooks=1)


def test_clean_network_plays_every_frame_at_the_least_delay() -> None:
    result = call(PRESETS["clean"])
    assert result.statistics.concealed_samples == 0
    assert result.frame.tolist() == list(range(len(result.frame)))
    assert result.target_ms[-1] == pytest.approx(2 * FRAME_MS)
    assert added_delay_ms(result, 95) < 3 * FRAME_MS


@pytest.mark.parametrize("redundant_frames", [0, 6])
def test_wifi_conceals_under_one_percent(redundant_frames: int) -> None:
    red = {"redundant_codebooks": 2, "redundant_frames": redundant_frames} if redundant_frames else {}
    result = call(PRESETS["wifi"], 60.0, **red)
    assert result.concealed_share < (0.005 if redundant_frames else 0.011)
    assert added_delay_ms(result, 50) < 100
    assert max(result.recoveries_s()) < 2.0


def test_lte_recovers_from_each_handover() -> None:
    result = call(PRESETS["lte"], 60.0)
    assert result.concealed_share < 0.015
    assert max(result.recoveries_s()) < 2.0


@pytest.mark.parametrize("length", [200.0, 1000.0])
def test_a_lone_stall_is_over_soon_and_not_held_against_the_network(length: float) -> None:
    network = NetworkModel(ordered=True, stalls=(Stalls(12.0, length, length, regular=True),))
    result = call(network, 20.0)
    assert len([s for s in result.stalls if s[0] < 20]) == 1
    assert max(result.recoveries_s()) < 2.0
    assert result.target_ms[-1] == pytest.approx(2 * FRAME_MS)
    played = result.frame[result.frame >= 0]
    assert played.tolist() == list(range(len(played)))  # nothing that was said is left out


def test_stalls_that_come_again_are_waited_for() -> None:
    network = NetworkModel(ordered=True, stalls=(Stalls(5.0, 200.0, 200.0, regular=True),))
    result = call(network, 40.0)
    late = result.time_s > 20
    assert (result.frame[late] < 0).sum() <= 2
    assert result.target_ms[-1] >= 200


def test_reordered_and_doubled_packets_are_played_once_and_in_order() -> None:
    result = call(PRESETS["reordering"], 60.0)
    played = result.frame[result.frame >= 0]
    assert (np.diff(played) > 0).all()
    # A few frames are late until the buffer has learned how late packets may be; then none.
    learned = result.time_s > 30
    assert (result.frame[~learned] < 0).sum() <= 12
    assert (result.frame[learned] < 0).sum() <= 2


@pytest.mark.parametrize("ppm", [3000.0, -3000.0])
def test_drifting_clocks_move_delay_by_less_than_a_frame(ppm: float) -> None:
    """Fifteen times the drift of real clocks for two minutes; the long run is the report's."""
    result = call(NetworkModel(drift_ppm=ppm, ordered=True), 120.0)
    assert result.statistics.concealed_samples == 0
    first = np.nanmedian(result.delay_ms[(result.time_s > 10) & (result.time_s < 30)])
    last = np.nanmedian(result.delay_ms[result.time_s > 100])
    assert abs(first - last) < FRAME_MS
    assert 120 * abs(ppm) * 1e-6 * 24_000 == pytest.approx(
        abs(result.statistics.removed_samples_for_acceleration - result.statistics.inserted_samples_for_deceleration),
        abs=3 * 320,
    )


def test_redundancy_pays_at_equal_bitrate() -> None:
    lossy = NetworkModel(loss=GilbertElliott.with_loss(0.1, 2.0), jitter_ms=2.0)
    plain = call(lossy, num_codebooks=8)
    helped = call(lossy, num_codebooks=4, redundant_codebooks=2, redundant_frames=6)
    assert helped.payload_kbps == pytest.approx(plain.payload_kbps, rel=0.03)
    assert helped.concealed_share < plain.concealed_share / 3


def test_sound_has_no_clicks_through_a_bad_network() -> None:
    """Jumps of the slope beyond those of the made-up voice itself (its frames join)."""
    clean = simulate_call(CallSettings(PRESETS["clean"], seconds=20), keep_sound=True).sound
    rough = simulate_call(
        CallSettings(NetworkModel(ordered=True, jitter_ms=8.0, drift_ppm=3000.0), seconds=20), keep_sound=True
    ).sound
    limit = np.abs(np.diff(clean, n=2)).max()
    assert np.abs(np.diff(rough, n=2)).max() < 1.5 * limit
