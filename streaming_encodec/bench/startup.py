"""How long a fresh process takes to the first frame, and how much memory it needs: measured in one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streaming_encodec.engines.kernel.self_test import why_missing
from streaming_encodec.errors import StreamError

_LIMIT_S = 120

_WITH_TORCH = """
import numpy as np
from streaming_encodec import EncodecModel, StreamingDecoder, StreamingEncoder
import torch
torch.set_num_threads(1)
model = EncodecModel.from_pretrained(sys.argv[1])
encoder, decoder = (make(model, engine=sys.argv[2]) for make in (StreamingEncoder, StreamingDecoder))
decoder.push(encoder.push(np.zeros((model.config.audio_channels, model.config.hop_length), np.float32)))
"""

_RECEIVER_ALONE = """
import numpy as np
from streaming_encodec.engines.onnx.codec import OrtDecoder
OrtDecoder(sys.argv[1]).push(np.zeros((8, 1), np.int64))
"""

_BOTH_ALONE = """
import numpy as np
from streaming_encodec.engines.onnx.codec import OrtDecoder, OrtEncoder
encoder, decoder = OrtEncoder(sys.argv[1]), OrtDecoder(sys.argv[1])
decoder.push(encoder.push(np.zeros((encoder.config["channels"], encoder.config["hop_length"]), np.float32)))
"""

_KERNEL_ALONE = """
import numpy as np
from streaming_encodec.engines import make_engine
codec = make_engine("kernel", sys.argv[1]).codec
frame = np.zeros((1, codec.config.hop_length, codec.config.audio_channels), np.float32)
latent, _ = codec.encoder.step(frame, np.zeros((1, codec.encoder.state_floats), np.float32))
codes = codec.search(latent[0], codec.config.num_quantizers)
codec.decoder.step(codec.lookup(codes)[None], np.zeros((1, codec.decoder.state_floats), np.float32))
"""

_NUMPY_ONLY = "import numpy\n"

_TORCH_ONLY = "import torch\n"

# Linux counts a process' own peak in /proc; what getrusage tells there begins with its parent's.
_REPORT = """
import json, pathlib
memory = None
status = pathlib.Path("/proc/self/status")
if status.exists():
    memory = next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
elif sys.platform == "darwin":
    import resource
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"memory": memory, "torch": "torch" in sys.modules}), flush=True)
"""


@dataclass(frozen=True)
class StartUp:
    """One way to start."""

    name: str
    seconds: float  # from the process' start to the first frame, the best of some
    memory_mb: float | None  # at most resident by then; None where the system does not tell
    imports_torch: bool


def measure_start_up(
    model_folder: Path, export_folder: Path, clock: Callable[[], float], times: int = 3
) -> list[StartUp]:
    """Start in each way ``times`` times; an engine by torch, the exported graphs without.

    Raises:
        StreamError: such a process fails; the message holds its last line.
    """
    kernel = [("encoder and decoder, kernel's", _KERNEL_ALONE, [str(model_folder)])] if why_missing() is None else []
    ways = [
        ("numpy's import alone", _NUMPY_ONLY, []),
        ("torch's import alone", _TORCH_ONLY, []),
        ("encoder and decoder, eager", _WITH_TORCH, [str(model_folder), "eager"]),
        ("encoder and decoder, fused", _WITH_TORCH, [str(model_folder), "fused"]),
        ("encoder and decoder, onnx", _WITH_TORCH, [str(model_folder), "onnx"]),
        *kernel,
        ("encoder and decoder, exported", _BOTH_ALONE, [str(export_folder)]),
        ("receiver, exported", _RECEIVER_ALONE, [str(export_folder)]),
    ]
    return [_start(name, code, arguments, clock, times) for name, code, arguments in ways]


def _start(name: str, code: str, arguments: list[str], clock: Callable[[], float], times: int) -> StartUp:
    best = float("inf")
    report: dict[str, Any] = {}
    for _ in range(times):
        begin = clock()
        done = subprocess.run(
            [sys.executable, "-c", "import sys\n" + code + _REPORT, *arguments],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        best = min(best, clock() - begin)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise StreamError(f"start-up of {name!r} failed: {last}")
        report = json.loads(done.stdout.splitlines()[-1])
    return StartUp(name, best, report["memory"], bool(report["torch"]))
