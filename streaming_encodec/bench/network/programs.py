"""The product's own command line in a namespace: its output in files, its end known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streaming_encodec.bench.network.topology import inside
from streaming_encodec.errors import StreamingEncodecError

_START = "from streaming_encodec.cli.app import main; main()"
_POLL_S = 0.005
_PATIENCE_S = 120.0
"""For a program to start: loading a model takes long on a busy machine."""
_PARTING_S = 20.0


def command(*arguments: object) -> list[str]:
    """The command line that runs `streaming-encodec` with these arguments, of the installation that this process is."""
    return [sys.executable, "-c", _START, *map(str, arguments)]


class Program:
    """One command, running from its making until it is left. Its files lie in `folder`."""

    def __init__(self, namespace: str, folder: Path, *arguments: object) -> None:
        self.name = str(arguments[0])
        self.trace = folder / f"{self.name}.jsonl"
        self._out, self._err = folder / f"{self.name}.json", folder / f"{self.name}.log"
        with inside(namespace), self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # Ctrl-C is the laboratory's, which ends everything in order
                env=os.environ | {"NO_COLOR": "1"},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def wait_until(self, what: str, happened: Callable[[], bool]) -> None:
        """Raise StreamingEncodecError where the program ends first, or nothing happens for two minutes."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not happened():
            if self.process.poll() is not None:
                raise StreamingEncodecError(f"{self.name} ended before {what}: {self.last_words()}")
            if time.monotonic() > deadline_s:
                raise StreamingEncodecError(f"{self.name} took more than {_PATIENCE_S:g} s until {what}")
            time.sleep(_POLL_S)

    def wait(self, seconds: float) -> bool:
        """Let it end by itself for so long, then by SIGTERM; whether it did by itself."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_PARTING_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            return False
        return True

    def said(self, event: str) -> bool:
        """Whether its time line holds such an event."""
        return self.trace.exists() and f'"event": "{event}"' in self.trace.read_text(encoding="ascii")

    @property
    def facts(self) -> dict[str, Any]:
        """What it printed with `--json`, its exit code and its last line of errors."""
        text = self._out.read_text(encoding="utf-8").strip()
        facts: dict[str, Any] = json.loads(text.splitlines()[-1]) if text else {}
        return facts | {"exit_code": self.process.returncode, "last_words": self.last_words()}

    def last_words(self) -> str:
        """The last line on standard error."""
        lines = self._err.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
