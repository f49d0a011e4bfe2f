"""Proxies as the environment names them: which one is taken, that calls go through it, and what is said if not."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from call_kit import VoiceClient, say, sound, tiny_model
from cli.test_cli_call_commands import free_port, run
from relay_kit import running, until
from tls_kit import Authority
from websockets.uri import parse_uri

from streaming_encodec.client.settings import ConnectionSettings
from streaming_encodec.errors import CallError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.transport.proxies import proxy_for
from streaming_encodec.transport.tls import client_tls

HOST = "relay.example"
NAMES = ("ws", "wss", "socks", "https", "http", "all", "no")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        for variable in (f"{name}_proxy", f"{name}_PROXY".upper()):
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def model() -> EncodecModel:
    return tiny_model()


def chosen(url: str) -> tuple[str, str] | None:
    proxy = proxy_for(parse_uri(url))
    return None if proxy is None else (proxy.address, proxy.source)


@pytest.mark.parametrize(
    ("variable", "value", "url", "address"),
    [
        ("https_proxy", "http://p:3128", "wss://relay.example", "http://p:3128"),
        ("https_proxy", "p:3128", "wss://relay.example", "http://p:3128"),
        ("HTTPS_PROXY", "p:3128", "ws://relay.example:8765", "http://p:3128"),
        ("https_proxy", "HTTP://p:3128/", "wss://relay.example", "http://p:3128/"),
        ("http_proxy", "p:3128", "ws://relay.example:8765", "http://p:3128"),
        ("http_proxy", "p:3128", "wss://relay.example", None),
        ("socks_proxy", "p:1080", "ws://relay.example:8765", "socks5h://p:1080"),
        ("socks_proxy", "socks://p:1080", "wss://relay.example", "socks5h://p:1080"),
        ("socks_proxy", "http://p:1080", "wss://relay.example", "socks5h://p:1080"),
        ("socks_proxy", "socks4://p:1080", "wss://relay.example", "socks4://p:1080"),
        ("all_proxy", "socks5://p:1080", "wss://relay.example", "socks5://p:1080"),
        ("ALL_PROXY", "p:3128", "ws://relay.example:8765", "http://p:3128"),
        ("https_proxy", " p:3128 ", "wss://relay.example", "http://p:3128"),
        ("https_proxy", "", "wss://relay.example", None),
        ("https_proxy", "me:secret@p:3128", "wss://relay.example", "http://me:secret@p:3128"),
        ("wss_proxy", "p:3128", "wss://relay.example", "http://p:3128"),
        ("https_proxy", "[::1]:3128", "wss://relay.example", "http://[::1]:3128"),
    ],
)
def test_the_variable_that_counts(
    variable: str, value: str, url: str, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert chosen(url) == (None if address is None else (address, variable))


@pytest.mark.parametrize(
    "url",
    [
        "ws://127.0.0.1:8765",
        "ws://localhost:8765",
        "wss://LOCALHOST",
        "ws://[::1]:1",
        "ws://127.8.9.1",
        "ws://a.localhost",
    ],
)
@pytest.mark.parametrize("name", ["http", "https", "socks", "all"])
def test_this_machine_is_reached_without_a_proxy(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{name}_proxy", "what is this")
    assert chosen(url) is None


@pytest.mark.parametrize(
    ("listed", "url", "direct"),
    [
        ("relay.example", "wss://relay.example", True),
        (".example", "wss://relay.example", True),
        ("other.example", "wss://relay.example", False),
        ("*", "wss://relay.example", True),
        ("10.0.0.0/8", "ws://10.1.2.3:8765", True),
        ("a, 10.0.0.0/8", "ws://11.1.2.3:8765", False),
        ("2001:db8::7", "ws://[2001:db8::7]:8765", True),
        ("2001:db8::/32, nonsense/9", "ws://[2001:db8::7]:8765", True),
        ("", "wss://relay.example", False),
    ],
)
def test_what_no_proxy_lists_is_reached_directly(
    listed: str, url: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "p:3128")
    monkeypatch.setenv("no_proxy", listed)
    assert (chosen(url) is None) == direct


@pytest.mark.parametrize(
    "value", ["ftp://p:3128", "http://", "http://p:port", "http://p:99999", "http://p/path", "http://me@p:1"]
)
def test_a_variable_that_holds_no_proxy_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", value)
    with pytest.raises(CallError, match="https_proxy is no proxy's address"):
        chosen("wss://relay.example")


def test_a_proxys_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("ftp://me:secret@p:1", "me:secret@p:port"):
        monkeypatch.setenv("https_proxy", value)
        with pytest.raises(CallError) as told:
            chosen("wss://relay.example")
        assert "secret" not in str(told.value)
    monkeypatch.setenv("https_proxy", "http://me:secret@p:1")
    assert "secret" not in str(proxy_for(parse_uri("wss://relay.example")))


# -- proxies that work, and some that do not


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
    except OSError:
        pass
    finally:
        writer.close()


class FakeProxy:
    """An HTTP or SOCKS5 proxy that leads to a port of this machine, whatever host it is asked for."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.asked: list[str] = []

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.splitlines()[0])
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await self._join(reader, writer)

    async def socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        assert (version, kind) == (5, 3)  # a name: the proxy looks it up
        (length,) = await reader.readexactly(1)
        host = (await reader.readexactly(length)).decode()
        (port,) = struct.unpack("!H", await reader.readexactly(2))
        self.asked.append(f"{host}:{port}")
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await self._join(reader, writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(answer: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(answer)
        writer.close()

    return handler


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("kind", ["http", "socks"])
async def test_a_call_goes_through_a_proxy(
    model: EncodecModel, kind: str, secure: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue(HOST) if secure else None
    trusted = client_tls(authority.file) if secure else None
    # Insecure: by the name that it is called a relay without tokens sees that it is reached from other machines.
    async with running(tls=tls, insecure=True) as relay:
        proxy = FakeProxy(relay.port)
        url = f"{'wss' if secure else 'ws'}://{HOST}:{relay.port}"
        async with listening(proxy.http if kind == "http" else proxy.socks) as port:
            monkeypatch.setenv("socks_proxy" if kind == "socks" else "https_proxy", f"127.0.0.1:{port}")
            async with (
                VoiceClient(url, None, model, role="subscribe", connection=ConnectionSettings(trusted)) as ear,
                VoiceClient(url, None, model, role="publish", connection=ConnectionSettings(trusted)) as mouth,
            ):
                await say(mouth, sound(0.2))
                await until(lambda: ear.statistics.packets_arrived > 5, "it was heard")
        assert len(proxy.asked) == 2
        assert f"{HOST}:{relay.port}" in proxy.asked[0]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "wants a name and a password"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", r"does not let this through \(HTTP 403\)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP proxy"),
        (b"", "no HTTP proxy"),
    ],
)
async def test_a_proxy_that_refuses_is_named_with_its_variable(
    model: EncodecModel, answer: bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(answering(answer)) as port:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{port}")
        with pytest.raises(CallError, match=rf"the proxy http://127.0.0.1:{port} \(from https_proxy\).*{says}"):
            async with VoiceClient(f"wss://{HOST}", None, model):
                pass


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "socks_proxy", "all_proxy"])
async def test_a_dead_proxy_is_named_with_its_variable(
    model: EncodecModel, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv(variable, f"127.0.0.1:{port}")
    with pytest.raises(CallError, match=rf"the proxy \w+://127.0.0.1:{port} \(from {variable}\)") as told:
        async with VoiceClient(f"ws://{HOST}:8765", None, model):
            pass
    assert "nothing listens" in str(told.value)
    assert "no relay at" not in str(told.value)


async def test_socks_without_its_package_says_how_to_get_it(
    model: EncodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from websockets.asyncio import client

    async def missing(*_: object, **__: object) -> None:
        raise ImportError("connecting through a SOCKS proxy requires python-socks")

    monkeypatch.setattr(client, "connect_socks_proxy", missing)
    monkeypatch.setenv("socks_proxy", "127.0.0.1:1080")
    with pytest.raises(CallError, match=r"from socks_proxy.*pip install 'python-socks"):
        async with VoiceClient(f"ws://{HOST}:8765", None, model):
            pass


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "socks_proxy", "all_proxy"])
@pytest.mark.parametrize("value", ["127.0.0.1:9", "http://127.0.0.1:9", "nonsense://x", "host:3128"])
def test_no_variable_keeps_a_relay_on_this_machine_away(
    variable: str, value: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said is of the relay, which is not there, and not of the proxy."""
    monkeypatch.setenv(variable, value)
    tiny_model().save_pretrained(tmp_path / "model")
    url = f"ws://127.0.0.1:{free_port()}"
    code, _, err = run("listen", tmp_path / "out.wav", "--url", url, "--model", tmp_path / "model")
    assert code == 1
    assert "is it running?" in err
    assert "proxy" not in err
