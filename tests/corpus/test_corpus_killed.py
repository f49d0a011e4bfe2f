"""A corpus whose run is killed at random moments, and started again, is equal to the byte to an uninterrupted one.

Many short files, a thousandth of them broken. What a run writes, and how much memory it takes, is looked at too.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_kit import save_random
from corpus_kit import content, encode, lines, make_sounds

if sys.platform == "win32":
    pytest.skip("SIGKILL and process groups are Unix's", allow_module_level=True)

PROGRAM = "import sys; from streaming_encodec.cli.app import main; main()"


def command(source: Path, out: Path, model: Path, output: str, shard_size: int) -> list[str]:
    options = ("-m", model, "-f", output, "--shard-size", shard_size, "-j", 2, "--json")
    return list(map(str, (sys.executable, "-c", PROGRAM, "corpus", source, out, *options)))


def kill_often(run: list[str], kills: int, longest_s: float, rng: random.Random) -> int:
    """Start, kill after a random while, and again; at last let it run. Returns the runs that were killed at work.

    By turns the program alone is killed, whose workers then must end by themselves, and all of its processes.
    """
    killed = 0
    for number in range(kills):
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(rng.uniform(0.2, longest_s))
        if process.poll() is None:
            killed += 1
            if number % 2:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
    return killed


def seconds(run: list[str]) -> float:
    """How long it takes; the second time there is nothing to do."""
    begin = time.monotonic()
    subprocess.run(run, check=False, capture_output=True)
    return time.monotonic() - begin


def kill_and_compare(folder: Path, files: int, kills: int, output: str, shard_size: int) -> int:
    sounds = make_sounds(folder / "sounds", files)
    for number in range(0, files, 1000):
        (sounds / f"{number + files // 2 % 1000:05d}.wav").write_bytes(b"no sound")
    model = save_random(folder / "tiny-24khz", num_filters=2, hidden_size=8)
    whole, out = folder / f"whole-{output}", folder / f"out-{output}"
    uninterrupted_s, idle_s = (seconds(command(sounds, whole, model, output, shard_size)) for _ in range(2))
    run = command(sounds, out, model, output, shard_size)
    # So that all kills together leave about half of the work to the last run.
    longest_s = idle_s + (uninterrupted_s - idle_s) / kills
    killed = kill_often(run, kills, longest_s, random.Random(0))
    last = subprocess.run(run, check=False, capture_output=True, text=True)
    assert last.returncode == 1, last.stderr  # a thousandth is broken
    expected, made = content(whole), content(out)
    assert made.keys() == expected.keys()
    assert made == expected
    assert len(lines(out / "failed.jsonl")) == -(-files // 1000)
    return killed


@pytest.mark.slow
@pytest.mark.parametrize(("output", "shard_size"), [("wds", 40), ("parquet", 40), ("ecdc", 1), ("npy", 1)])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(
    tmp_path: Path, output: str, shard_size: int
) -> None:
    # docs/corpora.md says what 10,000 files and 50 kills gave.
    killed = 0
    for attempt in range(3):  # how long a run takes is measured first, and may change on a busy machine
        (tmp_path / str(attempt)).mkdir()
        killed = kill_and_compare(tmp_path / str(attempt), 1500, 8, output, shard_size)
        if killed >= 4:
            break
    assert killed >= 4, "it was done before it could be killed"


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    sounds = make_sounds(tmp_path / "sounds", 400, 60_000)  # seconds of work: it must not be done before it is ended
    model = save_random(tmp_path / "tiny-24khz", num_filters=2, hidden_size=8)
    run = command(sounds, tmp_path / "out", model, "ecdc", 1)
    # The workers inherit the pipe: it ends when the last of them has ended.
    process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "out").glob("*.ecdc")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    out, _ = process.communicate(timeout=60)
    assert out == b""
    assert encode(sounds, tmp_path / "out", model).already_there < 400


def test_an_interrupt_ends_all_at_once_and_says_so(tmp_path: Path) -> None:
    sounds = make_sounds(tmp_path / "sounds", 400, 60_000)  # seconds of work: it must not be done before it is ended
    model = save_random(tmp_path / "tiny-24khz", num_filters=2, hidden_size=8)
    run = command(sounds, tmp_path / "out", model, "ecdc", 1)
    process = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list((tmp_path / "out").glob("*.ecdc")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, "", "error: interrupted\n")
    assert encode(sounds, tmp_path / "out", model).failed == []


PEAK = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:2]
from corpus_kit import encode
encode(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], output=sys.argv[5], shard_size=50)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("output", ["wds", "parquet", "ecdc"])
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, output: str) -> None:
    model = save_random(tmp_path / "tiny-24khz", num_filters=2, hidden_size=8)
    sounds = make_sounds(tmp_path / "sounds", 50)
    (tmp_path / "few.csv").write_text("audio\n" + "".join(f"sounds/{n:05d}.wav\n" for n in range(50)))
    rows = (f"sounds/{n % 50:05d}.wav,{n}\n" for n in range(2000))
    (tmp_path / "many.csv").write_text("audio,id\n" + "".join(rows))
    assert sounds.is_dir()
    unit = 2**20 if sys.platform == "darwin" else 2**10

    def peak_mib(name: str) -> float:
        tests = Path(__file__).parents[1]
        arguments = [tests, tmp_path / f"{name}.csv", tmp_path / name, model, output]
        run = [sys.executable, "-c", PEAK, *map(str, arguments)]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        return int(done.stdout) / unit

    few, many = peak_mib("few"), peak_mib("many")
    assert many - few < 8, (few, many)
