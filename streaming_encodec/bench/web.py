"""The codec in JavaScript (node) beside ONNX Runtime and the kernel in Python, in turns, and the cost of a call.

`streaming-encodec bench web` prints it. Ratios of one run count, not milliseconds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from streaming_encodec.audio.files.bundled import bundled_clip
from streaming_encodec.bench.tables import Table
from streaming_encodec.errors import StreamError
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder

MODEL, KBPS, HOP = "voice-24khz", 6.0, 320
BLOCK_FRAMES = 25
SPEAKERS = 4


class _Node:
    """``web.mjs``, waiting for what to measure."""

    def __init__(self, pcm: Path) -> None:
        found = shutil.which("node")
        if found is None:
            raise StreamError("this needs Node.js: apt install nodejs")
        command = [found, str(Path(__file__).with_name("web.mjs")), str(pcm)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def ask(self, **what: float) -> Any:
        """A line there, a line back."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._read())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise StreamError("web.mjs ended: its error is above")
        return line


class _Python:
    """An engine in this process."""

    def __init__(self, engine: str, pcm: NDArray[np.float32]) -> None:
        self._encoder = StreamingEncoder(MODEL, KBPS, engine=engine)
        self._decoder = StreamingDecoder(MODEL, engine=engine)
        self._pcm, self._at = pcm, 0

    def measure(self, frames: int) -> list[tuple[float, float]]:
        """Milliseconds to encode and to decode each frame."""
        times = []
        for _ in range(frames):
            self._at = 0 if self._at + HOP > len(self._pcm) else self._at
            block = self._pcm[self._at : self._at + HOP]
            self._at += HOP
            begin = time.perf_counter()
            codes = self._encoder.push(block)
            middle = time.perf_counter()
            self._decoder.push(codes)
            times.append((1000 * (middle - begin), 1000 * (time.perf_counter() - middle)))
        return times


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """p5 and p50 of each, in milliseconds a frame; and the share of a core that a call with four others takes."""
    pcm, _ = soundfile.read(bundled_clip(), dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.f32"
        pcm.astype("<f4").tofile(path)
        node = _Node(path)
        onnx, kernel = _Python("onnx", pcm), _Python("kernel", pcm)
        times: dict[str, list[Any]] = {"javascript": [], "onnx": [], "kernel": []}
        for turn in range(rounds + 1):
            made = {
                "javascript": node.ask(frames=BLOCK_FRAMES),
                "onnx": onnx.measure(BLOCK_FRAMES),
                "kernel": kernel.measure(BLOCK_FRAMES),
            }
            for name, some in made.items():
                times[name] += some if turn else []  # the first is for warming up
        call = node.ask(speakers=SPEAKERS, seconds=seconds)
        node.close()
    rows = {name: np.quantile(np.array(some).sum(axis=1), (0.05, 0.5)).tolist() for name, some in times.items()}
    return {"ms_a_frame": rows, "call_share": call["cpu_s"] / call["audio_s"]}


def web_tables(figures: dict[str, Any]) -> list[Table]:
    """For people."""
    rows = figures["ms_a_frame"]
    base = rows["onnx"]
    frames = [[name, f"{low:.2f}", f"{middle:.2f}", f"{middle / base[1]:.2f}"] for name, (low, middle) in rows.items()]
    share = [[f"speaks, and hears {SPEAKERS} others", f"{figures['call_share']:.0%}"]]
    return [
        Table("a frame of 13.3 ms", ["engine", "p5, ms", "p50, ms", "p50 / onnx"], frames),
        Table("a call in JavaScript", ["call", "of a core"], share),
    ]
