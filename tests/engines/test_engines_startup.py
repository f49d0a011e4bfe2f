"""What a process imports before its first frame: most of what a start takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FIRST_FRAME = """
import sys
import numpy as np
import streaming_encodec as se
model = se.EncodecModel.from_pretrained("voice-24khz")
encoder, decoder = se.StreamingEncoder(model, engine=sys.argv[1]), se.StreamingDecoder(model, engine=sys.argv[1])
decoder.push(encoder.push(np.zeros((1, model.config.hop_length), np.float32)))
print(*sorted({name for name in sys.modules}))
"""

# torch's compiler and what it draws in cost as much as torch itself.
_NEEDLESS = {"torch._dynamo", "torch._inductor", "sympy", "scipy", "transformers", "huggingface_hub", "matplotlib"}


@pytest.mark.parametrize("engine", ["eager", "fused", "kernel", "onnx", "onnx-int8"])
def test_the_first_frame_needs_no_compiler_and_no_hub(engine: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_FRAME, engine], check=True, timeout=120, capture_output=True, text=True
    )
    assert _NEEDLESS.isdisjoint(done.stdout.split())
