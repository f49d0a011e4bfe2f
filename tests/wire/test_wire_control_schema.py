"""The JSON Schema of the control messages says what the parser does."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import MISSING, fields
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from wire.test_wire_control import MESSAGES
from wire.vectors import CONTROL, SCHEMA

from streaming_encodec.errors import PacketError
from streaming_encodec.wire.control import (
    AskDatagrams,
    Bye,
    ControlMessage,
    Joined,
    Layers,
    Left,
    Report,
    parse_control,
    serialize_control,
)
from streaming_encodec.wire.fields import MAX_CONTROL_BYTES, is_visible
from streaming_encodec.wire.hello import ROLES, DatagramOffer, Hello, Welcome
from streaming_encodec.wire.packet import StreamFormat

VALIDATOR = Draft202012Validator(SCHEMA)
ROOM = st.text(min_size=1, max_size=64).filter(is_visible)
SECRET = st.none() | st.text("abcXYZ019-_.", min_size=1, max_size=64)
SENDER = st.integers(1, 65535)
SHARE, LONG = st.floats(0, 1), st.floats(0, 86_400_000)
CODEBOOKS = st.integers(1, 32)

FORMATS = st.builds(
    StreamFormat,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.integers(1000, 192_000),
    st.integers(1, 2),
    st.integers(1, 48_000),
    CODEBOOKS,
    st.integers(2, 65_536),
)
OFFERS = st.builds(
    DatagramOffer,
    st.integers(1, 65535),
    st.text("abcXYZ019-_", min_size=1, max_size=64),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
ANY_MESSAGE: st.SearchStrategy[ControlMessage] = st.one_of(
    st.builds(Hello, ROOM, st.sampled_from(ROLES), FORMATS, SECRET, st.none() | CODEBOOKS, SECRET),
    st.builds(
        Welcome,
        st.integers(0, 65535),
        SECRET,
        st.booleans(),
        st.floats(0.01, 3600),
        st.lists(SENDER, max_size=64).map(tuple),
        datagrams=st.none() | OFFERS,
    ),
    st.builds(Joined, SENDER),
    st.builds(Left, SENDER),
    st.builds(Layers, CODEBOOKS),
    st.builds(Report, SENDER, SHARE, SHARE, LONG, LONG, LONG, st.integers(0, 65535)),
    st.builds(AskDatagrams),
    OFFERS,
    st.builds(Bye, st.text(max_size=123).filter(is_visible), st.none() | st.floats(0, 3600)),
)


def is_read(text: str) -> bool:
    try:
        parse_control(text)
    except PacketError:
        return False
    return True


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@given(ANY_MESSAGE)
def test_whatever_this_code_says_is_valid(message: ControlMessage) -> None:
    text = serialize_control(message)
    assert parse_control(text) == message
    VALIDATOR.validate(json.loads(text))


@pytest.mark.parametrize("case", CONTROL["good"], ids=lambda case: case["text"][:40])
def test_good_vectors_are_valid(case: dict[str, Any]) -> None:
    VALIDATOR.validate(json.loads(case["text"]))
    VALIDATOR.validate(case["means"])  # null is absence


BEYOND_A_SCHEMA = ("a name twice", "not JSON")


@pytest.mark.parametrize("case", CONTROL["bad"], ids=lambda case: case["why"])
def test_bad_vectors_are_not(case: dict[str, Any]) -> None:
    if case["why"] not in BEYOND_A_SCHEMA:
        assert not VALIDATOR.is_valid(json.loads(case["text"]))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.TYPE)
def test_a_field_with_a_default_may_be_left_out_or_null(message: ControlMessage) -> None:
    """All but the version, which tells two versions apart."""
    said = json.loads(serialize_control(message))
    for field in fields(message):
        if field.default is MISSING or field.name == "protocol":
            continue
        for changed in ({k: v for k, v in said.items() if k != field.name}, said | {field.name: None}):
            assert getattr(parse_control(json.dumps(changed)), field.name) == field.default, field.name
            VALIDATOR.validate(changed)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.TYPE)
def test_a_whole_number_may_have_a_point(message: ControlMessage) -> None:
    """JSON knows one kind of number, and so do many languages."""

    def pointed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: pointed(item) for name, item in value.items()}
        if isinstance(value, list):
            return [pointed(item) for item in value]
        return float(value) if type(value) is int else value

    said = pointed(json.loads(serialize_control(message)))
    read = parse_control(json.dumps(said))
    assert read == message
    assert serialize_control(read) == serialize_control(message)
    VALIDATOR.validate(said)


TYPES = ["hello", "welcome", "joined", "left", "layers", "report", "datagrams", "offer", "bye", "dance"]
NUMBERS = [0, 1, 2, 5, 32, 33, 64, 1000, 65535, 65536, 192_000, 192_001, -1, 10**400, 0.5, 1.0, 2.0, 1.5, -0.0, 65535.0]
TEXTS = [
    "",
    "a",
    "x" * 64,
    "x" * 65,
    "é" * 123,
    "x" * 124,
    "x" * 1401,
    "publish",
    "king",
    "0" * 32,
    "F" * 32,
    "1",
    "0" * 64,
    "F" * 64,
]
ODD_TEXTS = [f"a{c}b" for c in "\n\x00\x7f\x9b\u00a0\u00ad\u200b\u200d\u2028\u202e\u3000\ufeff\ud800\udfff😀\U000e0041"]
VALUES = st.one_of(
    st.sampled_from([None, True, False, [], {}, [{"sender": 1}], [{"sender": 0}], [1], [{"sender": 1}] * 65]),
    st.sampled_from(NUMBERS),
    st.sampled_from([float(f"{sign}{digits}") for sign in "+-" for digits in ("1e3", "1e300", "1e-300", "1e999")]),
    st.sampled_from(TEXTS + ODD_TEXTS + [f"{text}\n" for text in ("tea", "0" * 32, "0" * 31)]),
    st.text(max_size=70),
    st.floats(allow_nan=False),
    st.integers(-5, 70_000),
)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A good message, changed in one to three places."""
    message: dict[str, Any] = json.loads(draw(st.sampled_from([case["text"] for case in CONTROL["good"]])))
    names = sorted({name for case in CONTROL["good"] for name in case["means"]})
    for _ in range(draw(st.integers(1, 3))):
        inner = message.get("format", message.get("datagrams"))
        place = inner if isinstance(inner, dict) and draw(st.booleans()) else message
        match draw(st.integers(0, 4)):
            case 0 if place:
                del place[draw(st.sampled_from(sorted(place)))]
            case 1:
                place[draw(st.sampled_from(names))] = draw(VALUES)
            case 2:
                message["type"] = draw(st.sampled_from(TYPES))
            case _ if place:
                place[draw(st.sampled_from(sorted(place)))] = draw(VALUES)
    return message


def test_parser_and_schema_agree() -> None:
    seen: Counter[bool] = Counter()

    @settings(max_examples=800)
    @given(mutated())
    def agree(message: dict[str, Any]) -> None:
        text = json.dumps(message).replace("Infinity", "1e999")  # JSON's way to say it
        good = is_read(text)
        if len(text) > MAX_CONTROL_BYTES:
            assert not good
            return
        seen[good] += 1
        assert VALIDATOR.is_valid(message) == good, text

    agree()
    assert min(seen[True], seen[False]) > 100, seen  # or nothing was tested


def test_each_type_has_its_definition() -> None:
    types = {kind.TYPE for kind in get_args(ControlMessage)}
    assert {reference["$ref"].rpartition("/")[2] for reference in SCHEMA["oneOf"]} == types
