"""When the page expects voice: only then does its absence mean that the line is dead."""

from __future__ import annotations

import json

import pytest
from relay_kit import voice
from web.node_kit import run

pytestmark = pytest.mark.node


def due(*events: tuple[float, str, object]) -> list[bool]:
    """Whether voice is due after each event."""
    content = "\n".join(json.dumps(event) for event in events).encode()
    found: list[bool] = json.loads(run("streams_due.mjs", content=content))
    return found


def packet(at_s: float, sequence: int, sender: int = 1, *, end: bool = False) -> tuple[float, str, str]:
    return at_s, "packet", voice(sequence, sender=sender, end=end).hex()


def test_until_the_end_of_a_stream_also_where_packets_overtake_each_other() -> None:
    assert due((0.0, "look", None), packet(0.1, 65534), packet(0.2, 0, end=True), packet(0.3, 65535)) == [
        False,
        True,
        False,
        False,
    ]


def test_a_line_that_dies_in_a_stream_is_missed_longer_than_it_takes_to_see_it() -> None:
    assert due(packet(0.0, 1), (1.3, "look", None), (2.5, "look", None), (3.1, "look", None)) == [
        True,
        True,
        True,
        False,
    ]


def test_the_end_of_another_speaker_does_not_end_it() -> None:
    assert due(packet(0.0, 1), packet(0.1, 9, 2), packet(0.2, 10, 2, end=True), (0.3, "left", 1)) == [
        True,
        True,
        True,
        False,
    ]


def test_after_an_outage_nobody_is_expected_until_heard() -> None:
    assert due(packet(0.0, 1), (0.5, "welcome", None), packet(0.6, 2)) == [True, False, True]


def test_who_begins_anew_with_other_numbers_is_expected() -> None:
    assert due(packet(0.0, 40000, end=True), packet(5.0, 20000)) == [False, True]
