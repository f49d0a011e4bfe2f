"""A folder has one writer: a second run is refused, and a run that was killed leaves nothing in the way."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cli_kit import Run, noise

from streaming_encodec.audio.files.folder_lock import FolderLock
from streaming_encodec.errors import FolderError

_HOLDER = """
import sys, time
from pathlib import Path
from streaming_encodec.audio.files.folder_lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_run_gives_its_folder_back(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderError, match=rf"in use by another run \(process {holder.pid}\): wait for its end"):
        FolderLock(folder).__enter__()
    holder.kill()
    holder.communicate()
    with FolderLock(folder):
        pass
    assert list(folder.iterdir()) == []


def test_one_at_a_time_however_many_try(tmp_path: Path) -> None:
    inside, most, entered = [0], [0], [0]
    count = threading.Lock()

    def work() -> None:
        done = 0
        while done < 20:
            try:
                with FolderLock(tmp_path):
                    with count:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                        entered[0] += 1
                    with count:
                        inside[0] -= 1
                done += 1
            except FolderError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], entered[0]) == (1, 80)


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="cannot be written"):
        FolderLock(tmp_path / "file" / "run").__enter__()
    with pytest.raises(RuntimeError), FolderLock(tmp_path / "new"):
        raise RuntimeError
    assert not (tmp_path / "new").exists()


def test_every_command_that_fills_a_folder_holds_it(run: Run, mono_model: Path, tmp_path: Path) -> None:
    out, sound = tmp_path / "out", tmp_path / "sound"
    sound.mkdir()
    noise(sound / "a.wav", 24_000)
    commands = {
        "export": ("export", mono_model, out),
        "corpus": ("corpus", sound, out, "--model", mono_model),
        "evaluate": ("evaluate", sound, "--out", out, "--model", mono_model, "--metrics", "log_mel_db", "--quick"),
        "train": ("train", "--data", sound, "--out", out),
        "build-data": ("train", "--build-data", "--only-folders", "--folder", sound, "--data", out),
    }
    for arguments in commands.values():
        with FolderLock(out):
            run(*arguments).fails_with("is in use by another run")
        assert list(out.iterdir()) == []
    assert run(*commands["export"], "--json").code == 0
    assert ".streaming-encodec.lock" not in {path.name for path in out.iterdir()}
    assert run(*commands["export"], "--json").code == 0, "an export may be written anew"
