"""The figures of `bench codec` as tables."""

from __future__ import annotations

from collections.abc import Iterator

from streaming_encodec.bench.tables import Result, Table

ARCHITECTURE = "encodec-24khz-random"
"""The published 24 kHz architecture with random weights, which cost the same."""


def codec_tables(result: Result) -> Iterator[Table]:
    """The tables of each model."""
    for name, model in result["models"].items():
        stock = next((p["p50_ms"] for p in model["peers"] if p["name"] == "transformers, one frame a call"), None)
        title = f"{name}, {model['kbps']:g} kbps, {model['frame_ms']:.1f} ms a frame"
        yield Table(
            f"{title}: one stream, encode + quantise + decode",
            ["engine", "frames", "p50 ms", "p99 ms", "max ms", "p99 / p50", "RTF", "missed", "× stock"],
            [_live(row["engine"], row, model["frame_ms"], stock) for row in model["live"]]
            + [
                _live(row["name"], row, model["frame_ms"], stock)
                for row in model["peers"]
                if "one frame" in row["name"]
            ],
        )
        yield Table(
            f"{title}: the same with cold caches, 96 MB read before each frame",
            ["engine", "p50 ms", "p99 ms", "max ms", "of warm"],
            [_cold(row, model["live"]) for row in model["cold"]],
        )
        if model["pool"]:
            single = {row["engine"]: row["p50_ms"] for row in model["live"] if row["frames"] == 1}
            yield Table(
                f"{title}: a pool of streams on one core",
                [
                    "engine",
                    "streams",
                    "tick p50 ms",
                    "p99 ms",
                    "ms a stream",
                    "of one alone",
                    "streams a core",
                    "missed",
                ],
                [_pool(row, single) for row in model["pool"]],
            )
        if model["offline"]:
            whole = [_whole(p["name"], p) for p in model["peers"] if "whole file" in p["name"]]
            yield Table(
                f"{title}: a long file, times real time",
                ["engine", "encode ×", "decode ×"],
                [[row["engine"], f"{row['encode_x']:.1f}", f"{row['decode_x']:.1f}"] for row in model["offline"]]
                + whole,
            )
        weights = "" if model["weights"] == "trained" else f", weights: {model['weights']}"
        yield Table(
            f"{title}: agreement with the layers on speech{weights}",
            [
                "engine",
                "codes equal",
                "of the first codebook",
                "decoder SNR dB",
                "log-mel dB (layers)",
                "PESQ-WB (layers)",
            ],
            [_agreement(row) for row in model["agreement"]],
        )
        if "start_up" in model:
            yield Table(
                f"{title}: from a process' start to its first frame",
                ["way", "seconds", "memory MB", "imports torch"],
                [
                    [
                        row["name"],
                        f"{row['seconds']:.2f}",
                        f"{row['memory_mb']}",
                        "yes" if row["imports_torch"] else "no",
                    ]
                    for row in model["start_up"]
                ],
            )


def _live(name: str, row: Result, frame_ms: float, stock: float | None) -> list[str]:
    frames = row.get("frames", 1)
    faster = "" if stock is None else f"{stock * frames / row['p50_ms']:.1f}"
    steps = [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "max_ms")]
    return [
        name,
        str(frames),
        *steps,
        f"{row['p99_ms'] / row['p50_ms']:.2f}",
        f"{row['rtf']:.3f}",
        str(row["missed_deadlines"]),
        faster,
    ]


def _cold(row: Result, live: list[Result]) -> list[str]:
    warm = next((w["p50_ms"] for w in live if w["engine"] == row["engine"] and w["frames"] == 1), None)
    times = [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "max_ms")]
    return [row["engine"], *times, "" if warm is None else f"{row['p50_ms'] / warm:.2f}"]


def _pool(row: Result, single: dict[str, float]) -> list[str]:
    alone = single.get(row["engine"])
    return [
        row["engine"],
        str(row["streams"]),
        f"{row['p50_ms']:.2f}",
        f"{row['p99_ms']:.2f}",
        f"{row['ms_per_stream']:.2f}",
        "" if alone is None else f"{row['ms_per_stream'] / alone:.2f}",
        str(row["streams_per_core"]),
        str(row["missed_deadlines"]),
    ]


def _whole(name: str, row: Result) -> list[str]:
    encode, decode = row["parts_p50_ms"]
    return [name, f"{row['audio_ms'] / encode:.1f}", f"{row['audio_ms'] / decode:.1f}"]


def _agreement(row: Result) -> list[str]:
    def pair(metric: str) -> str:
        own, eager = row.get(f"{metric}_own"), row.get(f"{metric}_eager")
        return "" if own is None or eager is None else f"{own:.2f} ({eager:.2f})"

    snr = row["decoder_snr_db"]
    return [
        row["engine"],
        f"{row['codes_equal']:.2%}",
        f"{row['first_codebook_equal']:.2%}",
        "same bits" if snr is None else f"{snr:.0f}",
        pair("log_mel_db"),
        pair("pesq_wb"),
    ]
