"""The frame of the command line: help, usage errors, laziness."""

import subprocess
import sys

import pytest
from cli_kit import Run

from streaming_encodec.cli.app import COMMANDS


def test_help_lists_every_command(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for entry in COMMANDS:
        assert entry.name in result.out


@pytest.mark.parametrize("name", [entry.name for entry in COMMANDS])
def test_each_command_has_help(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.code == 0
    assert f"streaming-encodec {name}" in result.out or f"root {name}" in result.out


def test_no_arguments_is_usage(run: Run) -> None:
    assert run().code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["strem"],
        ["stream"],
        ["stream", "in.wav"],
        ["stream", "in.wav", "out.wav", "--nix"],
        ["stream", "in.wav", "out.wav", "--block-samples", "0"],
        ["stream", "in.wav", "out.wav", "--block-samples", "many"],
        ["stream", "in.wav", "out.wav", "--start", "late"],
        ["stream", "in.wav", "out.wav", "--threads", "0"],
        ["encode", "in.wav"],
        ["decode", "in.ecdc"],
        ["info"],
    ],
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.err != ""


def test_a_slip_is_corrected(run: Run) -> None:
    assert "'stream'" in run("strem").err


@pytest.mark.parametrize("arguments", [["--help"], ["stream", "--help"], ["encode", "--help"], ["models", "--json"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from streaming_encodec.cli.app import main\n"
        f"sys.argv = ['streaming-encodec', *{arguments!r}]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'soundfile', 'sounddevice', 'websockets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
