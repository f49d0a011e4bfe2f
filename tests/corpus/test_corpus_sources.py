"""Lists, folders and tars of recordings: what they give, and one clear error for each that cannot be understood."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_kit import save_random
from corpus_kit import content, encode, lines, make_sounds, make_tar, wav_bytes

from streaming_encodec.corpus.catalog import carried, take_stock
from streaming_encodec.corpus.recordings import Member, Recording, id_problem
from streaming_encodec.corpus.sources.find import find_source
from streaming_encodec.corpus.sources.tar_members import tar_entries
from streaming_encodec.corpus.transcode import encode_file
from streaming_encodec.errors import ConfigError, FileFormatError, StreamingEncodecError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("models") / "tiny-24khz", num_filters=2, hidden_size=8)


def listed(path: Path, text: str | bytes) -> list[Recording]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(find_source(path))


def test_each_kind_of_list_says_the_same(tmp_path: Path) -> None:
    plain = [Recording("a", str(tmp_path / "a.wav")), Recording("deep/b", str(tmp_path / "deep/b.flac"))]
    assert listed(tmp_path / "l.txt", "a.wav\r\n\ndeep/b.flac") == plain
    assert listed(tmp_path / "l.csv", "\ufeffaudio\na.wav\ndeep/b.flac\n") == plain
    assert listed(tmp_path / "l.jsonl", '{"audio": "a.wav"}\n\n{"audio": "deep/b.flac"}\n') == plain
    part = Recording("x", str(tmp_path / "a.wav"), 1.5, 2.0, {"text": "it's, this"})
    assert listed(tmp_path / "p.csv", 'id,audio,start,duration,text\nx,a.wav,1.5,2,"it\'s, this"\n') == [part]
    assert listed(tmp_path / "p.tsv", "id\taudio\tstart\tduration\ttext\nx\ta.wav\t1.5\t2\tit's, this\n") == [part]
    entry = '{"audio": "a.wav", "id": "x", "start": 1.5, "duration": 2, "text": "it\'s, this"}'
    assert listed(tmp_path / "p.jsonl", entry) == [part]


def test_an_id_that_is_not_given_follows_from_the_name(tmp_path: Path) -> None:
    names = ("/data/x/a.b.wav", "../up/c.flac", "plain")
    assert [each.id for each in listed(tmp_path / "l.txt", "\n".join(names))] == ["data/x/a.b", "up/c", "plain"]
    text = '{"audio": "a.wav", "start": 1}\n{"audio": "a.wav", "start": 1, "duration": 0.5}\n'
    text += '{"audio": "a.wav", "id": 7}'
    assert [each.id for each in listed(tmp_path / "l.jsonl", text)] == ["a-000001000", "a-000001000-000001500", "7"]
    assert listed(tmp_path / "abs.txt", "/data/a.wav")[0].audio == "/data/a.wav"


BAD_LISTS = {
    "a.jsonl": {
        '{"audio": "a.wav"}\n{"audio"': "line 2: no JSON",
        '["a.wav"]': "line 1: give an object",
        '{"id": "a"}': "names no `audio`",
        '{"audio": 3}': "names no `audio`",
        '{"audio": "a\\u0000.wav"}': "names no `audio`",
        '{"audio": "a.wav", "start": -1}': "`start` must be seconds, 0 or more, not -1",
        '{"audio": "a.wav", "start": "soon"}': "not 'soon'",
        '{"audio": "a.wav", "start": true}': "not True",
        '{"audio": "a.wav", "start": NaN}': "no number of JSON's",
        '{"audio": "a.wav", "start": 1e400}': "must be seconds",
        '{"audio": "a.wav", "duration": 0}': "`duration` is 0",
        '{"audio": "a.wav", "id": "../../etc/passwd"}': "a relative path",
        '{"audio": "a.wav", "id": "/etc/passwd"}': "a relative path",
        '{"audio": "a.wav", "id": "C:/x"}': "without a drive",
        '{"audio": "a.wav", "id": "a\\nb"}': "control characters",
        '{"audio": "a.wav", "id": ["a"]}': "`id` must be a text",
        '{"audio": "a.wav", "audio": "b.wav"}': "there twice",
        "": "no recording in the list",
        '{"audio": "' + "a" * (1 << 20) + '"}': "longer than",
        '{"audio": "a.wav", "x": ' + "[" * 100_000 + "}": "nested too deeply",
    },
    "a.csv": {
        "path\na.wav": "`audio` among them",
        "audio,audio\na,b": "each once",
        "audio,text\na.wav": "line 2: has 1 columns, the first line 2",
        'audio\n"a.wav': "no table",
        "audio,start\na.wav,nan": "must be seconds",
        "": "must name the columns",
    },
}


@pytest.mark.parametrize(
    ("name", "text", "says"), [(name, text, says) for name, bad in BAD_LISTS.items() for text, says in bad.items()]
)
def test_a_bad_list_is_one_error_before_any_work(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as error:
        encode(tmp_path / name, tmp_path / "out", "no model is asked for")
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no UTF-8"):
        listed(tmp_path / "a.csv", b"audio\ncaf\xe9.wav\n")
    assert listed(tmp_path / "a.txt", b"caf\xe9.wav\n")[0].id == "caf\udce9"  # the name of a file, whatever it is


def test_two_recordings_of_one_id_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("one/a.wav\nx.wav\none/a.flac\n")
    with pytest.raises(ConfigError, match=r"one/a\.wav and .*one/a\.flac both have the id 'one/a'.*rename one"):
        take_stock(find_source(tmp_path / "l.txt"))


@pytest.mark.parametrize("name", ["nothing", "a.mp4", "a.wav"])
def test_what_is_no_source_is_refused(tmp_path: Path, name: str) -> None:
    if name != "nothing":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"give a folder|neither a folder"):
        find_source(tmp_path / name)


def test_parts_of_files_are_encoded_as_files_of_their_own(tiny: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sound = 0.1 * rng.standard_normal(10 * 16_000)
    soundfile.write(tmp_path / "long.flac", sound, 16_000)
    pcm, _ = soundfile.read(tmp_path / "long.flac")
    parts = {"a": (0.0, 1.0), "b": (1.0, 0.25), "c": (7.123, 2.0), "d": (0.5, 1.0), "e": (9.5, 0.505), "f": (9.0, None)}
    (tmp_path / "l.csv").write_text(
        "audio,id,start,duration\n"
        + "".join(f"long.flac,{name},{start},{'' if d is None else d}\n" for name, (start, d) in parts.items())
    )
    assert encode(tmp_path / "l.csv", tmp_path / "out", tiny).failed == []
    for name, (start, duration) in parts.items():
        end = len(pcm) if duration is None else round((start + duration) * 16_000)
        soundfile.write(tmp_path / "part.wav", pcm[round(start * 16_000) : end], 16_000, "FLOAT")
        encode_file(tmp_path / "part.wav", tmp_path / "part.ecdc", str(tiny))
        assert (tmp_path / "part.ecdc").read_bytes() == (tmp_path / "out" / f"{name}.ecdc").read_bytes(), name


@pytest.mark.parametrize("output", ["ecdc", "wds"])
def test_what_cannot_be_read_costs_its_line_alone(tiny: Path, tmp_path: Path, output: str) -> None:
    make_sounds(tmp_path, 3)
    (tmp_path / "noise.wav").write_bytes(b"RIFF no sound")
    (tmp_path / "._note.wav").write_bytes(b"\x00\x05\x16\x07 of macOS")
    entries = [
        '{"audio": "00000.wav"}',
        '{"audio": "missing.wav"}',
        '{"audio": "noise.wav"}',
        '{"audio": "._note.wav"}',
        '{"audio": "00001.wav", "id": "late", "start": 50}',
        '{"audio": "00001.wav", "id": "long", "start": 0, "duration": 50}',
        '{"audio": ".", "id": "folder"}',
        '{"audio": "00002.wav"}',
    ]
    (tmp_path / "l.jsonl").write_text("\n".join(entries))
    done = encode(tmp_path / "l.jsonl", tmp_path / "out", tiny, output=output)
    assert done.recordings == 2
    assert [path.name for path in done.skipped] == ["._note.wav"]
    failed = {line["id"]: line["error"] for line in lines(tmp_path / "out" / "failed.jsonl")}
    assert list(failed) == ["missing", "noise", "late", "long", "folder"]
    assert "check the name" in failed["missing"]
    assert "but the recording should begin at 50 s" in failed["late"]
    assert "but the recording should end at 50 s; correct its times" in failed["long"]


def test_fields_are_carried_under_names_of_their_own() -> None:
    fields = {"text": "x", "model": "mine", "source_model": "theirs", "id_": 3}
    assert carried(Recording("a", "a.wav", fields=fields)) == {
        "text": "x",
        "source_source_model": "mine",
        "source_model": "theirs",
        "id_": 3,
    }


def test_columns_have_one_kind_whatever_a_line_holds(tmp_path: Path) -> None:
    rows = [
        '"n": 1, "x": 1, "t": "a", "b": true, "o": {"k": [1]}, "e": null, "mix": 1, "big": 99999999999999999999',
        '"n": null, "x": 2.5, "t": null, "b": false, "e": null, "mix": "1", "s": "\\ud800"',
    ]
    text = "".join(f'{{"audio": "{place}.wav", {row}}}\n' for place, row in enumerate(rows))
    (tmp_path / "l.jsonl").write_text(text)
    assert take_stock(find_source(tmp_path / "l.jsonl")).columns == {
        "b": "bool",
        "big": "json",
        "e": "text",
        "mix": "json",
        "n": "int",
        "o": "json",
        "s": "json",
        "t": "text",
        "x": "float",
    }


# -- tars ----------------------------------------------------------------------------------------------------


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_finds(tmp_path: Path, format: int) -> None:
    names = ["a.wav", "deep/" * 20 + "b.wav", "café.wav", "x" * 90 + ".wav", "/abs.wav", "../up.wav"]
    if format != tarfile.USTAR_FORMAT:
        names.append("y" * 300 + ".wav")
    path = make_tar(tmp_path / "a.tar", {name: name.encode() * 100 for name in names}, format)
    data = path.read_bytes()
    found = {entry.member.name: data[entry.member.start :][: entry.member.size] for entry in tar_entries(path)}
    assert found == {name: name.encode() * 100 for name in names}


def test_samples_of_tars_are_encoded_with_what_they_have(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    json_text = b'{"speaker": 3, "model": "theirs"}'
    for name in ("one", "two"):
        files = {"k.wav": wav_bytes(2000), "k.json": json_text, "k.txt": b"hello", "deep/m.x.wav": wav_bytes(900)}
        make_tar(folder / f"{name}.tar", {"./": link("./", tarfile.DIRTYPE, ""), "._k.wav": b"note"} | files)
    (folder / "._one.tar").write_bytes(b"\x00\x05\x16\x07")
    done = encode(folder, tmp_path / "out", tiny)
    assert (done.recordings, done.failed) == (4, [])
    (tmp_path / "a.wav").write_bytes(wav_bytes(2000))
    encode_file(tmp_path / "a.wav", tmp_path / "a.ecdc", str(tiny))
    made = content(tmp_path / "out")
    assert made["one/k.ecdc"] == made["two/k.ecdc"] == (tmp_path / "a.ecdc").read_bytes()
    (first, *_) = lines(tmp_path / "out" / "done.jsonl")
    assert first["fields"] == {"speaker": 3, "source_model": "theirs", "txt": "hello"}


def test_hostile_members_cost_their_lines_alone(tiny: Path, tmp_path: Path) -> None:
    files: dict[str, bytes | tarfile.TarInfo] = {
        "good.wav": wav_bytes(1000),
        "sym.wav": link("sym.wav", tarfile.SYMTYPE, "/etc/passwd"),
        "hard.wav": link("hard.wav", tarfile.LNKTYPE, "good.wav"),
        "pipe.wav": link("pipe.wav", tarfile.FIFOTYPE, ""),
        "../../up.wav": wav_bytes(1000),
        "/abs.wav": wav_bytes(1000),
        "with\nline.wav": wav_bytes(1000),
        "text.txt": b"no sound",
        "twins.wav": wav_bytes(1000),
        "twins.flac": wav_bytes(1000),
        "bad.json": b"[1, 2",
        "bad.wav": wav_bytes(1000),
        "last.wav": wav_bytes(1000),
    }
    path = make_tar(tmp_path / "t.tar", files)
    done = encode(path, tmp_path / "out", tiny)
    assert done.recordings == 2
    assert set(content(tmp_path / "out")) >= {"t/good.ecdc", "t/last.ecdc"}
    errors = {line["id"]: line["error"] for line in done.failed}
    says = {
        "t/sym": "a symbolic link",
        "t/hard": "a hard link",
        "t/pipe": "a pipe",
        "t/../../up": "relative path",
        "t//abs": "relative path",
        "t/with\nline": "control characters",
        "t/text": "no sound files",
        "t/twins": "2 sound files",
        "t/bad": "bad.json",
    }
    assert errors.keys() == says.keys()
    assert all(says[name] in error for name, error in errors.items()), errors
    assert not [file for file in tmp_path.iterdir() if file.name not in ("t.tar", "out")]


def huge(path: Path, size: int) -> None:
    """Let the second member claim to be so large, with a right checksum."""
    data = bytearray(path.read_bytes())
    at = data.index(b"huge.wav")
    data[at + 124 : at + 136] = struct.pack(">B11s", 0x80, size.to_bytes(11, "big"))
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("size", [2**20, 2**80])
def test_a_member_that_claims_to_be_huge_ends_its_tar_alone(tiny: Path, tmp_path: Path, size: int) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    make_tar(folder / "a.tar", {"good.wav": wav_bytes(1000), "huge.wav": wav_bytes(1000), "lost.wav": b""})
    huge(folder / "a.tar", size)
    make_tar(folder / "b.tar", {"good.wav": wav_bytes(1000)})
    done = encode(folder, tmp_path / "out", tiny)
    assert done.recordings == 2
    (failed,) = done.failed
    assert f"'huge.wav' should have {size} bytes" in failed["error"]


def test_damaged_tars_raise_one_error_and_nothing_else(tmp_path: Path) -> None:
    names = {"a.wav": b"x" * 1000, "y" * 200 + ".wav": b"y", "café.wav": b"z" * 600}
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        whole = make_tar(tmp_path / "a.tar", names, format).read_bytes()
        path, rng = tmp_path / "b.tar", np.random.default_rng(0)
        refused = 0
        for _ in range(600):
            data = bytearray(whole)
            for at in rng.integers(0, len(whole) if rng.random() < 0.5 else 4096, rng.integers(1, 4)):
                data[at] = rng.integers(256)
            path.write_bytes(bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data))
            try:
                entries = list(tar_entries(path))
            except FileFormatError:
                refused += 1
                continue
            assert all(entry.member.start + entry.member.size <= len(data) for entry in entries)
        assert refused > 100
    for head in (b"\x1f\x8b", b"BZh9", b"\x28\xb5\x2f\xfd"):
        path.write_bytes(head + bytes(600))
        with pytest.raises(StreamingEncodecError, match="is compressed"):
            list(tar_entries(path))


def test_ids() -> None:
    assert [id_problem(good) for good in ("a", "a/b.c", "é", "a b", "..a", "a..")] == [""] * 6
    bad = ("", "/a", "a/", "a//b", "..", "a/../b", ".", "a\\b", "c:x", "a\0", "a\x7f", "é" * 600)
    assert all(id_problem(name) for name in bad)


def test_a_recording_goes_through_json() -> None:
    member = Member("k.wav", 512, 100)
    recording = Recording("a", "b", 1.0, 24.5, {"x": [1, {"y": None}]}, member, (("txt", member),), "why")
    assert Recording.from_json(recording.to_json()) == recording
