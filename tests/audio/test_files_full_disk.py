"""A disk that fills up: the whole file is there, or the one before it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from disk_kit import PAGE_BYTES, SmallDisk, disk

from streaming_encodec.audio.files.ecdc import EcdcWriter, is_whole_ecdc
from streaming_encodec.audio.files.writer import SOUND_ENDINGS, AudioWriter
from streaming_encodec.errors import FileFormatError
from streaming_encodec.stepping.state import StreamState
from streaming_encodec.training.curves import CsvLog, plot_curves
from streaming_encodec.training.state import load_state, save_state
from streaming_encodec.wire.ecdc import EcdcLayout

__all__ = ["disk"]

SIZES = 20
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 60_000)).astype(np.float32)
LAYOUT = EcdcLayout(hop_length=320, codebook_size=1024, max_codebooks=8)


def sound(path: Path) -> None:
    with AudioWriter(path, 24_000) as writer:
        for start in range(0, SOUND.shape[1], 480):
            writer.write(SOUND[:, start : start + 480])


def sound_is_whole(path: Path) -> bool:
    return len(soundfile.read(path)[0]) == SOUND.shape[1]


def ecdc(path: Path) -> None:
    # The codes of a long one wait in a file of their own meanwhile.
    frames = 120_000 if "long" in path.name else 9000
    with EcdcWriter(path, "m", 8, LAYOUT) as writer:
        writer.push(np.zeros((8, frames), np.int64))
        writer.close(frames * 320)


def state(path: Path) -> None:
    tensors = {"pending": torch.zeros(1, 1, 25_000)}
    StreamState("encoder", "m", "exact", 1, 8, 0, False, tensors).save(path)


def training_state(path: Path) -> None:
    save_state(path, {"weights": torch.zeros(25_000)}, {"step": 7})


def csv(path: Path) -> None:
    CsvLog(path, [f"column {number} with a very long name indeed" for number in range(2000)], 0)


def picture(path: Path) -> None:
    log = path.with_suffix(".csv")
    assert plot_curves(log, path, [["loss"]] * 3)


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], bool]]] = {
    **{f"a{ending}": (sound, sound_is_whole) for ending in SOUND_ENDINGS},
    "a.ecdc": (ecdc, lambda path: is_whole_ecdc(path, LAYOUT)),
    "long.ecdc": (ecdc, lambda path: is_whole_ecdc(path, LAYOUT)),
    "state.safetensors": (state, lambda path: StreamState.load(path).model == "m"),
    "run.safetensors": (training_state, lambda path: load_state(path)[1] == {"step": 7}),
    "log.csv": (csv, lambda path: path.read_text().endswith("column 1999 with a very long name indeed\n")),
    "curves.png": (picture, lambda path: path.read_bytes()[-8:-4] == b"IEND"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_whole_or_the_one_before_is_there(disk: SmallDisk, name: str) -> None:
    write, is_whole = KINDS[name]
    path = disk.folder / name
    if name == "curves.png":
        path.with_suffix(".csv").write_text("step,loss\n1,2\n2,1\n")
    write(path)
    pages = -(-path.stat().st_size // PAGE_BYTES)
    path.write_bytes(b"what was there before")
    path.chmod(0o600)
    before = disk.files()
    succeeded = 0
    begin = (2 * pages if "long" in name else pages) - SIZES // 2
    for free in range(max(0, begin), max(0, begin) + SIZES):
        disk.leave(free)
        try:
            write(path)
        except FileFormatError as error:
            said = str(error)
            assert said.startswith(f"{path}: cannot be written: No space left on device")
            assert disk.files() == before, free
            continue
        succeeded += 1
        assert is_whole(path), free
        assert path.stat().st_mode & 0o777 == 0o600
        assert set(disk.files()) == set(before)
        path.write_bytes(before[name])
    assert 0 < succeeded < SIZES, "the sizes do not lie around the end of the file"


def test_a_row_that_does_not_fit_leaves_the_log_as_it_was(disk: SmallDisk) -> None:
    path = disk.folder / "log.csv"
    log = CsvLog(path, ("step", "loss"), 0)
    disk.leave(0)
    rows = 0
    said = ""
    while not said and rows < 2 * PAGE_BYTES:
        try:
            log.write({"step": 1.0, "loss": 0.123456})
            rows += 1
        except FileFormatError as error:
            said = str(error)
    assert "No space left" in said
    assert path.read_text() == "step,loss\n" + rows * "1,0.123456\n"
