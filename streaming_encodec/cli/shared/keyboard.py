"""Single keys while a command runs, if the input is a terminal."""

from __future__ import annotations

import contextlib
import sys
from types import TracebackType
from typing import Any, Self


class Keyboard:
    """Within its `with` block `poll` gives the keys pressed since the last call, without waiting and without
    echo.

    If the input is not a terminal, there are no keys.
    """

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        if sys.platform != "win32" and sys.stdin.isatty():
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.platform != "win32" and self._before is not None:
            import termios

            with contextlib.suppress(termios.error):  # the terminal was closed
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def poll(self) -> str:
        """Keys, in order."""
        keys = ""
        if sys.platform == "win32":
            import msvcrt

            while msvcrt.kbhit():
                keys += msvcrt.getwch()
        elif self._before is not None:
            import os
            import select

            while select.select([sys.stdin], [], [], 0)[0]:
                read = os.read(sys.stdin.fileno(), 32)
                if not read:
                    break
                keys += read.decode(errors="ignore")
        return keys
