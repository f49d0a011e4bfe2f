"""Where a client's token comes from: it has one, or a function of its owner's fetches a fresh one."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from streaming_encodec.errors import CallError, CallErrorReason

_TOKEN = re.compile(r"[\x21-\x7e]+")  # what an HTTP header can carry as one word (RFC 6750 allows less)

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A token, or what fetches a fresh one: tokens are good once, and a long outage needs another."""


async def fetch_token(source: TokenSource | None, limit_s: float) -> str | None:
    """The token; None where none is asked for.

    Raises CallError if the function fails, whatever with, takes longer than `limit_s` where it can be awaited, or
    gives what can be no token.
    """
    if source is None or isinstance(source, str):
        return None if source is None else clean_token(source)
    try:
        async with asyncio.timeout(limit_s):
            token = source()
            token = await token if inspect.isawaitable(token) else token
    except TimeoutError as error:
        raise CallError(
            f"no token: the function that fetches one gave none in {limit_s:g} s", CallErrorReason.NOT_ALLOWED
        ) from error
    except Exception as error:
        raise CallError(
            f"no token: the function that fetches one failed: {error!r}", CallErrorReason.NOT_ALLOWED
        ) from error
    return clean_token(token)


def clean_token(token: object) -> str:
    """The token without the byte-order mark and the line break that come out of files; it goes into an HTTP header.

    Raises CallError for what can be no token.
    """
    text = token.removeprefix("\ufeff").strip() if isinstance(token, str) else ""
    if not _TOKEN.fullmatch(text):
        raise CallError("the token is no token: copy all of it, without line breaks", CallErrorReason.NOT_ALLOWED)
    return text


def token_claims(token: str) -> dict[str, Any]:
    """What a token says of itself, unchecked: the relay checks it. Raises CallError if it is none."""
    import jwt

    try:
        return dict(jwt.decode(token, options={"verify_signature": False}))
    except jwt.PyJWTError as error:
        raise CallError(
            "the token is no token: copy all of it, without line breaks", CallErrorReason.NOT_ALLOWED
        ) from error


def role_of(claims: Mapping[str, Any]) -> str:
    """The role that a token allows: publish, subscribe or both (of a token that allows neither, and of none)."""
    publish, subscribe = claims.get("publish", False), claims.get("subscribe", False)
    return "both" if publish == subscribe else "publish" if publish else "subscribe"
