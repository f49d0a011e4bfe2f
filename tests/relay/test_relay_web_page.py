"""The relay's web page: files arrive whole at any speed, beside voice; nothing else is given away."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import re
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from relay_kit import KEY, certificate, heard, running, seated, until, voice
from websockets.exceptions import InvalidStatus

from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.errors import ConfigError
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.relay import Relay
from streaming_encodec.relay.web_files import WebFiles
from streaming_encodec.transport.plain_http import read_request
from streaming_encodec.transport.self_signed import SelfSigned
from streaming_encodec.transport.tls import server_tls

MODEL = Path(__file__).parents[2] / "streaming_encodec" / "assets" / "voice-24khz" / "model.safetensors"
FILES = WebFiles.bundled(tokens=False)


class Browser:
    """One connection, on which requests follow each other, as a browser makes them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def ask(self, path: str, method: str = "GET", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    async def head(self) -> tuple[int, dict[str, str]]:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)).decode()
        first, *lines = head.split("\r\n")[:-2]
        return int(first.split()[1]), {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        self.ask(path, method, **headers)
        status, fields = await self.head()
        empty = method == "HEAD" or status == 304
        body = b"" if empty else await asyncio.wait_for(self.reader.readexactly(int(fields["content-length"])), 60)
        return status, fields, body


@asynccontextmanager
async def browser(relay: Relay, **options: Any) -> AsyncIterator[Browser]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, **options)
    try:
        yield Browser(reader, writer)
    finally:
        writer.close()


async def model_path(page: Browser) -> str:
    call = json.loads((await page.get("/call.json"))[2])
    return f"/{call['model']['folder']}model.safetensors"


def trusting(file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(file))
    context.check_hostname = False
    return context


async def test_the_page_and_what_it_loads_over_one_connection() -> None:
    async with running(web=FILES) as relay, browser(relay) as page:
        status, fields, body = await page.get("/")
        assert (status, fields["content-type"]) == (200, "text/html; charset=utf-8")
        assert fields["cache-control"] == "no-cache"
        policy = dict(part.split(" ", 1) for part in fields["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe-inline" not in fields["content-security-policy"]
        assert fields["x-content-type-options"] == "nosniff"
        assert fields["referrer-policy"] == "no-referrer"
        assert "microphone=(self)" in fields["permissions-policy"]
        base = re.search(rb'<base href="(web/[0-9a-f]{16}/)">', body)
        assert base is not None
        kernel = await page.get(f"/{base[1].decode()}codec/kernel.wasm")
        assert kernel[0] == 200
        assert kernel[1]["content-type"] == "application/wasm"
        assert "immutable" in kernel[1]["cache-control"]
        assert kernel[2][:4] == b"\0asm"
        room = (await page.get("/r/kitchen?x=1"))[2]
        assert room == body.replace(base[1], b"../" + base[1])
        model = await page.get(await model_path(page))
        assert model[2] == MODEL.read_bytes()


async def test_what_the_page_knows_of_the_model_is_what_python_computes() -> None:
    async with running(web=FILES) as relay, browser(relay) as page:
        call = json.loads((await page.get("/call.json"))[2])
    assert call["format"] == stream_format(call["model"]["name"]).to_dict()


async def test_a_second_visit_transfers_nothing() -> None:
    async with running(web=FILES) as relay, browser(relay) as page:
        for path in ("/", "/call.json", await model_path(page)):
            tag = (await page.get(path))[1]["etag"]
            status, fields, body = await page.get(path, If_None_Match=f'"other", W/{tag}')
            assert (status, body, fields["etag"]) == (304, b"", tag)
            assert "content-length" not in fields


async def test_files_are_compressed_for_who_takes_it() -> None:
    async with running(web=FILES) as relay, browser(relay) as page:
        for path in ("/", "/call.json", "/r/kitchen", "HASH/codec/kernel.wasm", "HASH/page/main.js", "HASH/worker.js"):
            base = re.search(rb'<base href="(web/[0-9a-f]{16})/">', (await page.get("/"))[2])
            assert base is not None
            path = path.replace("HASH", f"/{base[1].decode()}")
            plain = await page.get(path, Accept_Encoding="br, gzip;q=0.0")
            packed = await page.get(path, Accept_Encoding="deflate, GZIP; q=0.5, br")
            assert "content-encoding" not in plain[1]
            assert packed[1]["content-encoding"] == "gzip"
            assert gzip.decompress(packed[2]) == plain[2]
            assert len(packed[2]) < len(plain[2])
            # A cache that stands between keeps both, and mixes up neither.
            assert plain[1]["vary"] == packed[1]["vary"] == "Accept-Encoding"
            assert plain[1]["etag"] != packed[1]["etag"]
            known = packed[1]["etag"]
            assert (await page.get(path, Accept_Encoding="gzip", If_None_Match=known))[0] == 304
            assert (await page.get(path, If_None_Match=known))[0] == 200
            head = await page.get(path, "HEAD", Accept_Encoding="gzip")
            assert int(head[1]["content-length"]) == len(packed[2])


def test_a_first_visit_is_10_mb_of_weights_and_150_kb_at_most() -> None:
    sizes = {path: len(file.gzipped.body) for path, file in FILES._files.items() if file.gzipped is not None}
    weights = sum(size for path, size in sizes.items() if path.startswith("/model/"))
    assert set(sizes) == set(FILES._files)
    assert 9e6 < weights < 10e6 < MODEL.stat().st_size
    assert 50e3 < sum(sizes.values()) - weights < 150e3


def test_weights_are_kept_in_no_memory_unless_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(files: WebFiles) -> tuple[type, bytes]:
        (weights,) = (file for path, file in files._files.items() if path.endswith(".safetensors"))
        assert weights.gzipped is not None
        assert gzip.decompress(weights.gzipped.body) == weights.body
        return type(weights.body), bytes(weights.body)

    assert kept(FILES) == (memoryview, MODEL.read_bytes())

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert kept(WebFiles.bundled(tokens=False)) == (bytes, MODEL.read_bytes())


async def test_what_browsers_give_rights_has_the_policy() -> None:
    for path, file in FILES._files.items():
        fields = dict(file.headers)
        assert fields["X-Content-Type-Options"] == "nosniff"
        assert fields["Cross-Origin-Resource-Policy"] == "same-origin"
        document = path == "/" or path.endswith((".html", ".svg", "/worker.js"))
        assert ("Content-Security-Policy" in fields) == document, path


async def test_head_says_the_length_and_sends_nothing() -> None:
    async with running(web=FILES) as relay, browser(relay) as page:
        path = await model_path(page)
        status, fields, _ = await page.get(path, "HEAD")
        assert (status, int(fields["content-length"])) == (200, MODEL.stat().st_size)
        assert (await page.get("/call.json"))[0] == 200  # what comes next is the next answer's head


@pytest.mark.parametrize(
    "path",
    ["/index.html", "/web/", "/../pyproject.toml", "/web/../format.json", "/%2e%2e/etc/passwd", "/r/", "/r/a/b", "/x"],
)
async def test_nothing_else_is_there(path: str) -> None:
    async with running(web=FILES) as relay, browser(relay) as page:
        assert (await page.get(path))[0] == 404


async def test_health_and_metrics_and_calls_stay_as_they_are() -> None:
    async with running(web=FILES) as relay:
        async with browser(relay) as page:
            assert (await page.get("/"))[0] == 200
            assert (await page.get("/healthz"))[2] == b"ok\n"  # on the same connection
        async with browser(relay) as page:
            assert b"relay_connections_total" in (await page.get("/metrics"))[2]
        async with browser(relay) as page:
            assert (await page.get("/", "POST"))[0] == 405
        async with seated(relay) as (speaker, _), seated(relay) as (listener, _):
            await speaker.send(voice(1))
            assert (await heard(listener))[6:] == voice(1)[6:]


async def test_without_the_page_the_root_is_for_calls_alone() -> None:
    async with running() as relay, browser(relay) as page:
        assert (await page.get("/"))[0] == 426


async def test_a_slow_reader_gets_the_file_whole_after_the_handshakes_time(tmp_path: Path) -> None:
    """Over TLS too. What websockets answers is cut off after that time."""
    files = certificate(tmp_path)
    limits = RelayLimits(hello_s=0.2)
    for tls, client in ((None, None), (server_tls(*files), trusting(files[0]))):
        async with (
            running(web=FILES, limits=limits, tls=tls) as relay,
            browser(relay, ssl=client, limit=4096) as page,
        ):
            path = await model_path(page)
            page.ask(path, Connection="close")
            status, fields = await page.head()
            assert (status, fields["connection"]) == (200, "close")
            begin = asyncio.get_running_loop().time()
            body = await page.reader.readexactly(100_000)
            while asyncio.get_running_loop().time() - begin < 0.6:  # thrice the handshake's
                body += await page.reader.readexactly(1000)
                await asyncio.sleep(0.01)
            assert body + await page.reader.read() == MODEL.read_bytes()


async def test_voice_goes_on_while_files_are_sent() -> None:
    async with (
        running(web=FILES) as relay,
        seated(relay) as (speaker, _),
        seated(relay) as (listener, _),
        browser(relay) as page,
    ):
        path = await model_path(page)
        page.ask(path)
        await page.head()
        await page.reader.readexactly(10_000)
        for number in range(1, 20):
            await speaker.send(voice(number))
            assert (await heard(listener))[6:] == voice(number)[6:]
            await page.reader.readexactly(10_000)


async def test_readers_that_do_not_read_leave_room_for_callers() -> None:
    limits = RelayLimits(max_connections_per_address=8)
    async with running(web=FILES, limits=limits) as relay:
        async with browser(relay) as first:
            path = await model_path(first)
        pages = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, limit=1024)
            pages.append(Browser(reader, writer))
            pages[-1].ask(path)
            assert (await pages[-1].head())[0] == 200
        async with browser(relay) as late:
            status, fields, _ = await late.get("/")
            assert (status, fields["retry-after"]) == (503, "3")
        async with seated(relay) as (speaker, _), seated(relay) as (listener, _):
            await speaker.send(voice(1))
            await heard(listener)
        for page in pages:
            page.writer.transport.abort()
        async with browser(relay) as late:

            async def again() -> bool:
                return (await late.get("/"))[0] == 200

            for _ in range(200):
                if await again():
                    break
                await asyncio.sleep(0.02)
            assert await again()


async def test_a_request_that_never_ends_is_cut_off() -> None:
    async with running(web=FILES, limits=RelayLimits(hello_s=0.1)) as relay, browser(relay) as page:
        page.writer.write(b"GET / HTTP/1.1\r\nHost:")
        assert await asyncio.wait_for(page.reader.read(), 10) == b""


async def test_a_flood_before_a_request_is_cut_off() -> None:
    async with running(web=FILES) as relay, browser(relay) as page:
        page.writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await page.reader.readexactly(1_000_000)
        await until(lambda: not relay._admission.connections, "it is gone")


async def test_requests_that_do_not_wait_are_answered_in_turn() -> None:
    async with running(web=FILES) as relay, browser(relay) as page:
        for _ in range(5):
            page.ask("/call.json")
        for _ in range(5):
            status, fields = await page.head()
            assert status == 200
            json.loads(await page.reader.readexactly(int(fields["content-length"])))


async def test_a_stopping_relay_does_not_wait_for_readers() -> None:
    relay = Relay(RelayConfig(port=0, web=FILES))
    await relay.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, limit=1024)
    page = Browser(reader, writer)
    page.ask(f"/{json.loads(FILES._files['/call.json'].body)['model']['folder']}model.safetensors")
    await page.head()
    await asyncio.wait_for(relay.stop(), 10)
    writer.close()


@pytest.mark.parametrize(
    ("origin", "host", "guarded", "fine"),
    [
        ("http://localhost:{port}", "localhost:{port}", False, True),
        ("http://127.0.0.1:{port}", "127.0.0.1:{port}", False, True),
        ("http://127.0.0.1:{port}", "localhost:{port}", False, False),
        ("http://localhost:1", "localhost:{port}", False, False),
        ("http://localhost", "localhost:{port}", False, False),
        ("https://call.example", "call.example", False, True),  # a proxy has TLS, and passes Host on
        ("https://call.example", "call.example:443", False, True),
        ("http://evil.example:{port}", "evil.example:{port}", False, False),  # its name was made to mean 127.0.0.1
        ("http://call.example:{port}", "call.example:{port}", True, True),  # a token is needed besides
        ("https://evil.example", "call.example", True, False),
        ("null", "localhost:{port}", True, False),
        ("http://", "", True, False),
        ("http://[", "[", True, False),
    ],
)
async def test_its_own_page_may_connect(origin: str, host: str, guarded: bool, fine: bool) -> None:
    async with running(web=FILES, token_key=KEY if guarded else None) as relay, browser(relay) as page:
        port = relay.port
        page.writer.write(
            f"GET / HTTP/1.1\r\nHost: {host.format(port=port)}\r\nOrigin: {origin.format(port=port)}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Protocol: streaming-encodec.v1\r\n\r\n".encode()
        )
        assert (await page.head())[0] == (101 if fine else 403)


async def test_without_the_page_no_origin_is_its_own() -> None:
    async with running() as relay:
        with pytest.raises(InvalidStatus):
            async with seated(relay, connection={"origin": f"http://127.0.0.1:{relay.port}"}):
                pass


async def test_a_certificate_made_for_trying() -> None:
    made = SelfSigned.make(time.time(), ["localhost", "127.0.0.1", "localhost"])
    context = ssl.create_default_context(cadata=made.pem)
    async with (
        running(web=FILES, tls=made.server_tls()) as relay,
        browser(relay, ssl=context, server_hostname="localhost") as page,
    ):
        assert (await page.get("/"))[0] == 200
    assert re.fullmatch("[0-9a-f]{64}", made.sha256)


def test_an_installation_without_the_kernel_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("streaming_encodec.relay.web_files.files", lambda _: tmp_path)
    (tmp_path / "web").mkdir()
    with pytest.raises(ConfigError, match=r"has no kernel\.wasm"):
        WebFiles.bundled(tokens=False)


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.0\r\nHost: a",
        "GET / HTTP/1.1",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b",
        "GET / HTTP/1.1\r\nHost : a",
        "GET / HTTP/1.1\r\n Host: a",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket",
        "GET http://a/ HTTP/1.1\r\nHost: a",
        "GET / HTTP/1.1\r\nHost: a\nX: b",
        "PUT / HTTP/1.1\r\nHost: a",
        "",
    ],
)
def test_unusual_requests_are_left_to_the_websocket_layer(head: str) -> None:
    assert read_request(head.encode()) is None
    assert read_request(b"GET / HTTP/1.1\r\nHost: a") is not None
