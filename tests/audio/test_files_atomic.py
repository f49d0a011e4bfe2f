"""Files that replace others: whole, on the disk, with the permissions that were there."""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streaming_encodec.audio.files.atomic import AtomicFiles, AtomicPath, check_writable, write_text
from streaming_encodec.audio.files.targets import check_folder, check_target
from streaming_encodec.audio.files.writer import AudioWriter
from streaming_encodec.errors import FileFormatError

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="links and permissions are those of Unix")
NOBODY = 65_534


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder for everybody; permissions bind root only when it is somebody else."""
    if not hasattr(os, "seteuid") or os.geteuid():
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@UNIX
@pytest.mark.parametrize("bits", [0o600, 0o640, 0o666, 0o755])
def test_a_file_keeps_its_permissions(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(bits)
    write_text(path, "new")
    assert (path.read_text(), mode(path)) == ("new", bits)


@UNIX
def test_a_new_file_has_what_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "new")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.txt") == 0o640


@UNIX
def test_a_secret_is_secret_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o600)
    with AtomicPath(path) as file:
        assert mode(file.temporary) == 0o600
    with AtomicFiles(tmp_path) as part:
        assert mode(part) == 0o700


@UNIX
def test_a_file_keeps_its_owner(shared: Path) -> None:
    path = shared / "a.txt"
    path.write_text("old")
    os.chown(path, NOBODY, NOBODY)
    write_text(path, "new")
    state = path.stat()
    assert (state.st_uid, state.st_gid) == (NOBODY, NOBODY)


@UNIX
def test_a_file_of_another_group_gives_that_of_the_writer_no_more_than_all_had(shared: Path) -> None:
    path = shared / "a.txt"
    path.write_text("old")
    path.chmod(0o664)
    os.chown(path, NOBODY, 0)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        write_text(path, "new")
    finally:
        os.seteuid(0)
        os.setegid(0)
    assert (path.read_text(), mode(path)) == ("new", 0o644)


@UNIX
def test_through_a_link_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.wav", tmp_path / "link.wav"
    link.symlink_to(real)
    with AudioWriter(link, 24_000) as writer:
        writer.write(np.zeros((1, 10), np.float32))
    assert link.is_symlink()
    assert real.stat().st_size == 44 + 20
    assert os.listdir(tmp_path / "far") == ["real.wav"]


def test_content_is_on_the_disk_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def note_sync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def note_replace(old: Path, new: Path) -> None:
        done.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_text(tmp_path / "a.txt", "new")
    with AtomicFiles(tmp_path / "new") as part:
        (part / "a").write_text("1")
        (part / "b").write_text("2")
    folder = [] if sys.platform == "win32" else ["folder"]
    assert done == ["file", "name", *folder, "file", "file", "name", "name", *folder]


def test_what_the_disk_does_not_take_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    path.write_text("old")

    def refuse(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    writer = AudioWriter(path, 24_000)
    writer.write(np.zeros((1, 10), np.float32))
    with pytest.raises(FileFormatError, match=r"a\.wav: cannot be written: Input/output error"):
        writer.close()
    assert os.listdir(tmp_path) == ["a.wav"]
    assert path.read_text() == "old"


def test_a_file_that_got_shorter_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    writer = AudioWriter(path, 24_000)
    writer.write(np.zeros((1, 1000), np.float32))
    writer.samples += 1
    with pytest.raises(FileFormatError, match="1000 of 1001 samples"):
        writer.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", [".flac", ".mp3"])
def test_formats_without_empty_files_say_so(tmp_path: Path, ending: str) -> None:
    with pytest.raises(FileFormatError, match=r"no sound.*use \.wav"), AudioWriter(tmp_path / f"a{ending}", 24_000):
        pass
    assert os.listdir(tmp_path) == []


def test_a_wav_that_is_full_keeps_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming_encodec.audio.files.writer._MAX_WAV_BYTES", 2000)
    path = tmp_path / "a.wav"
    sound = np.zeros((1, 480), np.float32)
    with AudioWriter(path, 24_000) as writer:
        writer.write(sound)
        writer.write(sound)
        with pytest.raises(FileFormatError, match="is full"):
            writer.write(sound)
    assert path.stat().st_size == 44 + 2 * 960


@pytest.mark.parametrize("letters", ["a" * 251 + ".wav", "ä" * 125 + ".wav", "\U0001f600" * 62 + "a.wav"])
def test_names_as_long_as_the_system_takes(tmp_path: Path, letters: str) -> None:
    path = tmp_path / letters
    with AudioWriter(path, 24_000) as writer:
        writer.write(np.zeros((1, 10), np.float32))
    assert os.listdir(tmp_path) == [letters]


def test_longer_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"cannot be written: .*name"):
        check_writable(tmp_path / ("a" * 252 + ".wav"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    with AudioWriter(path, 24_000) as writer:
        writer.write(np.zeros((1, 10), np.float32))
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9.wav"]


@UNIX
def test_what_may_not_be_written_is_told_before(shared: Path) -> None:
    closed = shared / "closed"
    closed.mkdir()
    kept = shared / "kept.wav"
    kept.write_text("old")
    kept.chmod(0o444)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(FileFormatError, match="no permission to write into"):
            check_target(closed / "a.wav", [".wav"])
        with pytest.raises(FileFormatError, match="write-protected"):
            check_target(kept, [".wav"])
        with pytest.raises(FileFormatError, match="no permission to write into"):
            check_folder(closed / "new" / "folder")
    finally:
        os.seteuid(0)


@UNIX
def test_the_input_is_no_output_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a.wav"
    source.write_text("my only copy")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.wav").symlink_to(source)
    (tmp_path / "hard.wav").hardlink_to(source)
    (tmp_path / "sub" / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "./sub/../a.wav", source, "link.wav", "hard.wav", "sub/folder/a.wav"):
        with pytest.raises(FileFormatError, match="is the input"):
            check_target(name, [".wav"], [source])
        with pytest.raises(FileFormatError, match="is the input"):
            check_target(source, [".wav"], [None, name])
    check_target("b.wav", [".wav"], [source, None, "nix.wav"])


@UNIX
def test_the_input_in_other_letters_is_no_output_where_letters_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.wav"
    source.write_text("my only copy")
    state = os.stat

    def careless(path: object, *arguments: object, **options: object) -> os.stat_result:
        return state(str(path).replace("A.WAV", "a.wav"), *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", careless)
    with pytest.raises(FileFormatError, match="is the input"):
        check_target(tmp_path / "A.WAV", [".wav"], [source])
