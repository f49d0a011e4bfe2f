"""The data recipe: sources to a folder of FLAC, licences and splits by voice."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from streaming_encodec.errors import ConfigError, FileFormatError
from streaming_encodec.training import recipe
from streaming_encodec.training.decoding import read_audio
from streaming_encodec.training.listing import HeldOut
from streaming_encodec.training.recipe import (
    PERMISSIVE,
    SOURCES,
    Source,
    build_dataset,
    folder_sources,
    read_manifest,
    split_of_voice,
)

from .conftest import voice_like


def folder_of(path: Path, names: list[str], sample_rate: int = 16000) -> Path:
    for seed, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path / name, voice_like(1.0, seed, sample_rate), sample_rate)
    return path


def test_folder_becomes_flac_at_24_khz_with_source_licence_and_speaker(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["anna/1.wav", "bert/2.wav"])
    clips = build_dataset(tmp_path / "out", [Source("mine", "folder", str(audio), "user-supplied", "train")])
    assert [(c.speaker, c.split, c.licence, c.source) for c in clips] == [
        ("anna", "train", "user-supplied", "mine"),
        ("bert", "train", "user-supplied", "mine"),
    ]
    samples, rate = soundfile.read(tmp_path / "out" / clips[0].file)
    assert rate == 24000
    assert len(samples) == 24000
    assert clips[0].seconds == 1.0
    assert read_manifest(tmp_path / "out" / "manifest.jsonl") == clips


def test_resampling_keeps_the_sound(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["1.wav"])
    (clip,) = build_dataset(tmp_path / "out", [Source("mine", "folder", str(audio), "MIT", "train", "me")])
    kept = read_audio(tmp_path / "out" / clip.file, 16000)
    original = read_audio(audio / "1.wav", 16000)
    error = np.abs(kept[200:-200] - original[: len(kept)][200:-200]).max()
    assert error < 0.02


def test_voices_decide_the_split(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["0.wav", "1.wav", "2.wav", "3.wav"])
    voices = ["af_heart", "af_heart*0.40+am_fenrir", "bm_daniel", "af_sky*0.5+am_adam"]
    rows = [{"file": f"{i}.wav", "voice": voice} for i, voice in enumerate(voices)]
    (audio / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    clips = build_dataset(tmp_path / "out", [Source("k", "folder", str(audio), "Apache-2.0", "train")])
    assert [(c.speaker, c.split) for c in clips] == list(zip(voices, ["train", "eval", "valid", "train"], strict=True))


@pytest.mark.parametrize("voice", ["pm_santa", "pm_santa*0.10+af_sky", "af_sky*0.90+pm_santa"])
def test_a_reserved_voice_is_never_trained_on_alone_or_in_a_blend(voice: str) -> None:
    assert split_of_voice(voice, "train") == "eval"


def test_sources_to_train_on_are_permissive_and_others_are_refused(tmp_path: Path) -> None:
    assert all(source.licence in PERMISSIVE for source in SOURCES if source.split == "train")
    audio = folder_of(tmp_path / "in", ["1.wav"])
    with pytest.raises(ConfigError, match="GPL"):
        build_dataset(tmp_path / "out", [Source("stamps", "folder", str(audio), "GPL-2.0", "train")])
    assert build_dataset(tmp_path / "out", [Source("stamps", "folder", str(audio), "GPL-2.0", "eval")])


def test_silent_and_very_short_files_and_skipped_folders_are_left_out(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["good.wav", "silence/bad.wav"])
    soundfile.write(audio / "short.wav", voice_like(0.2, 1, 16000), 16000)
    soundfile.write(audio / "still.wav", np.zeros(16000), 16000)
    source = Source("mine", "folder", str(audio), "MIT", "train", "me", skip=("silence",))
    assert len(build_dataset(tmp_path / "out", [source])) == 1


def test_an_interrupted_build_goes_on_without_fetching_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = folder_of(tmp_path / "in", ["1.wav"])
    fetched = []

    def fetch(source: Source, into: Path) -> Path:
        fetched.append(source.name)
        return audio

    monkeypatch.setitem(recipe.FETCHERS, "npm", fetch)
    first = Source("first", "npm", "x", "MIT", "train", "me")
    missing = Source("second", "folder", str(tmp_path / "nowhere"), "MIT", "train", "me")
    with pytest.raises(FileFormatError, match="second"):
        build_dataset(tmp_path / "out", [first, missing])
    folder_of(tmp_path / "nowhere", ["2.wav"])
    clips = build_dataset(tmp_path / "out", [first, missing])
    assert [clip.source for clip in clips] == ["first", "second"]
    assert fetched == ["first"]


def own(folder: Path) -> Source:
    return Source("mine", "folder", str(folder), "user-supplied", "train")


def test_a_folder_that_has_changed_is_read_again_and_leaves_nothing_old(tmp_path: Path) -> None:
    audio, out = folder_of(tmp_path / "in", ["1.wav", "2.wav"]), tmp_path / "out"
    build_dataset(out, [own(audio)])
    (audio / "2.wav").unlink()
    folder_of(audio, ["3.wav", "4.wav"])
    (out / "mine" / "notes.txt").write_text("stays")
    assert len(build_dataset(out, [own(audio)])) == 3
    assert sorted(path.name for path in (out / "mine").iterdir()) == [
        "00000.flac", "00001.flac", "00002.flac", "done.jsonl", "notes.txt",
    ]  # fmt: skip
    (audio / "4.wav").unlink()
    build_dataset(out, [own(audio)])
    assert not (out / "mine" / "00002.flac").exists()


def test_folders_of_one_name_and_of_a_packages_name_stay_apart(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path / name, ["1.wav"]) for name in ("anna/wavs", "boris/wavs", "asterisk-en")]
    sources = folder_sources(folders)
    assert [source.name for source in sources] == ["wavs", "boris-wavs", f"{tmp_path.name}-asterisk-en"]
    clips = build_dataset(tmp_path / "out", sources)
    assert len({clip.file for clip in clips}) == 3
    with pytest.raises(ConfigError, match="named mine"):
        build_dataset(tmp_path / "out", [own(folders[0]), own(folders[1])])


def test_what_cannot_be_read_in_a_folder_is_left_out_and_told(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["1.wav", "2.wav"])
    (audio / "0.wav").write_bytes(b"")
    told: list[str] = []
    assert len(build_dataset(tmp_path / "out", [own(audio)], on_skip=told.append)) == 2
    assert len(told) == 1
    assert "0.wav" in told[0]


def test_a_folder_with_a_foreign_manifest_says_what_it_should_hold(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["1.wav"])
    (audio / "manifest.jsonl").write_text('{"audio_filepath": "1.wav"}\n')
    with pytest.raises(FileFormatError, match="'file'"):
        build_dataset(tmp_path / "out", [own(audio)])


def test_a_manifest_says_who_speaks_from_where_under_which_licence_and_how_wide(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["a/0.wav", "a/1.wav", "2.wav"])
    rows = [
        {"file": "a/0.wav", "speaker": "p1", "source": "vctk", "licence": "CC-BY-4.0", "bandwidth_hz": 11000},
        {"file": "a/1.wav", "speaker": "p2", "source": "emodb", "licence": "public domain", "split": "valid"},
    ]
    (audio / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    clips = build_dataset(tmp_path / "out", [own(audio)])
    said = {c.speaker: (c.source, c.licence, c.split) for c in clips}
    assert said == {
        "in": ("mine", "user-supplied", "train"),
        "p1": ("vctk", "CC-BY-4.0", "train"),
        "p2": ("emodb", "public domain", "valid"),
    }
    assert next(c for c in clips if c.speaker == "p1").bandwidth_hz == 11000
    measured = next(c for c in clips if c.speaker == "p2").bandwidth_hz
    assert measured is not None
    assert measured < 8500  # at 16 kHz nothing is above 8 kHz


def test_a_manifest_may_lie_beside_the_folder(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["0.wav"])
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"file": "in/0.wav", "voice": "anna"}))
    assert [clip.speaker for clip in build_dataset(tmp_path / "out", [own(audio)])] == ["anna"]


def test_what_may_not_be_learned_from_is_left_out_and_reported(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["0.wav", "1.wav", "2.wav"])
    rows = [
        {"file": "0.wav", "licence": "CC-BY-NC-4.0"},
        {"file": "1.wav", "licence": "CC-BY-SA-3.0", "split": "eval"},
        {"file": "2.wav", "licence": "MIT"},
    ]
    (audio / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    left_out: list[str] = []
    clips = build_dataset(tmp_path / "out", [own(audio)], on_skip=left_out.append)
    assert [(c.licence, c.split) for c in clips] == [("CC-BY-SA-3.0", "eval"), ("MIT", "train")]
    assert len(left_out) == 1
    assert "CC-BY-NC-4.0" in left_out[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_speakers_held_out_go_where_the_list_says(tmp_path: Path, encoding: str) -> None:
    """Whatever editor wrote the lists."""
    audio = folder_of(tmp_path / "in", [f"{i}.wav" for i in range(4)])
    rows = [{"file": f"{i}.wav", "speaker": f"p{i}", "source": "vctk"} for i in range(4)]
    (audio / "manifest.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding=encoding)
    (tmp_path / "held").write_text(
        "# the listening set\nvctk p0 valid\n* p1 exclude # sounds like another\nemodb p2 eval\n", encoding=encoding
    )
    clips = build_dataset(tmp_path / "out", [own(audio)], held_out=HeldOut.read(tmp_path / "held"))
    assert [(c.speaker, c.split) for c in clips] == [("p0", "valid"), ("p2", "train"), ("p3", "train")]


@pytest.mark.parametrize("line", ["vctk p0", "vctk p0 train", "vctk p 0 valid"])
def test_a_list_of_speakers_that_is_none_names_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "held").write_text(f"\n{line}\n")
    with pytest.raises(FileFormatError, match="line 2"):
        HeldOut.read(tmp_path / "held")


@pytest.mark.parametrize("row", [{"file": "1.wav", "split": "test"}, {"file": "1.wav", "bandwidth_hz": "wide"}, 3])
def test_a_manifest_with_odd_values_is_refused(tmp_path: Path, row: object) -> None:
    audio = folder_of(tmp_path / "in", ["1.wav"])
    (audio / "manifest.jsonl").write_text(json.dumps(row))
    with pytest.raises(FileFormatError, match=r"manifest\.jsonl"):
        build_dataset(tmp_path / "out", [own(audio)])


def test_opus_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "1.opus", voice_like(1.0, 1, 24000), 24000, format="OGG", subtype="OPUS")
    (clip,) = build_dataset(tmp_path / "out", [own(tmp_path / "in")])
    assert clip.seconds == pytest.approx(1.0, abs=0.01)


def test_noise_folders_are_marked_as_noise(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path / name, ["1.wav"]) for name in ("voices", "rain")]
    clips = build_dataset(tmp_path / "out", folder_sources(folders[:1], folders[1:]))
    assert [(clip.source, clip.content) for clip in clips] == [("voices", "speech"), ("rain", "noise")]


def test_long_recordings_are_cut_into_equal_clips_and_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "talk.wav", voice_like(61.0, 1, 24000), 24000)
    clips = build_dataset(tmp_path / "out", [own(tmp_path / "in")])
    assert [round(clip.seconds, 2) for clip in clips] == [20.33] * 3
    joined = np.concatenate([soundfile.read(tmp_path / "out" / clip.file)[0] for clip in clips])
    assert np.allclose(joined, soundfile.read(tmp_path / "in" / "talk.wav")[0], atol=1e-4)


def test_a_data_set_never_learns_from_itself(tmp_path: Path) -> None:
    audio = folder_of(tmp_path / "in", ["1.wav"])
    for name in ("first", "second"):
        source = Source(name, "folder", str(audio), "user-supplied", "train")
        assert len(build_dataset(audio / "data", [source])) == 1
    with pytest.raises(ConfigError, match="another folder"):
        build_dataset(audio, [own(audio)])
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="another folder"):
        build_dataset(tmp_path, [own(tmp_path / "mine")])


def test_packages_are_downloaded_and_unpacked_without_installing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = folder_of(tmp_path / "made", ["usr/share/sounds/1.wav", "package/samples/2.wav"])
    archive = tmp_path / "made.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(made, ".")
    tools = {
        "apt-get": f'test "$1" = download && cp {archive} "$2_1_all.deb"',
        "dpkg-deb": 'test "$1" = -x && mkdir -p "$3" && tar xzf "$2" -C "$3"',
        "npm": f'test "$1 $2" = "pack --ignore-scripts" && cp {archive} "$3-1.0.tgz"',
    }
    (tmp_path / "bin").mkdir()
    for name, body in tools.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    sources = [
        Source("deb", "debian", "some-sounds", "CC-BY-3.0", "train", "x", "usr/share/sounds"),
        Source("js", "npm", "some-samples", "CC0-1.0", "train", "y", "package/samples"),
    ]
    clips = build_dataset(tmp_path / "out", sources)
    assert [(clip.source, clip.seconds) for clip in clips] == [("deb", 1.0), ("js", 1.0)]


def test_a_failing_download_says_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "npm").write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(FileFormatError, match="no such package"):
        build_dataset(tmp_path / "out", [Source("js", "npm", "nothing", "MIT", "train")])


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt-get"):
        build_dataset(tmp_path / "out", [Source("deb", "debian", "x", "MIT", "train")])


def test_g722_is_decoded(tmp_path: Path) -> None:
    samples = voice_like(1.0, 3, 16000)
    path = tmp_path / "1.g722"
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    decoded = read_audio(path, 16000)
    # G.722's filter bank delays by 22 samples.
    error = decoded[22:] - samples[: len(decoded) - 22]
    assert 10 * np.log10(np.mean(samples**2) / np.mean(error**2)) > 15


@pytest.mark.parametrize("content", ["", "not json", '{"file": "x"}'])
def test_a_broken_manifest_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.jsonl"
    if content:
        path.write_text(content)
    with pytest.raises(FileFormatError, match="data set"):
        read_manifest(path)


def test_a_file_that_is_no_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.wav").write_bytes(b"RIFF but no")
    with pytest.raises(FileFormatError, match=r"1\.wav"):
        build_dataset(tmp_path / "out", [Source("mine", "folder", str(tmp_path / "in"), "MIT", "train")])


def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "made.tgz"
    with tarfile.open(archive, "w:gz") as file:
        content = tarfile.TarInfo("../outside.wav")
        content.size = 1
        file.addfile(content, io.BytesIO(b"x"))
    (tmp_path / "npm").write_text(f'#!/bin/sh\ncp {archive} "$3-1.0.tgz"\n')
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(FileFormatError, match="outside"):
        build_dataset(tmp_path / "out", [Source("js", "npm", "bad", "MIT", "train")])
