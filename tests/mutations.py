"""JSON documents with something wrong in them, the same ones in every run."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

# What a place may hold that its reader does not expect.
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 2**31, 2**63, 10**9, 10**30, -(10**30), 0.0, -0.5, 0.5, 1.5, 1e300, 1e-300,
    "", "6", "x" * 1000, "../../etc/passwd", "/dev/zero", "\x00", "\ud800", [], {}, [None], [[]], [1e9], [-1], [0],
    [1, 1], [10**9] * 3, ["a"], {"a": 1}, [[[[1]]]], [2] * 500, [1] * 2000,
)  # fmt: skip

TEXTS = (
    "", "null", "[]", "1", '"x"', "{", "[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, "NaN", "\x00",
    '{"a": 1, "a": 2}', "9" * 5000, "1e999", "{} {}",
)  # fmt: skip


def mutations(document: Any, count: int, seed: int = 0) -> Iterator[str]:
    """``count`` texts of ``document``, each with one to three places changed, gone, doubled, or no JSON at all."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = copy.deepcopy(document)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            _change(changed, rng)
        text = json.dumps(changed)
        kind = rng.random()
        if kind < 0.04:
            text = text.replace("1", rng.choice(("NaN", "Infinity", "-Infinity", "1e999")), 1)
        elif kind < 0.07:
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(("", "[", "}", '"', ",", "\x00")) + text[at + 1 :]
        elif kind < 0.09:
            text = text[: rng.randrange(len(text))]
        elif kind < 0.11 and text.startswith('{"'):
            name = text[1 : text.index(":") + 1]
            text = "{" + name + " 1, " + text[1:]
        yield text


def _change(document: Any, rng: random.Random) -> None:
    places = list(_places(document))
    if not places:
        return
    holder, key = rng.choice(places)
    act = rng.random()
    value = holder[key]
    if act < 0.1:
        del holder[key]
    elif act < 0.15 and isinstance(holder, dict):
        holder[rng.choice(("unknown", "", "\x00", key + "x"))] = value
    elif act < 0.35 and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = rng.choice(
            (-value, value + 1, value - 1, value * 1000, value * 10**9, float(value), value / 3, str(value))
        )
    else:
        holder[key] = copy.deepcopy(rng.choice(HOSTILE))


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _places(document[key])


def refusal(attempt: Callable[[], object], kind: type[Exception]) -> str | None:
    """The message of the error of this kind that an attempt ends with; None where it succeeds. Others go on."""
    try:
        attempt()
    except kind as error:
        return str(error)
    return None
