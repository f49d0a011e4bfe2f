"""Measure playout on simulated networks: ``python -m streaming_encodec.bench.playout``.

Prints the tables of `docs/playout.md`. Everything is seeded: the same command prints the same figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streaming_encodec.bench.simulated_call import CallResult, CallSettings, simulate_call
from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.network import PRESETS, GilbertElliott, NetworkModel, Stalls

NETWORK_COLUMNS = (
    "network",
    "redundancy",
    "lost packets",
    "concealed",
    "added delay p50",
    "p95",
    "target",
    "recovery mean",
    "worst",
)
LOSS_COLUMNS = (
    "loss",
    "packets' bitrate",
    "codebooks",
    "redundancy",
    "concealed",
    "from redundancy",
    "longest hole",
)
DRIFT_COLUMNS = (
    "drift",
    "simulated",
    "concealed",
    "delay at first",
    "at the end",
    "largest change",
    "samples in",
    "out",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("networks", "loss", "drift"), help="one table instead of all")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of each simulated call (10)")
    parser.add_argument("--drift-hours", type=float, default=8.0, help="length of the drift runs (8)")
    parser.add_argument("--ppm", type=float, nargs="+", default=[200.0, -200.0], help="drifts (200 -200)")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    seconds = 60 * chosen.minutes
    if chosen.only in (None, "networks"):
        print(head(NETWORK_COLUMNS))
        for name, network, frames in network_cases():
            print(network_row(name, network, frames, seconds, chosen.seed), flush=True)
        print()
    if chosen.only in (None, "loss"):
        print(head(LOSS_COLUMNS))
        for share in (0.01, 0.05, 0.1, 0.2, 0.3):
            for redundant in (0, 6):
                print(loss_row(share, redundant, seconds, chosen.seed), flush=True)
        print()
    if chosen.only in (None, "drift"):
        print(head(DRIFT_COLUMNS))
        for ppm in chosen.ppm:
            print(drift_row(ppm, chosen.drift_hours, chosen.seed), flush=True)


def head(columns: Sequence[str]) -> str:
    """The first two lines of a table."""
    return "| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|"


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


def network_row(name: str, network: NetworkModel, redundant_frames: int, seconds: float, seed: int) -> str:
    """One line of the first table."""
    result = simulate_call(
        CallSettings(
            network,
            seconds=seconds,
            seed=seed,
            redundant_codebooks=2 if redundant_frames else 0,
            redundant_frames=redundant_frames,
            delay=DelaySettings(reliable=network.ordered),
        )
    )
    recoveries = result.recoveries_s()
    median, late = added_delay_ms(result, 50), added_delay_ms(result, 95)
    return (
        f"| {name} | {told(redundant_frames)} "
        f"| {result.statistics.packets_lost / max(1, result.packets_sent):.2%} "
        f"| {result.concealed_share:.2%} "
        f"| {median:.0f} ms | {late:.0f} ms | {np.median(result.target_ms):.0f} ms "
        + (f"| {np.mean(recoveries):.2f} s | {max(recoveries):.2f} s |" if recoveries else "| – | – |")
    )


def loss_row(share: float, redundant_frames: int, seconds: float, seed: int) -> str:
    """One line of the second table: 42 or 43 bytes a packet either way."""
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
            delay=DelaySettings(reliable=False),
        )
    )
    stats = result.statistics
    played = max(1, stats.total_samples_received // 320)
    return (
        f"| {share:.0%} | {result.payload_kbps:.1f} kbps | {codebooks} "
        f"| {told(redundant_frames)} | {result.concealed_share:.2%} "
        f"| {stats.redundant_frames_used / played:.2%} | {longest_run(result)} frames |"
    )


def drift_row(ppm: float, hours: float, seed: int) -> str:
    """One line of the third table: a home network and two clocks that differ."""
    network = NetworkModel(jitter_ms=2.0, ordered=True, drift_ppm=ppm)
    settings = CallSettings(
        network, seconds=hours * 3600, seed=seed, num_codebooks=2, frames_per_packet=6, block_samples=640
    )
    result = simulate_call(settings)
    minutes = delay_by_minute(result)
    stats = result.statistics
    return (
        f"| {ppm:+.0f} ppm | {hours:g} h | {result.concealed_share:.4%} "
        f"| {minutes[1]:.1f} ms | {minutes[-2]:.1f} ms "
        f"| {np.abs(minutes[1:-1] - minutes[1]).max():.1f} ms | {stats.inserted_samples_for_deceleration} "
        f"| {stats.removed_samples_for_acceleration} |"
    )


def told(redundant_frames: int) -> str:
    """Redundancy in words."""
    return f"2 × {redundant_frames} frames" if redundant_frames else "–"


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


if __name__ == "__main__":
    main()
