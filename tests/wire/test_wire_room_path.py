"""A room's name in the path of a URL, whatever the name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.errors import ConfigError, PacketError
from streaming_encodec.wire.fields import is_visible
from streaming_encodec.wire.hello import MAX_ROOM_CHARACTERS
from streaming_encodec.wire.room_path import room_of_path, room_of_url, room_path

NAMES = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_ROOM_CHARACTERS)
    .filter(is_visible)
    .filter(lambda name: name not in (".", ".."))
)


@given(NAMES)
def test_every_name_comes_back_out_of_its_path(name: str) -> None:
    path = room_path(name)
    assert path.isascii()
    assert path.count("/") == 2
    assert not set('?#\\ "<>') & set(path)
    assert room_of_path(path) == name
    assert room_of_url("/below/a/path" + path) == name


@given(st.text())
def test_any_text_is_a_path_or_refused(path: str) -> None:
    try:
        room = room_of_path(path)
    except PacketError:
        return
    assert (room is None) == (path in ("", "/"))
    if room is not None:
        assert room_of_path(room_path(room)) == room


NO_ROOMS = (
    "/r /r/ /r// /r/a/ /r/a/b /r/é /r/% /r/%4 /r/%4g /r/%c3 /r/%ed%a0%80 /r/%00 /r/a%0d%0aX /r/. /r/%2E%2e /R/a r/a "
    "//r/a /x /r/a?b /r/a#b"
)


@pytest.mark.parametrize("path", [*NO_ROOMS.split(), "/r/a b", "/r/" + "a" * 65])
def test_what_names_no_room(path: str) -> None:
    with pytest.raises(PacketError):
        room_of_path(path)


@pytest.mark.parametrize("name", ["", ".", "..", "a" * 65, "a\nb", "\u200b", None])
def test_names_that_no_path_can_hold(name: str) -> None:
    with pytest.raises(ConfigError, match="room"):
        room_path(name)


def test_a_url_below_a_path_of_a_proxy() -> None:
    assert room_of_url("/") is room_of_url("") is room_of_url("/voice/") is None
    assert room_of_url("/voice/r/tea%20time") == "tea time"
    with pytest.raises(PacketError):
        room_of_url("/voice/r/a/b")
