"""A client's end of a WebSocket connection."""

from __future__ import annotations

from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from streaming_encodec.transport.websocket.connection import MaskedFrames, WebSocketConnection, ended

_QUEUE_FRAMES = 30
"""Frames that wait for a slow network: 0.4 s."""


class WebSocketClient(WebSocketConnection, ClientConnection):
    """A `transport.base.Connection` to a relay; made by `WebSocketDialer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, frames=MaskedFrames(), queue_frames=_QUEUE_FRAMES, **kwargs)

    async def ask(self) -> float:
        """Send a ping and wait for the answer; returns the round trip in seconds. Raises ConnectionEnded."""
        try:
            return await (await self.ping())
        except ConnectionClosed as closed:
            raise ended(closed) from closed
