"""Models and speech of the tests of commands, and a way to run these."""

import pytest
from cli_kit import Result, Run, mono_model, segment_model, speech
from typer.testing import CliRunner

from streaming_encodec.cli.app import app

__all__ = ["mono_model", "run", "segment_model", "speech"]


@pytest.fixture
def run() -> Run:
    """Run a command line in this process."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Result(result.exit_code, result.stdout, result.stderr, result.exception)

    return run
