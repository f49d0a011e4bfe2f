"""How relays show NATS who they are, and that nothing secret goes where it should not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys
import pytest
from nats_kit import nats_servers
from relay_kit import certificate, seated

from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.relay.bus.nats import NatsBus
from streaming_encodec.relay.bus.nats_servers import NatsServers
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.tls import client_tls


async def joins(servers: NatsServers) -> None:
    async with Relay(RelayConfig(port=0), bus=NatsBus(servers, 0)) as relay, seated(relay):
        pass


async def refused(servers: NatsServers) -> CallError:
    with pytest.raises(CallError) as told:
        await joins(servers)
    return told.value


def keypair(prefix: int) -> tuple[nkeys.KeyPair, bytes]:
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return nkeys.from_seed(bytearray(seed)), bytes(seed)


def signed(claims: dict[str, Any], signer: nkeys.KeyPair) -> str:
    """A JWT as NATS has them."""
    claims = {"iat": int(time.time()), "iss": signer.public_key.decode(), **claims}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    text = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}"
    return f"{text}.{base64.urlsafe_b64encode(signer.sign(text.encode())).decode().rstrip('=')}"


async def test_a_creds_file(tmp_path: Path) -> None:
    operator, _ = keypair(nkeys.PREFIX_BYTE_OPERATOR)
    account, _ = keypair(nkeys.PREFIX_BYTE_ACCOUNT)
    user, seed = keypair(nkeys.PREFIX_BYTE_USER)
    stranger, other_seed = keypair(nkeys.PREFIX_BYTE_USER)
    names = {key: key.public_key.decode() for key in (operator, account, user, stranger)}
    limits = dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1) | {"wildcards": True}
    operator_jwt = signed({"sub": names[operator], "name": "o", "nats": {"type": "operator", "version": 2}}, operator)
    about = {"type": "account", "version": 2, "limits": limits}
    account_jwt = signed({"sub": names[account], "name": "a", "nats": about}, operator)
    about = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
    user_jwt = signed({"sub": names[user], "name": "u", "nats": about}, account)
    for file, secret in (("good.creds", seed), ("other.creds", other_seed)):
        (tmp_path / file).write_text(
            f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{secret.decode()}\n------END USER NKEY SEED------\n"
        )
    more = f"operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {names[account]}: {account_jwt} }}"
    async with nats_servers(tmp_path, more=more) as (server,):
        url = f"nats://127.0.0.1:{server.port}"
        await joins(NatsServers((url,), tmp_path / "good.creds"))
        for servers in (NatsServers((url,), tmp_path / "other.creds"), NatsServers((url,))):
            assert (await refused(servers)).reason is CallErrorReason.NOT_ALLOWED


async def test_the_seed_of_an_nkey(tmp_path: Path) -> None:
    user, seed = keypair(nkeys.PREFIX_BYTE_USER)
    _, other = keypair(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "good").write_bytes(seed + b"\n")
    (tmp_path / "other").write_bytes(other)
    more = f"authorization {{ users: [{{nkey: {user.public_key.decode()}}}] }}"
    async with nats_servers(tmp_path, more=more) as (server,):
        url = f"nats://127.0.0.1:{server.port}"
        await joins(NatsServers((url,), tmp_path / "good"))
        assert (await refused(NatsServers((url,), tmp_path / "other"))).reason is CallErrorReason.NOT_ALLOWED


@pytest.mark.parametrize("content", [None, b"", b"SUx", b"\xff\xfe", b"-----BEGIN NATS USER JWT-----\n"])
def test_a_file_that_holds_no_credentials(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError, match="NATS credentials"):
        NatsServers(("nats://h",), tmp_path / "file")


async def test_tls_to_nats(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    async with nats_servers(tmp_path, more=f'tls {{ cert_file: "{cert}", key_file: "{key}" }}') as (server,):
        trusted = client_tls(cert)
        for scheme in ("tls", "nats"):
            await joins(NatsServers((f"{scheme}://127.0.0.1:{server.port}",), tls=trusted))
            error = await refused(NatsServers((f"{scheme}://127.0.0.1:{server.port}",)))
            assert error.reason is CallErrorReason.UNTRUSTED


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_no_password_is_sent_without_the_tls_that_was_asked_for(tmp_path: Path, scheme: str) -> None:
    """A server, or who pretends to be it, says that it wants none."""
    came = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576,"tls_required":false}\r\n')
        came.extend(await reader.read(4096))
        writer.close()

    cert, _ = certificate(tmp_path)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        tls = client_tls(cert) if scheme == "nats" else None
        error = await refused(NatsServers((f"{scheme}://relay:secret@127.0.0.1:{port}",), tls=tls))
    assert error.reason is CallErrorReason.TLS
    assert b"secret" not in came
    assert b"CONNECT" not in came
