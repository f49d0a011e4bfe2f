"""What signer, relay and client make of one token."""

from __future__ import annotations

import jwt
import pytest
from net.net_support import KEY

from streaming_encodec.net.closing import Refused
from streaming_encodec.net.tokens import TokenChecker, role_of


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
