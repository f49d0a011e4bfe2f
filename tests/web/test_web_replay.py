"""Recorded calls, replayed: the receiver in JavaScript decides and sounds as Python's does, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from web.node_kit import run
from web.traces_kit import LIVE, SCENARIOS, TRACES, read_trace, replay, settings_of

from streaming_encodec.live.loop import LIVE_PLAYOUT

pytestmark = pytest.mark.node

_FILES = sorted(TRACES.glob("*.jsonl"))


@pytest.fixture(scope="module")
def from_javascript() -> dict[str, Any]:
    """By name of the trace."""
    lines = run("replay.mjs", *_FILES).splitlines()
    return {path.stem: json.loads(line) for path, line in zip(_FILES, lines, strict=True)}


@cache
def from_python(path: Path) -> dict[str, Any]:
    return replay(read_trace(path))


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_a_trace_is_played_the_same(path: Path, from_javascript: dict[str, Any]) -> None:
    here, there = from_python(path), from_javascript[path.stem]
    assert here["instructions"].keys() == there["instructions"].keys()
    for sender, made in here["instructions"].items():
        for place, (python, javascript) in enumerate(zip(made, there["instructions"][sender], strict=True)):
            assert python == javascript, f"instruction {place} of speaker {sender}"
    for place, (python, javascript) in enumerate(zip(here["pulls"], there["pulls"], strict=True)):
        assert python == javascript, f"pull {place}"
    assert here["reports"] == there["reports"]
    assert here["statistics"] == there["statistics"]
    assert here["bad"] == there["bad"]
    assert here["sound"] == there["sound"]


def test_the_traces_hold_what_happens_to_calls() -> None:
    """All of them are there, and each kind of decision is made in several."""
    assert {path.stem for path in _FILES} == SCENARIOS.keys(), "run: python tests/web/traces_kit.py"
    seen: dict[str, int] = {}
    for path in _FILES:
        result = from_python(path)
        made = [one for line in result["instructions"].values() for one in line]
        total = {name: sum(one[name] for one in result["statistics"].values()) for name in ("restarts", "packetsLost")}
        kinds = {one[0] for one in made} | {one[5] for one in made if one[5] != "keep"}
        kinds |= {"redundant" for one in made if one[3]} | {"reset" for one in made[1:] if one[4]}
        kinds |= {"sender's noise" for one in made if one[7]} | {name for name, count in total.items() if count}
        kinds |= {"bad packet"} if result["bad"] else set()
        for kind in kinds:
            seen[kind] = seen.get(kind, 0) + 1
    often = {"decode", "repeat", "noise", "silence", "shorten", "shorten fast", "stretch", "redundant", "packetsLost"}
    assert all(seen.get(kind, 0) >= 2 for kind in often | {"sender's noise", "reset"}), seen
    assert seen["restarts"] >= 1
    assert seen["bad packet"] >= 1


def test_what_is_made_up_for_who_has_left_is_no_concealment() -> None:
    stayed, left = from_python(TRACES / "outage.jsonl"), from_python(TRACES / "leaves-in-an-outage.jsonl")
    assert stayed["statistics"]["1"]["silentConcealedSamples"] > 0
    assert [one[0] for one in left["instructions"]["1"]].count("silence") > 75
    assert left["statistics"]["1"]["concealedSamples"] == 0
    assert left["statistics"]["1"]["concealmentEvents"] == 0


@pytest.mark.parametrize("name", ["clean", "clean-live"])
def test_nothing_is_made_up_where_nothing_is_lost_or_late(name: str) -> None:
    (statistics,) = from_python(TRACES / f"{name}.jsonl")["statistics"].values()
    assert statistics["packetsReceived"] > 100
    assert statistics["concealedSamples"] == 0


def test_live_playout_is_the_live_loop_s() -> None:
    assert settings_of(LIVE) == LIVE_PLAYOUT
    told = json.loads(run("live_playout.mjs"))
    # Decoding frames ahead changes no decision; JavaScript does not do it.
    assert settings_of(told) == replace(LIVE_PLAYOUT, together_frames=1)
