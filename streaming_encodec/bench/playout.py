"""Playout on simulated networks: `bench playout`.

Everything is seeded: the same settings give the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streaming_encodec.bench.simulated_call import CallResult, CallSettings, simulate_call
from streaming_encodec.bench.tables import Table
from streaming_encodec.voice.network import PRESETS, GilbertElliott, NetworkModel, Stalls

LOSSES = (0.01, 0.05, 0.1, 0.2, 0.3)


def _redundancy(frames: int) -> str:
    return f"2 × {frames}" if frames else "–"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


_COLUMNS: dict[str, list[tuple[str, str, Callable[[Any], str]]]] = {
    "networks": [
        ("network", "network", str),
        ("redundant frames", "redundant_frames", _redundancy),
        ("lost packets", "lost_share", "{:.2%}".format),
        ("concealed", "concealed_share", "{:.2%}".format),
        ("added delay p50, ms", "added_delay_ms_p50", "{:.0f}".format),
        ("p95, ms", "added_delay_ms_p95", "{:.0f}".format),
        ("target, ms", "target_ms", "{:.0f}".format),
        ("recovery mean, s", "recovery_s_mean", _seconds),
        ("worst, s", "recovery_s_max", _seconds),
    ],
    "loss": [
        ("loss", "loss", "{:.0%}".format),
        ("packets' kbps", "payload_kbps", "{:.1f}".format),
        ("codebooks", "num_codebooks", str),
        ("redundant frames", "redundant_frames", _redundancy),
        ("concealed", "concealed_share", "{:.2%}".format),
        ("repaired", "redundant_share", "{:.2%}".format),
        ("longest hole, frames", "longest_hole_frames", str),
    ],
    "drift": [
        ("drift, ppm", "drift_ppm", "{:+.0f}".format),
        ("hours", "hours", "{:g}".format),
        ("concealed", "concealed_share", "{:.4%}".format),
        ("delay at first, ms", "delay_ms_begin", "{:.1f}".format),
        ("at the end, ms", "delay_ms_end", "{:.1f}".format),
        ("largest change, ms", "largest_change_ms", "{:.1f}".format),
        ("samples in", "samples_in", str),
        ("out", "samples_out", str),
    ],
}


def measure_networks(seconds: float, seed: int) -> list[dict[str, Any]]:
    """A row for each network, with and without redundancy."""
    return [network_row(name, network, frames, seconds, seed) for name, network, frames in network_cases()]


def measure_loss(seconds: float, seed: int) -> list[dict[str, Any]]:
    """A row for each loss and way of sending, at equal bitrate."""
    return [loss_row(share, frames, seconds, seed) for share in LOSSES for frames in (0, 6)]


def measure_drift(hours: float, ppm: Sequence[float], seed: int) -> list[dict[str, Any]]:
    """A row for each drift."""
    return [drift_row(one, hours, seed) for one in ppm]


def network_cases() -> list[tuple[str, NetworkModel, int]]:
    """Name, network, frames of redundancy (2 codebooks each)."""
    cases = [("clean", PRESETS["clean"], 0)]
    for name in ("wifi", "lte", "reordering"):
        cases += [(name, PRESETS[name], 0), (name, PRESETS[name], 6)]
    cases.append(("wifi-tcp", PRESETS["wifi-tcp"], 0))
    for length in (50.0, 100.0, 200.0, 500.0, 1000.0):
        seldom = NetworkModel(ordered=True, stalls=(Stalls(60.0, length, length, regular=True),))
        often = NetworkModel(ordered=True, stalls=(Stalls(10.0, length, length, regular=True),))
        cases += [
            (f"TCP, {length:.0f} ms stall a minute", seldom, 0),
            (f"TCP, {length:.0f} ms every 10 s", often, 0),
        ]
    return cases


def network_row(name: str, network: NetworkModel, redundant_frames: int, seconds: float, seed: int) -> dict[str, Any]:
    """One row of the first table."""
    result = simulate_call(
        CallSettings(
            network,
            seconds=seconds,
            seed=seed,
            redundant_codebooks=2 if redundant_frames else 0,
            redundant_frames=redundant_frames,
        )
    )
    recoveries = result.recoveries_s()
    return {
        "network": name,
        "redundant_frames": redundant_frames,
        "lost_share": result.statistics.packets_lost / max(1, result.packets_sent),
        "concealed_share": result.concealed_share,
        "added_delay_ms_p50": added_delay_ms(result, 50),
        "added_delay_ms_p95": added_delay_ms(result, 95),
        "target_ms": float(np.median(result.target_ms)),
        "recovery_s_mean": float(np.mean(recoveries)) if recoveries else None,
        "recovery_s_max": max(recoveries, default=None),
    }


def loss_row(share: float, redundant_frames: int, seconds: float, seed: int) -> dict[str, Any]:
    """One row of the second table: 42 or 43 bytes a packet either way."""
    codebooks = 4 if redundant_frames else 8
    network = NetworkModel(loss=GilbertElliott.with_loss(share, 2.0), jitter_ms=2.0)
    result = simulate_call(
        CallSettings(
            network,
            seconds=seconds,
            seed=seed,
            num_codebooks=codebooks,
            redundant_codebooks=2 if redundant_frames else 0,
            redundant_frames=redundant_frames,
        )
    )
    stats = result.statistics
    return {
        "loss": share,
        "payload_kbps": result.payload_kbps,
        "num_codebooks": codebooks,
        "redundant_frames": redundant_frames,
        "concealed_share": result.concealed_share,
        "redundant_share": stats.redundant_frames_used / max(1, stats.total_samples_received // 320),
        "longest_hole_frames": longest_run(result),
    }


def drift_row(ppm: float, hours: float, seed: int) -> dict[str, Any]:
    """One row of the third table: a home network and two clocks that differ."""
    network = NetworkModel(jitter_ms=2.0, ordered=True, drift_ppm=ppm)
    settings = CallSettings(
        network, seconds=hours * 3600, seed=seed, num_codebooks=2, frames_per_packet=6, block_samples=640
    )
    result = simulate_call(settings)
    delay_ms = delay_by_minute(result)
    stats = result.statistics
    return {
        "drift_ppm": ppm,
        "hours": hours,
        "concealed_share": result.concealed_share,
        "delay_ms_begin": float(delay_ms[1]),
        "delay_ms_end": float(delay_ms[-2]),
        "largest_change_ms": float(np.abs(delay_ms[1:-1] - delay_ms[1]).max()),
        "samples_in": stats.inserted_samples_for_deceleration,
        "samples_out": stats.removed_samples_for_acceleration,
    }


def playout_table(what: str, rows: list[dict[str, Any]]) -> Table:
    """The table of `networks`, `loss` or `drift`."""
    columns = _COLUMNS[what]
    lines = [[spell(row[name]) for _, name, spell in columns] for row in rows]
    return Table(what, [title for title, _, _ in columns], lines)


def added_delay_ms(result: CallResult, percentile: float) -> float:
    """Delay beyond the network's fastest way and the packet's own length, over the frames that were
    played."""
    return float(np.nanpercentile(result.delay_ms, percentile) - result.base_ms)


def delay_by_minute(result: CallResult) -> npt.NDArray[np.float64]:
    """Median delay in each minute, in milliseconds."""
    minute = (result.time_s // 60).astype(int)
    order = np.searchsorted(minute, np.arange(minute[-1] + 1))
    return np.array([np.nanmedian(part) for part in np.split(result.delay_ms, order[1:])])


def longest_run(result: CallResult) -> int:
    """Most frames made up in a row."""
    padded = np.concatenate([[False], result.frame < 0, [False]])
    edges = np.flatnonzero(np.diff(padded.astype(int)))
    return int(max(np.diff(edges)[::2], default=0))
