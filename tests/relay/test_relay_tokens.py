"""What signer, relay and client make of one token."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from relay_kit import KEY

from streaming_encodec.cli.shared.calling import read_token
from streaming_encodec.client.token_source import clean_token, fetch_token, role_of
from streaming_encodec.errors import CallError
from streaming_encodec.relay.tokens import TokenChecker, TokenKey
from streaming_encodec.transport.close_codes import Refused


def test_clocks_may_differ_by_seconds() -> None:
    day_s = 86_400.0
    check = TokenChecker(KEY, max_ttl_s=day_s).check
    assert check(KEY.sign("r", now_s=1005.0, ttl_s=day_s), 1000.0).room == "r"
    with pytest.raises(Refused):
        check(KEY.sign("r", now_s=1060.0, ttl_s=day_s), 1000.0)
    assert check(KEY.sign("r", now_s=1000.0, ttl_s=60.0), 1059.0).room == "r"
    with pytest.raises(Refused):
        check(KEY.sign("r", now_s=1000.0, ttl_s=60.0), 1060.0)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        *({name: value} for name in ("publish", "subscribe") for value in (False, True)),
        *({"publish": one, "subscribe": two} for one in (False, True) for two in (False, True)),
    ],
    ids=str,
)
def test_a_client_asks_for_the_role_that_the_relay_gives(claims: dict[str, bool]) -> None:
    said = {"aud": "streaming-encodec", "room": "r", "iat": 1000, "exp": 1600, "jti": "one"} | claims
    grant = TokenChecker(KEY).check(jwt.encode(said, b"k" * 32, algorithm="HS256"), 1000.0)
    assert grant.allows(role_of(said)) is (grant.publish or grant.subscribe)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_token_file_of_any_editor(tmp_path: Path, encoding: str) -> None:
    """PowerShell's `>` writes UTF-16, Notepad UTF-8 with a mark; without a mark UTF-16 is no text."""
    token = KEY.sign("r", now_s=1000.0)
    file = tmp_path / "token"
    file.write_bytes(f"{token}\r\n".encode(encoding))
    text = read_token(f"@{file}")
    if encoding == "utf-16-le":
        with pytest.raises(CallError, match="is no token"):
            clean_token(text)
    else:
        assert text == clean_token(text) == token


@pytest.mark.parametrize("token", ["", "  ", "a b", "a\r\nX-Header: b", "tökén", "a\x1b[31m", 7, None])
async def test_what_can_be_no_token_is_told(token: object) -> None:
    with pytest.raises(CallError, match="is no token"):
        await fetch_token(lambda: token, 1.0)  # type: ignore[arg-type, return-value]


async def test_a_tokens_line_break_and_mark_are_left_out() -> None:
    assert await fetch_token(lambda: "\ufeffabc.def\r\n", 1.0) == "abc.def"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_key_file_of_any_editor_is_the_same_key(tmp_path: Path, encoding: str) -> None:
    """A PEM file that is not known as one would be taken for a shared secret, and a public key is none."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    made = {}
    for name, text in (("private", private), ("public", public), ("shared", "s" * 40)):
        (tmp_path / name).write_bytes(text.encode(encoding))
        made[name] = TokenKey.load(tmp_path / name)
    assert [each.algorithm for each in made.values()] == ["EdDSA", "EdDSA", "HS256"]
    assert made["shared"].checking == b"s" * 40
    token = made["private"].sign("r", now_s=1000.0)
    assert TokenChecker(made["public"]).check(token, 1000.0).room == "r"


def test_a_binary_key_that_looks_like_a_mark_is_not_changed(tmp_path: Path) -> None:
    for secret in (b"\xff\xfe" + bytes(range(1, 40)), b"\xef\xbb\xbf" + b"\xc3" * 40, b"\xff\xfe" + b"x" * 41):
        (tmp_path / "key").write_bytes(secret)
        assert TokenKey.load(tmp_path / "key").checking == secret
