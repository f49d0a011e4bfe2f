"""The page's link: who leaves and what ends is told by both ways."""

from __future__ import annotations

import json

import pytest
from web.node_kit import run

pytestmark = pytest.mark.node


def test_who_left_is_believed_of_a_datagram_and_the_end_goes_both_ways() -> None:
    told = json.loads(run("link.mjs"))
    assert told == {
        "messages": ["welcome", "left"],
        "packets": [1, 4, 5],
        "overSocket": [3, 6],
        "overDatagrams": [2, 3, 6],
        "trusted": True,
        "doubted": True,
        "dropped": 0,
    }
