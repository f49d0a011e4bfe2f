"""Numbers on the command line that nobody means: wrong usage, said before any work."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from cli_kit import Run

from streaming_encodec.cli.app import COMMANDS
from streaming_encodec.cli.lazy import _load


def _commands() -> Iterator[tuple[str, str, Any]]:
    """Every command as it is typed, its module's name, and what parses its arguments."""
    for entry in COMMANDS:
        found = _load(entry, "")
        if not entry.commands:
            yield entry.name, entry.name, found
        for inner in entry.commands:
            yield f"{entry.name} {inner.name}", f"{entry.name}_{inner.name}", _load(inner, f"{entry.name}_")


PARSERS = {command: parser for command, _, parser in _commands()}


def _options(kind: type) -> list[tuple[str, str]]:
    """Every option of every command whose value is of this kind."""
    found = []
    for command, module, parser in _commands():
        hints = get_type_hints(import_module(f"streaming_encodec.cli.commands.{module}").command)
        for parameter in parser.params:
            hint = hints.get(parameter.name)
            if parameter.param_type_name == "option" and (hint is kind or kind in get_args(hint)):
                found.append((command, parameter.opts[0]))
    return found


def _arguments(command: str) -> list[str]:
    required = [p for p in PARSERS[command].params if p.param_type_name == "argument" and p.required]
    return [*command.split(), *("somewhere" for _ in required)]


def test_there_are_such_options() -> None:
    assert len(_options(float)) > 15
    assert len(_options(int)) > 20


@pytest.mark.parametrize(("command", "option"), _options(float), ids=str)
def test_floats_that_are_no_numbers(command: str, option: str, run: Run, tmp_path: Path) -> None:
    for value in ("nan", "inf", "-inf", "1e300", "-1e300", "much"):
        result = run(*_arguments(command), f"{option}={value}")
        assert result.code == 2, (value, result.out, result.err)
        assert "Traceback" not in result.err


@pytest.mark.parametrize(("command", "option"), _options(int), ids=str)
def test_whole_numbers_that_are_none(command: str, option: str, run: Run) -> None:
    for value in ("nan", "1.5", "-1000000000000000000000", "x"):
        result = run(*_arguments(command), f"{option}={value}")
        assert result.code == 2, (value, result.out, result.err)


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *((command, option, "20000") for command in PARSERS for option in ("--threads", "--jobs", "--replicas")),
        ("export", "--frames-per-step", "1000000"),
        ("train", "--seed", "-1"),
        ("train", "--seed", str(2**64)),
        ("train", "--batch-size", str(10**9)),
        ("train", "--segment-seconds", "1e6"),
        ("train", "--learning-rate", "1000"),
        ("evaluate", "--seed", "-1"),
        ("evaluate", "--loss", "nan"),
        ("evaluate", "--loss", "200"),
        ("evaluate", "--loss", "-5"),
        ("evaluate", "--bandwidths", "inf"),
        ("evaluate", "--loss-bandwidths", "6,nan"),
    ],
)
def test_more_than_any_machine_has(command: str, option: str, value: str, run: Run, mono_model: Path) -> None:
    known = [name for parameter in PARSERS[command].params for name in parameter.opts]
    if option not in known:
        return  # the list of commands is open: those without the option have nothing to refuse
    extra: list[Any] = ["--model", mono_model] if "--model" in known and value in ("nan", "200", "-5", "inf") else []
    result = run(*_arguments(command), f"{option}={value}", *extra)
    assert result.code == 2, (result.out, result.err)
