"""A corpus on Ray: equal to processes, bit for bit; and what stands in the way is one error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cli_kit import Run, save_random
from corpus_kit import content, encode, lines, make_sounds

from streaming_encodec.corpus.local import run_in_processes
from streaming_encodec.corpus.ray_data import run_on_ray
from streaming_encodec.errors import FolderError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("models") / "tiny-24khz", num_filters=2, hidden_size=8)


@pytest.fixture(scope="module")
def ray_on_this_machine() -> Iterator[None]:
    """One Ray for all tests: it takes seconds to start."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=2)
    yield
    ray.shutdown()


def compare(count: int, shard_size: int, model: Path, folder: Path) -> None:
    sounds = make_sounds(folder / "sounds", count)
    (sounds / "00003.wav").write_bytes(b"no sound")
    for output in ("wds", "parquet"):
        on_ray, local = folder / f"ray-{output}", folder / f"local-{output}"
        processes = partial(run_in_processes, processes=2)
        done = encode(sounds, on_ray, model, output=output, shard_size=shard_size, execute=run_on_ray)
        assert done.recordings == count - 1
        encode(sounds, local, model, output=output, shard_size=shard_size, execute=processes)
        assert content(on_ray) == content(local)
        assert len(lines(on_ray / "done.jsonl")) == -(-count // shard_size)


@pytest.mark.usefixtures("ray_on_this_machine")
def test_ray_and_processes_write_the_same(tiny: Path, tmp_path: Path) -> None:
    compare(20, 3, tiny, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_on_this_machine")
def test_ray_and_processes_write_the_same_of_a_thousand(tiny: Path, tmp_path: Path) -> None:
    compare(1000, 50, tiny, tmp_path)


@pytest.mark.usefixtures("ray_on_this_machine")
def test_a_device_that_the_cluster_lacks_is_one_error(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="has no GPU"):
        encode(make_sounds(tmp_path / "s", 2), tmp_path / "out", tiny, execute=run_on_ray, device="cpu:0")


def test_the_command_starts_a_ray_of_its_own(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    program = "import sys; from streaming_encodec.cli.app import main; main()"
    sounds, out = make_sounds(tmp_path / "s", 3), tmp_path / "out"
    command = [sys.executable, "-c", program, "corpus", sounds, out, "-m", tiny, "-f", "wds", "--ray", "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"files": 3' in done.stdout
    # And no cluster where none can be.
    command = [*command[:-2], "--ray", "nonsense", "--again"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: no Ray cluster at nonsense" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines(out / "done.jsonl")) in (0, 1)


def test_without_ray_the_extra_is_named(run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("corpus", make_sounds(tmp_path / "s", 1), tmp_path / "out", "-m", tiny, "--ray")
    result.fails_with('pip install "streaming-encodec[ray]"')
