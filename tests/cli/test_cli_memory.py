"""A long file takes no more memory than a short one."""

import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import noise, save_random

if sys.platform == "win32":
    pytest.skip("peak memory is asked of Unix", allow_module_level=True)

# Runs stream, encode and decode one after the other, and prints the peak of each so far.
PROGRAM = """
import resource, sys
from streaming_encodec.cli.app import app
source, model = sys.argv[1:]
for arguments in (
    ["stream", source, source + ".out.wav"],
    ["encode", source, source + ".ecdc"],
    ["decode", source + ".ecdc", source + ".decoded.wav"],
):
    try:
        app([*arguments, "--model", model])
    except SystemExit as end:
        assert not end.code, end.code
    print(arguments[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


def peaks_mib(source: Path, model: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(source), str(model)],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = [line.split() for line in done.stderr.splitlines()]
    return {name: int(value) / PER_MIB for name, value in lines}


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    # A high rate and long frames: many samples, soon done.
    model = save_random(
        tmp_path / "model",
        sampling_rate=96_000,
        target_bandwidths=(0.48, 0.96),
        upsampling_ratios=(8, 8, 8, 8),
        num_lstm_layers=0,
    )
    short = peaks_mib(noise(tmp_path / "short.wav", 5 * 96_000, 96_000), model)
    long = peaks_mib(noise(tmp_path / "long.wav", 120 * 96_000, 96_000), model)
    print(short, long)
    kept = 115 * 96_000 * 4 / 2**20  # what one copy of the sound would take
    assert kept > 40
    assert {name: long[name] - short[name] for name in short if long[name] - short[name] > kept / 2} == {}
