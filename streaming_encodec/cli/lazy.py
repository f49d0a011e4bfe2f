"""A group of commands of which only the one that runs is imported.

The help screen needs a name and a line for each command, which a table holds. The command's module is imported when
the command runs or prints its own help.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from streaming_encodec.cli.shared.console import complain
from streaming_encodec.cli.shared.error_text import error_text
from streaming_encodec.cli.shared.printable import PrintableFormatter, printable
from streaming_encodec.errors import BandwidthError, StreamingEncodecError
from streaming_encodec.extras import TORCH_PACKAGES, missing_torch

_CONTEXT = {"help_option_names": ["-h", "--help"]}

_MOST = 1e9
"""Largest number on a command line: seconds, samples or ms beyond it are typing errors."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A command, or a group of commands: its name (and its module's in `commands/`), a line of help, its panel."""

    name: str
    help: str
    panel: str | None = None
    commands: tuple[Entry, ...] = ()


def build_app(entries: tuple[Entry, ...], help_text: str, prefix: str = "") -> typer.Typer:
    """Make the app that shows `entries` and imports each on use. `prefix`: of the modules' names."""
    by_name = {entry.name: entry for entry in entries}

    # Typer's own signatures name the context class of whichever click it carries; `Any` fits each of them.
    class LazyGroup(TyperGroup):
        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
            name, stub, rest = super().resolve_command(ctx, args)
            return name, (stub if name is None else _load(by_name[name], prefix)), rest

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Read the command line up to the command."""
            with _usage_made_printable():
                return super().parse_args(ctx, args)

        def invoke(self, ctx: Any) -> Any:
            """Run the command; an error of the package or the system becomes one line and exit code 1."""
            if logging.lastResort is not None:  # the handler for logs of libraries, unless another is set up
                logging.lastResort.setFormatter(PrintableFormatter())
            try:
                with _usage_made_printable():
                    done = super().invoke(ctx)
                if sys.stdout is not None:
                    sys.stdout.flush()  # raise its errors here, not when Python ends
                return done
            except BrokenPipeError:
                _silence_stdout()  # as in `| head`: no message
            except UnicodeEncodeError as error:
                complain(f"{error.object!r} is no text, and cannot be the name of such a file: rename it")
            except ModuleNotFoundError as error:
                if error.name not in TORCH_PACKAGES:
                    raise
                complain(str(missing_torch("this command", error.name)))
            except (StreamingEncodecError, OSError) as error:
                _silence_stdout()
                complain(error_text(error))
            except KeyboardInterrupt:
                complain("interrupted")
            raise typer.Exit(1)

    app = typer.Typer(
        cls=LazyGroup,
        help=help_text,
        add_completion=not prefix,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        context_settings=_CONTEXT,
        pretty_exceptions_show_locals=False,
    )
    for entry in entries:
        app.command(entry.name, help=entry.help, rich_help_panel=entry.panel)(_placeholder)
    return app


class _Command(TyperCommand):
    """A command whose numbers are finite: NaN and infinity are neither below a least nor above a most, so both pass.

    A bandwidth that the model does not have is wrong usage. An option whose metavar is in brackets may stand without
    its value, at the end or before another option; then it is an empty text.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give these options their value."""
        optional = {
            name for parameter in self.params if (parameter.metavar or "").startswith("[") for name in parameter.opts
        }
        args = list(args)
        for place in reversed(range(len(args))):
            if args[place] in optional and (place + 1 == len(args) or args[place + 1].startswith("-")):
                args.insert(place + 1, "")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        for parameter in ctx.command.params:
            value = ctx.params.get(parameter.name)
            if isinstance(value, float) and not abs(value) <= _MOST:
                raise typer.BadParameter(f"{value} is out of range", ctx=ctx, param=parameter)
        try:
            return super().invoke(ctx)
        except BandwidthError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param_hint="--bandwidth") from error


@contextmanager
def _usage_made_printable() -> Iterator[None]:
    """Make typer's usage errors printable: they quote the command line."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message") and isinstance(message := getattr(error, "message", None), str):
            error.message = printable(message)  # type: ignore[attr-defined]  # of the class that typer carries
        raise


def _silence_stdout() -> None:
    """Drop output that stdout does not accept: Python would try again at exit, and print an error."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        with suppress(OSError, ValueError, AttributeError):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, sys.stdout.fileno())
            os.close(sink)


def _placeholder() -> None:
    """Stands in the help screen for a command that is not imported yet; never runs."""


def _load(entry: Entry, prefix: str) -> Any:
    if entry.commands:
        made = build_app(entry.commands, entry.help, f"{prefix}{entry.name}_")
    else:
        made = typer.Typer(
            add_completion=False,
            rich_markup_mode="markdown",
            context_settings=_CONTEXT,
            pretty_exceptions_show_locals=False,
        )
        function = import_module(f"streaming_encodec.cli.commands.{prefix}{entry.name}").command
        made.command(entry.name, cls=_Command)(function)
    command = typer.main.get_command(made)
    command.name = entry.name
    return command
