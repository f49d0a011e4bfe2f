"""The measurements of `bench codec`, one model after the other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.bench.codec_tables import ARCHITECTURE
from streaming_encodec.bench.measure import Case, LiveCase, OfflineCase, PoolCase, Timing, measure
from streaming_encodec.corpus.codec import FRAMES_PER_STEP
from streaming_encodec.corpus.transcode import open_model
from streaming_encodec.engines.registry import ENGINES, make_engine
from streaming_encodec.errors import MissingExtraError
from streaming_encodec.model.checkpoints.named import weights_of
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.find import torch_model
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.types import Pcm


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    engines: list[str]
    frames: list[int]
    streams: list[int]
    kbps: float
    rounds: int
    seconds: float
    offline_seconds: float
    start_up: bool
    peers: bool

    def as_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return asdict(self)


def bench_model(name: str, plan: Plan, clock: Callable[[], float]) -> dict[str, Any]:
    """All figures of one model.

    Raises:
        StreamError: the model cannot stream by samples, or an engine cannot run it.
        MissingExtraError: an engine that was named, or the peers, need a package that is not installed.
    """
    model, weights = _load(name)
    config = model.config
    kbps = plan.kbps
    if kbps not in config.target_bandwidths:
        kbps = min(config.target_bandwidths, key=lambda known: abs(known - kbps))
    engines, missing = _engines(model, plan)
    cases: dict[tuple[Any, ...], Case] = {}
    for engine in engines:
        for frames in plan.frames:
            cases["live", engine.name, frames] = LiveCase(model, engine, kbps, frames)
        cases["cold", engine.name] = LiveCase(model, engine, kbps, frames=1, cold=True)
        for streams in plan.streams:
            cases["pool", engine.name, streams] = PoolCase(model, engine, kbps, streams)
        if plan.offline_seconds and engine.name != "onnx-int8":
            cases["offline", engine.name] = OfflineCase(model, engine, kbps, plan.offline_seconds, FRAMES_PER_STEP)
    if plan.peers:
        from streaming_encodec.bench.peers import peer_cases

        for peer, case in peer_cases(config, kbps, plan.offline_seconds or 1.0).items():
            cases["peer", peer] = case
        if not any(key[1].startswith("encodec") for key in cases if key[0] == "peer"):
            missing.append("encodec: not installed (it needs torchaudio too), or without this architecture")

    timings = dict(zip(cases, measure(list(cases.values()), clock, plan.rounds, plan.seconds), strict=True))
    result: dict[str, Any] = {
        "weights": weights,
        "sampling_rate": config.sampling_rate,
        "frame_ms": config.frame_ms,
        "kbps": kbps,
        "num_codebooks": config.num_codebooks_for(kbps),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "not_installed": missing,
        "live": [_row(t, engine=k[1], frames=k[2]) for k, t in timings.items() if k[0] == "live"],
        "cold": [_row(t, engine=k[1]) for k, t in timings.items() if k[0] == "cold"],
        "pool": [_pool_row(t, k[1], k[2]) for k, t in timings.items() if k[0] == "pool"],
        "offline": [_offline_row(t, k[1]) for k, t in timings.items() if k[0] == "offline"],
        "peers": [_row(t, name=k[1]) for k, t in timings.items() if k[0] == "peer"],
        "agreement": [_agreement(model, engine, kbps) for engine in engines if engine.name != "eager"],
    }
    if plan.start_up:
        try:
            result["start_up"] = _start_up(model)
        except MissingExtraError as error:
            missing.append(f"start-up: {error}")
    return result


def _load(name: str) -> tuple[EncodecModel, str]:
    if name != ARCHITECTURE:
        return torch_model(open_model(name)), weights_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return EncodecModel(), "random"


def _engines(model: EncodecModel, plan: Plan) -> tuple[list[Engine], list[str]]:
    engines, missing = [], []
    for name in plan.engines or [name for name in ENGINES if name != "auto"]:
        try:
            engines.append(make_engine(name, model))
        except MissingExtraError as error:
            if plan.engines:
                raise
            missing.append(f"{name}: {error}")
    return engines, missing


def _row(timing: Timing, **labels: Any) -> dict[str, Any]:
    return labels | timing.summary()


def _pool_row(timing: Timing, engine: str, streams: int) -> dict[str, Any]:
    row = _row(timing, engine=engine, streams=streams)
    # All streams wait for the same tick: so many are inside their deadline, at the pace of its slow ones.
    steps = timing.steps_ms
    row["ms_per_stream"] = float(f"{np.percentile(steps, 50) / streams:.4g}")
    row["streams_per_core"] = int(streams * timing.audio_ms / np.percentile(steps, 99))
    return row


def _offline_row(timing: Timing, engine: str) -> dict[str, Any]:
    row = _row(timing, engine=engine)
    encode, decode = (timing.audio_ms / np.percentile(part, 50) for part in timing.parts)
    return row | {"encode_x": float(f"{encode:.4g}"), "decode_x": float(f"{decode:.4g}")}


def _agreement(model: EncodecModel, engine: Engine, kbps: float) -> dict[str, Any]:
    """An engine's codes and sound against the layers', on the bundled speech."""
    pcm = _speech(model)
    codes = StreamingEncoder(model, kbps).push(pcm)
    mine = StreamingEncoder(model, kbps, engine=engine).push(pcm)
    sound = StreamingDecoder(model).push(codes)
    same_codes = StreamingDecoder(model, engine=engine).push(codes)
    own = StreamingDecoder(model, engine=engine).push(mine)
    row = {
        "engine": engine.name,
        "codes_equal": float(np.mean(codes == mine)),
        "first_codebook_equal": float(np.mean(codes[0] == mine[0])),
        "decoder_snr_db": _snr_db(sound, same_codes),
    }
    from streaming_encodec.evaluation.clips import Clip
    from streaming_encodec.evaluation.metrics import make_metrics

    clip = Clip("speech", pcm[0], model.config.sampling_rate)
    for metric in make_metrics(["log_mel_db", *_installed_metrics()]).metrics:
        for label, heard in (("eager", sound), (engine.name, own)):
            length = heard.shape[1]
            part = Clip(clip.name, pcm[0, :length], clip.sample_rate)
            score = metric(part, heard[0])
            row[f"{metric.name}_{'own' if label == engine.name else 'eager'}"] = (
                None if score is None else float(f"{score.value:.4g}")
            )
    return row


def _installed_metrics() -> list[str]:
    from importlib.util import find_spec

    return ["pesq_wb"] if find_spec("pesq") else []


def _speech(model: EncodecModel) -> Pcm:
    with AudioReader(bundled_clip(), model.config.sampling_rate, model.config.audio_channels) as reader:
        return np.concatenate(list(reader), axis=1)


def _snr_db(wanted: Any, got: Any) -> float | None:
    error = float(np.square(wanted - got).sum())
    if error == 0:
        return None  # the same bits
    return float(f"{10 * np.log10(float(np.square(wanted).sum()) / error):.3g}")


def _start_up(model: EncodecModel) -> list[dict[str, Any]]:
    from streaming_encodec.bench.startup import measure_start_up
    from streaming_encodec.engines.onnx.export import export

    with tempfile.TemporaryDirectory() as folder:
        saved, exported = Path(folder) / "model", Path(folder) / "exported"
        model.save_pretrained(saved)
        export(model, exported)
        return [
            {
                "name": start.name,
                "seconds": float(f"{start.seconds:.3g}"),
                "memory_mb": None if start.memory_mb is None else round(start.memory_mb),
                "imports_torch": start.imports_torch,
            }
            for start in measure_start_up(saved, exported, time.perf_counter)
        ]
