"""Tokens: signed permission for one person to enter one room once (JWT, RFC 7519).

Claims: `aud` (`AUDIENCE`), `room`, `publish`, `subscribe`, `exp`, `iat`, `jti`, and `nbf` if wanted. Signed with
HS256 and a shared key of at least 32 bytes, or EdDSA (Ed25519), where the relay only knows the public key. Which
of the two is a property of the key, never of the token.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streaming_encodec.errors import ConfigError
from streaming_encodec.text_files import decode_text, encoding_of
from streaming_encodec.transport.close_codes import not_allowed
from streaming_encodec.wire.hello import MAX_TOKEN_CHARACTERS, check_room_name

if TYPE_CHECKING:  # 10 MB, imported where there are tokens
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

AUDIENCE = "streaming-encodec"
MIN_KEY_BYTES = 32
_MAX_ID_CHARACTERS = 64
_LEEWAY_S = 10.0
"""The signer's clock may be ahead of the relay's by this much."""
_SSH_PUBLIC_KEY = re.compile(rb"[\w@.-]+ AAAA")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows. An open relay grants everything."""

    room: str
    publish: bool
    subscribe: bool
    token_id: str | None = None
    expires_s: float = 0.0

    def allows(self, role: str) -> bool:
        """Whether this role ("publish", "subscribe" or "both") is allowed."""
        return (self.publish or role == "subscribe") and (self.subscribe or role == "publish")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key that signs, checks, or both."""

    algorithm: str  # "HS256" or "EdDSA"
    signing: bytes | Ed25519PrivateKey | None
    checking: bytes | Ed25519PublicKey

    @classmethod
    def from_secret(cls, secret: bytes) -> TokenKey:
        """A shared key. Raises ConfigError for one that is too short to be safe."""
        if len(secret) < MIN_KEY_BYTES:
            raise ConfigError(
                f"a token key has at least {MIN_KEY_BYTES} bytes, this one {len(secret)}: `new_key_file` makes one",
                setting="token_key",
            )
        return cls("HS256", secret, secret)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TokenKey:
        """Read a key file: an Ed25519 key in PEM (private or public), or any other bytes as a shared key.

        Raises ConfigError where there is none that can be used.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"token key {path}: cannot be read: {error.strerror}") from error
        if _SSH_PUBLIC_KEY.match(data):
            raise ConfigError(
                f"token key {path}: an SSH public key is no secret: give an Ed25519 key in PEM, or one that "
                "`new_key_file` made",
                setting="token_key",
            )
        data = _without_mark(data)
        if not data.lstrip().startswith(b"-----BEGIN"):
            return cls.from_secret(data.strip())
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

        try:
            if b"PRIVATE KEY-----" in data:
                private = load_pem_private_key(data, None)
                if isinstance(private, Ed25519PrivateKey):
                    return cls("EdDSA", private, private.public_key())
            else:
                public = load_pem_public_key(data)
                if isinstance(public, Ed25519PublicKey):
                    return cls("EdDSA", None, public)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"token key {path}: not a PEM key that can be read: {error}") from error
        raise ConfigError(f"token key {path}: of the PEM keys only Ed25519 will do")

    def sign(
        self,
        room: str,
        *,
        now_s: float,
        publish: bool = True,
        subscribe: bool = True,
        ttl_s: float = 3600.0,
        token_id: str | None = None,
    ) -> str:
        """Make a token, valid from `now_s` (Unix time) for `ttl_s`.

        Raises ConfigError: the key cannot sign, the room's name or the id is too long, nothing would be allowed.
        """
        if self.signing is None:
            raise ConfigError("a public key checks tokens but makes none: give the private key")
        if token_id is not None and not 1 <= len(token_id) <= _MAX_ID_CHARACTERS:
            raise ConfigError(f"a token's id has 1 to {_MAX_ID_CHARACTERS} characters")
        if not (publish or subscribe):
            raise ConfigError("a token must allow to publish, to subscribe, or both")
        if not ttl_s > 0:
            raise ConfigError("a token must be valid for some time")
        claims: dict[str, Any] = {
            "aud": AUDIENCE,
            "room": check_room_name(room),
            "publish": publish,
            "subscribe": subscribe,
            "iat": int(now_s),
            "exp": int(now_s + ttl_s),
            "jti": token_id or secrets.token_urlsafe(12),
        }
        import jwt

        token = jwt.encode(claims, self.signing, algorithm=self.algorithm)
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise ConfigError(f"the token is longer than {MAX_TOKEN_CHARACTERS} characters: use shorter names")
        return token


def _without_mark(data: bytes) -> bytes:
    """A text file's bytes as an editor without a byte-order mark would write them; other bytes as they are.

    A PEM file that is not known as one would become a shared secret, and a public key is none.
    """
    if encoding_of(data) != "utf-8":
        with contextlib.suppress(UnicodeDecodeError):
            text = decode_text(data)
            return text.encode() if text.isascii() else data
    return data


class TokenChecker:
    """Checks tokens. `Bus.use_token` sees to it that each is good once, on all relays."""

    def __init__(self, key: TokenKey, *, max_ttl_s: float = 86_400.0) -> None:
        self._key = key
        self._max_ttl_s = max_ttl_s

    def check(self, token: str, now_s: float) -> Grant:
        """Read a token without using it up; `now_s` is Unix time. Raises Refused, the same for every fault."""
        import jwt

        try:
            claims = jwt.decode(
                token,
                self._key.checking,
                algorithms=[self._key.algorithm],
                audience=AUDIENCE,
                # Times are checked below, against the clock that was handed in.
                options={
                    "require": ["aud", "exp", "iat", "jti", "room"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise not_allowed() from error
        room, token_id, expires = claims["room"], claims["jti"], claims["exp"]
        begins = claims.get("nbf", 0)
        publish, subscribe = claims.get("publish", False), claims.get("subscribe", False)
        if not (
            isinstance(room, str)
            and isinstance(token_id, str)
            and 1 <= len(token_id) <= _MAX_ID_CHARACTERS
            and type(expires) in (int, float)
            and now_s < expires <= now_s + self._max_ttl_s + _LEEWAY_S
            and type(begins) in (int, float)
            and begins <= now_s + _LEEWAY_S
            and type(publish) is bool
            and type(subscribe) is bool
        ):
            raise not_allowed()
        return Grant(room, publish, subscribe, token_id, float(expires))


def new_key_file(path: str | os.PathLike[str]) -> None:
    """Write a fresh shared key that only its owner can read.

    Raises ConfigError if the file exists or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(48) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.unlink(path)  # half a key, or none
            raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}") from error
