"""A line to a relay over TCP that can be slow, or be lost for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_PIECE_BYTES = 4096


class Line:
    """While it is lost, nothing passes either way, and new connections are not answered; then all goes on.

    bytes_per_s: of all connections together, each way; None is no limit.
    """

    def __init__(self, port: int, bytes_per_s: float | None) -> None:
        self._port, self._bytes_per_s = port, bytes_per_s
        self._works = asyncio.Event()
        self._works.set()
        self._free_s = {"up": 0.0, "down": 0.0}

    def lose(self) -> None:
        """The line is lost."""
        self._works.clear()

    def restore(self) -> None:
        """It is back."""
        self._works.set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a connection."""
        try:
            await self._works.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._carry(reader, back, "up"))
                    both.create_task(self._carry(there, writer, "down"))
            finally:
                back.close()
        except* (OSError, EOFError):
            pass  # one end is gone, so the other one goes too
        finally:
            writer.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        clock = asyncio.get_running_loop().time
        while piece := await source.read(_PIECE_BYTES):
            await self._works.wait()
            if self._bytes_per_s is not None:
                self._free_s[way] = max(self._free_s[way], clock()) + len(piece) / self._bytes_per_s
                await asyncio.sleep(self._free_s[way] - clock())
            sink.write(piece)
            await sink.drain()
        raise EOFError


@asynccontextmanager
async def line(to: int, port: int, *, bytes_per_s: float | None = None) -> AsyncIterator[Line]:
    """A line from `port` of this machine to the port `to`."""
    made = Line(to, bytes_per_s)
    server = await asyncio.start_server(made.answer, "127.0.0.1", port)
    try:
        yield made
    finally:
        made.restore()
        server.close()
