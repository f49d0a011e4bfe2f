"""Sound through pipes: standard input, FIFOs, standard output, readers that leave early."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from cli_kit import Run
from sound_kit import encoded, mp3_of, sound

if sys.platform == "win32":
    pytest.skip("the shell's pipes are those of Unix", allow_module_level=True)

PROGRAM = "from streaming_encodec.cli.app import main; main()"
# 1.5 s of sound, in each kind that is common on pipes.
PCM = sound(36_000, 1)
KINDS: dict[str, Callable[[Path], bytes]] = {
    "wav": lambda folder: encoded(PCM, "WAV", "PCM_16"),
    "float.wav": lambda folder: encoded(PCM, "WAV", "FLOAT"),
    "adpcm.wav": lambda folder: encoded(PCM, "WAV", "IMA_ADPCM"),
    "au": lambda folder: encoded(PCM, "AU", "PCM_16"),
    "flac": lambda folder: encoded(PCM, "FLAC"),
    "ogg": lambda folder: encoded(PCM, "OGG"),
    "aiff": lambda folder: encoded(PCM, "AIFF"),
    "mp3": lambda folder: mp3_of(PCM, folder, True),
}


def program(*arguments: object, data: bytes | None = None, **options: object) -> subprocess.CompletedProcess[bytes]:
    """The program in a process of its own, as a shell runs it."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, timeout=120, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def fifo(tmp_path: Path) -> Callable[[bytes], Path]:
    """A FIFO that somebody writes these bytes into."""
    made: list[threading.Thread] = []

    def make(data: bytes) -> Path:
        path = tmp_path / f"fifo{len(made)}"
        os.mkfifo(path)

        def write() -> None:
            # `info` reads the header alone, and leaves.
            with suppress(BrokenPipeError), path.open("wb", buffering=0) as file:
                for start in range(0, len(data), 1000):  # as it comes
                    file.write(data[start : start + 1000])

        made.append(threading.Thread(target=write, daemon=True))
        made[-1].start()
        return path

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_fifo_is_as_good_as_a_file(
    run: Run, mono_model: Path, tmp_path: Path, fifo: Callable[[bytes], Path], kind: str
) -> None:
    data = KINDS[kind](tmp_path)
    file = tmp_path / f"a.{kind}"
    file.write_bytes(data)
    assert run("encode", file, tmp_path / "file.ecdc", "-m", mono_model).code == 0
    facts = run("encode", fifo(data), tmp_path / "pipe.ecdc", "-m", mono_model, "--json").json
    assert facts["input_samples"] == facts["input_samples_promised"]
    assert (tmp_path / "pipe.ecdc").read_bytes() == (tmp_path / "file.ecdc").read_bytes()
    told = run("info", fifo(data), "--json").json
    assert told | {"file": 0} == run("info", file, "--json").json | {"file": 0}


def test_standard_input_of_every_reading_command(mono_model: Path, tmp_path: Path) -> None:
    wav = KINDS["wav"](tmp_path)
    (tmp_path / "a.wav").write_bytes(wav)
    model = ("-m", mono_model)
    whole = program("encode", tmp_path / "a.wav", tmp_path / "a.ecdc", *model)
    assert whole.returncode == 0, whole.stderr
    ecdc = (tmp_path / "a.ecdc").read_bytes()
    for name in ("-", "/dev/stdin"):
        done = program("encode", name, tmp_path / "b.ecdc", *model, data=wav)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "b.ecdc").read_bytes() == ecdc
        for command in (("stream", name, tmp_path / "out.wav"), ("decode", name, tmp_path / "out.wav")):
            done = program(*command, *model, data=ecdc if command[0] == "decode" else wav)
            assert done.returncode == 0, done.stderr
            assert soundfile.info(tmp_path / "out.wav").frames == len(PCM)
        for data, kind in ((wav, "sound"), (ecdc, "ecdc"), (KINDS["flac"](tmp_path), "sound")):
            facts = json.loads(program("info", name, "--json", data=data).stdout)
            assert (facts["kind"], facts["samples"]) == (kind, len(PCM))
    with (tmp_path / "a.wav").open("rb") as file:  # `<` in place of `|`
        done = program("encode", "-", tmp_path / "c.ecdc", *model, stdin=file)
    assert (tmp_path / "c.ecdc").read_bytes() == ecdc


def test_process_substitution(mono_model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(KINDS["wav"](tmp_path))
    shell = f'"{sys.executable}" -c "{PROGRAM}" encode <(cat a.wav) a.ecdc -m "{mono_model}"'
    subprocess.run(["bash", "-c", shell], check=True, cwd=tmp_path, capture_output=True, timeout=120)
    assert (tmp_path / "a.ecdc").stat().st_size > 100


def test_a_chain_of_pipes_gives_what_files_give(run: Run, mono_model: Path, tmp_path: Path) -> None:
    wav = KINDS["wav"](tmp_path)
    (tmp_path / "a.wav").write_bytes(wav)
    run("encode", tmp_path / "a.wav", tmp_path / "a.ecdc", "-m", mono_model)
    run("decode", tmp_path / "a.ecdc", tmp_path / "b.wav", "-m", mono_model)
    run("stream", tmp_path / "a.wav", tmp_path / "c.wav", "-m", mono_model)
    ecdc = program("encode", "-", "-", "-m", mono_model, "--json", data=wav)
    assert ecdc.stdout == (tmp_path / "a.ecdc").read_bytes()
    assert json.loads(ecdc.stderr.splitlines()[-1])["bytes"] == len(ecdc.stdout)
    for command, data, want in (("decode", ecdc.stdout, "b.wav"), ("stream", wav, "c.wav")):
        done = program(command, "-", "-", "-m", mono_model, data=data)
        assert done.returncode == 0
        assert b"kbps" in done.stderr  # the table, which must not be in the sound
        assert done.stdout[44:] == (tmp_path / want).read_bytes()[44:]
        # Who reads it knows that its length is not known.
        (tmp_path / "piped.wav").write_bytes(done.stdout)
        assert run("info", tmp_path / "piped.wav", "--json").json["samples"] == len(PCM)
        np.testing.assert_array_equal(soundfile.read(tmp_path / "piped.wav")[0], soundfile.read(tmp_path / want)[0])


def test_a_stream_of_unknown_length_leaves_while_it_comes(mono_model: Path, tmp_path: Path) -> None:
    wav = bytearray(KINDS["wav"](tmp_path))
    wav[40:44] = b"\xff\xff\xff\xff"
    command = [sys.executable, "-c", PROGRAM, "stream", "-", "-", "-m", str(mono_model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        feeder = threading.Thread(target=process.stdin.write, args=(bytes(wav) + bytes(10 * 16_384 * 2),))
        feeder.start()
        head = process.stdout.read(300_000)  # and no end of the input yet
        assert len(head) == 300_000
        feeder.join()
        process.stdin.close()
        rest, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == 0, err
    assert len(head) + len(rest) == 44 + 2 * (len(PCM) + 10 * 16_384)
    assert b"header promises no number" in err


def test_a_pipe_that_ends_too_soon_is_told(mono_model: Path, tmp_path: Path) -> None:
    for kind in ("wav", "flac", "au"):
        data = KINDS[kind](tmp_path)
        done = program("encode", "-", tmp_path / "a.ecdc", "-m", mono_model, data=data[: len(data) // 2])
        assert done.returncode == 1
        assert b"cut off" in done.stderr or b"damaged" in done.stderr
        assert not (tmp_path / "a.ecdc").exists()
    done = program("encode", "-", tmp_path / "a.ecdc", "-m", mono_model, data=b"")
    assert (done.returncode, b"not an audio file" in done.stderr) == (1, True)


@pytest.mark.parametrize("arguments", [("decode", "-"), ("stream", "-"), ("encode", "-"), ("models",), ("info",)])
def test_a_reader_that_leaves_early_is_no_error_in_words(
    run: Run, mono_model: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    source = tmp_path / "a.wav"
    source.write_bytes(encoded(sound(400_000), "WAV", "PCM_16"))
    run("encode", source, tmp_path / "a.ecdc", "-m", mono_model)
    given = [tmp_path / "a.ecdc" if arguments[0] == "decode" else source, *arguments[1:]]
    options = () if arguments[0] in ("models", "info") else ("-m", mono_model)
    given = [] if arguments[0] == "models" else given
    command = [sys.executable, "-c", PROGRAM, arguments[0], *map(str, given), *map(str, options)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=120, check=False)
    os.close(write)
    said = [line for line in done.stderr.splitlines() if not line.startswith(b"note:")]
    assert (done.returncode, said) == (1, [])


def test_a_full_stdout_is_told(mono_model: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    source = tmp_path / "a.wav"
    source.write_bytes(KINDS["wav"](tmp_path))
    for arguments in (("info", source), ("models", "--json"), ("stream", source, "-"), ("encode", source, "-")):
        options = ("-m", mono_model) if arguments[-1] == "-" else ()
        with open("/dev/full", "wb") as full:
            command = [sys.executable, "-c", PROGRAM, *map(str, arguments), *map(str, options)]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=120, check=False)
        assert done.returncode == 1, done.stderr
        (line,) = done.stderr.splitlines()
        assert b"No space left on device" in line
