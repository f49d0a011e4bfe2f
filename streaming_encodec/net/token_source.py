"""Where a client's token comes from: it has one, or a function of its owner's fetches a fresh one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from streaming_encodec.errors import CallError

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A token, or what fetches a fresh one: tokens are good once, and a long outage needs another."""


async def fetch_token(source: TokenSource | None, limit_s: float) -> str | None:
    """The token; None where none is asked for.

    Raises CallError if the function fails, whatever with, or takes longer than `limit_s` where it can be awaited.
    """
    if source is None or isinstance(source, str):
        return source
    try:
        async with asyncio.timeout(limit_s):
            token = source()
            return await token if inspect.isawaitable(token) else token
    except TimeoutError as error:
        raise CallError(f"no token: the function that fetches one gave none in {limit_s:g} s") from error
    except Exception as error:
        raise CallError(f"no token: the function that fetches one failed: {error!r}") from error
