"""What a relay shows to whoever keeps it: health, metrics, logs; and who else may see that."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from raw_kit import PING, UPGRADE
from relay_kit import KEY, FakeClock, enter, fetch, guest, heard, running, seated, voice
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from streaming_encodec.relay.descriptors import raise_descriptor_limit
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.transport.logs import JsonFormatter, OncePerMinute, event, log_loop_error, logger


def samples(text: str) -> dict[str, float]:
    """Value by name and labels, as Prometheus reads them."""
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# -- health and metrics -------------------------------------------------------------------------------------


async def test_health_metrics_and_nothing_else() -> None:
    async with (
        running() as relay,
        seated(relay, "publish") as (mouth, _),
        seated(relay, "subscribe") as (ear, _),
    ):
        await mouth.send(voice(1, frames=2))
        size = len(await heard(ear))
        assert await fetch(relay, "/healthz?x=1") == (200, "text/plain; charset=utf-8", "ok\n")
        status, kind, text = await fetch(relay, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        wanted = {"packets_in_total": 1, "frames_in_total": 2, "bytes_in_total": size, "packets_out_total": 1}
        wanted |= {"rooms": 1, "seats": 2, "joins_total": 2, "fanout_seconds_count": 1, "draining": 0}
        found = samples(text)
        assert {name: found[f"streaming_encodec_relay_{name}"] for name in wanted} == wanted
        assert all(name.startswith("streaming_encodec_relay_") for name in found)
        assert (await fetch(relay, "/../etc/passwd"))[0] == 404
        assert (await fetch(relay, "/"))[0] == 426  # a page is no WebSocket


def test_metrics_are_in_the_text_format() -> None:
    metrics = Metrics()
    metrics.counts["packets_in"] += 3
    metrics.closed[4403] += 2
    for seconds in (0.0001, 0.004, 3.0):
        metrics.fanout(seconds)
    found = samples(metrics.exposition({"rooms": 2})[0].decode())
    assert found["streaming_encodec_relay_packets_in_total"] == 3
    assert found["streaming_encodec_relay_rooms"] == 2
    assert found["streaming_encodec_relay_closed_total code=4403"] == 2
    buckets = [value for name, value in found.items() if "_bucket" in name]
    assert buckets == sorted(buckets)
    assert buckets[0] == 1
    assert buckets[-1] == 3 == found["streaming_encodec_relay_fanout_seconds_count"]
    assert found["streaming_encodec_relay_fanout_seconds_sum"] == pytest.approx(3.0041)


def test_relays_of_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.counts["joins"] += 1
    assert samples(other.exposition({})[0].decode())["streaming_encodec_relay_joins_total"] == 0
    assert samples(one.exposition({})[0].decode()) == samples(one.exposition({})[0].decode())


async def test_metrics_are_not_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming_encodec.relay.pages.is_loopback", lambda address: False)
    async with running() as relay:
        assert (await fetch(relay, "/metrics"))[0] == 404
    async with running(public_metrics=True) as relay:
        assert (await fetch(relay, "/metrics"))[0] == 200


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Forwarded", "for=192.0.2.1"),
        ("Via", "1.1 proxy"),
        ("X_Forwarded_For", "192.0.2.1"),
        ("x_forwarded_proto", "https"),
        ("X_Real_IP", "192.0.2.1"),
        ("CF_Connecting_IP", "192.0.2.1"),
        ("True_Client_IP", "192.0.2.1"),
        ("X_Forwarded_For", ""),
        ("Host", "relay.example"),
        ("Host", "relay.example:8765"),
        ("Host", "192.0.2.1"),
        ("Host", "["),
    ],
)
async def test_metrics_are_not_for_who_comes_through_a_proxy(header: str, value: str) -> None:
    """The proxy runs on this machine, so the address is this machine's."""
    async with running() as relay:
        assert (await fetch(relay, "/metrics", **{header: value}))[0] == 404
        assert (await fetch(relay, "/healthz", **{header: value}))[0] == 200
    async with running(public_metrics=True) as relay:
        assert (await fetch(relay, "/metrics", **{header: value}))[0] == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8765", "127.0.0.1", "127.0.0.1:1", "[::1]:8765"])
async def test_metrics_are_for_this_machine_under_all_its_names(host: str) -> None:
    async with running() as relay:
        assert (await fetch(relay, "/metrics", Host=host))[0] == 200


async def test_a_relay_without_tokens_is_not_for_who_comes_through_a_proxy() -> None:
    """It lets everybody in because only this machine can reach it. A proxy on this machine makes that untrue."""
    forwarded = {"additional_headers": {"X-Forwarded-For": "192.0.2.1"}}
    async with running() as relay:
        with pytest.raises(InvalidStatus) as refused:
            async with guest(relay, **forwarded):
                pass
        assert refused.value.response.status_code == 403
        assert b"insecure=True" in refused.value.response.body
    async with running(insecure=True) as relay, seated(relay, connection=forwarded):
        pass
    token = KEY.sign("r", now_s=1000)
    async with running(token_key=KEY, clock=FakeClock()) as relay, seated(relay, connection=forwarded, token=token):
        pass


# -- logs ---------------------------------------------------------------------------------------------------


def record(message: str, *args: Any, name: str = "asyncio", at_s: float = 0.0, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, extra.pop("level", logging.WARNING), "x.py", 1, message, args, None)
    made.created = at_s
    made.__dict__ |= extra
    return made


def test_logs_are_one_json_object_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=logger.name):
        event("join", room="a\nb", seat=3)
    line = JsonFormatter().format(caplog.records[-1])
    assert "\n" not in line
    values = json.loads(line)
    assert (values["event"], values["room"], values["seat"], values["level"]) == ("join", "a\nb", 3, "info")
    assert values["time"].endswith("Z")


def test_a_cause_is_logged_once_a_minute_and_counted() -> None:
    once = OncePerMinute()
    lines = [record("socket.send() raised exception.", at_s=n / 1000) for n in range(50_000)]
    assert [once.filter(line) for line in lines].count(True) == 1
    later = record("socket.send() raised exception.", at_s=60.0)
    assert once.filter(later)
    assert json.loads(JsonFormatter().format(later))["left_out"] == 49_999
    assert once.filter(record("something else", at_s=60.0))
    assert once.filter(record("socket.send() raised exception.", at_s=-1e6)), "the clock was set back"


def test_a_cause_is_told_by_its_message_and_not_by_its_arguments() -> None:
    once = OncePerMinute()
    assert once.filter(record("%r failed", 1))
    assert not once.filter(record("%r failed", 2))
    assert once.filter(record("%r failed", 2, name="websockets"))
    assert once.filter(record("%r failed", 2, level=logging.ERROR))


def test_events_of_the_relay_all_pass_but_those_that_strangers_bring_about(caplog: pytest.LogCaptureFixture) -> None:
    once = OncePerMinute()
    with caplog.at_level(logging.INFO, logger=logger.name):
        for _ in range(5):
            event("join", room="r")
            event("cut_off", logging.WARNING, cause="too many", address="192.0.2.1")
    passed = [line.getMessage() for line in caplog.records if once.filter(line)]
    assert passed == ["join", "cut_off", "join", "join", "join", "join"]


def test_causes_are_bounded() -> None:
    once = OncePerMinute()
    for number in range(10_000):
        assert once.filter(record(f"message {number}"))
    assert len(once._causes) <= 256


async def test_errors_of_the_event_loop_are_events(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_error)
    with caplog.at_level(logging.INFO, logger=logger.name):
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        loop.call_exception_handler({"message": "socket.accept() out of system resource", "socket": object()})
    values = [json.loads(JsonFormatter().format(line)) for line in caplog.records]
    assert [line["event"] for line in values] == ["loop_error", "loop_error"]
    assert "ZeroDivisionError" in values[0]["exception"]
    assert values[1]["message"] == "socket.accept() out of system resource"


# -- a process that runs out of descriptors -----------------------------------------------------------------


class Served:
    """A relay in a process of its own."""

    def __init__(self, *options: str, descriptors: int | None = None) -> None:
        program = "import sys; from streaming_encodec.cli.app import main; main()"
        if descriptors is not None:
            limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))"
            program = f"{limit}; {program}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", "--port", "0", *options], stderr=subprocess.PIPE, text=True
        )
        self.said: list[dict[str, Any]] = []
        assert self.process.stderr is not None
        while not self.said or self.said[-1]["event"] != "listening":
            self.said.append(json.loads(self.process.stderr.readline()))
        self.url = str(self.said[-1]["url"])
        self.port = int(self.url.rpartition(":")[2])

    def rest(self) -> list[dict[str, Any]]:
        """Stop it; all that it said since it was started. Each line must be JSON."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return [json.loads(line) for line in errors.splitlines()]


@contextmanager
def served(*options: str, descriptors: int | None = None) -> Iterator[Served]:
    relay = Served(*options, descriptors=descriptors)
    try:
        yield relay
    finally:
        relay.process.kill()
        relay.process.communicate()


def connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it is a reset
    return sock


async def test_guests_who_reset_their_connections_in_a_flood_do_not_fill_the_log() -> None:
    with served() as relay:
        for _ in range(20):
            with connected(relay.port) as sock:
                sock.sendall(UPGRADE)
                while b"\r\n\r\n" not in sock.recv(4096):
                    pass
                with suppress(OSError):
                    sock.sendall(PING * 20_000)
        lines = relay.rest()
    foreign = [line for line in lines if not line["logger"].startswith("streaming_encodec")]
    assert len(foreign) <= 1
    assert len(lines) < 100


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on descriptors")
async def test_a_relay_without_descriptors_goes_on_with_its_calls() -> None:
    with served("--max-per-address", "500", descriptors=100) as relay:
        few = next(line for line in relay.said if line["event"] == "few_descriptors")
        assert (few["level"], few["allowed"], few["needed"]) == ("warning", 100, 1128)

        def call() -> Any:
            return connect(relay.url, subprotocols=[SUBPROTOCOL], compression=None, proxy=None)  # type: ignore[list-item]

        async with call() as ear, call() as mouth:
            await enter(ear, "subscribe")
            await enter(mouth, "publish")
            held = [connected(relay.port) for _ in range(150)]
            # Those that no descriptor is left for are closed at once instead of left waiting.
            over = [await asyncio.to_thread(_is_ended, sock) for sock in held[-10:]]
            assert all(over)
            for sequence in range(20):
                await mouth.send(voice(sequence))
                assert (await heard(ear))[6] == sequence
            for sock in held:
                sock.close()
            while not await asyncio.to_thread(_is_healthy, relay.port):
                await asyncio.sleep(0.05)
        lines = relay.rest()
    refused = [line for line in lines if line["event"] == "cut_off"]
    assert [line["reason"] for line in refused] == ["no descriptors left"]
    assert len(lines) < 20


def _is_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def _is_healthy(port: int) -> bool:
    try:
        with connected(port) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return sock.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on descriptors")
def test_the_descriptor_limit_is_raised_as_far_as_the_system_allows() -> None:
    program = (
        "import resource; from streaming_encodec.relay.descriptors import raise_descriptor_limit as up; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400)); "
        "print(up(50), up(200), up(300), up(5000), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["100", "200", "300", "400", "400", "400"]


def test_systems_without_such_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert raise_descriptor_limit(5000) is None


def test_a_relay_needs_no_numpy() -> None:
    """Nor the codec: a relay forwards packets, and its process stays small."""
    code = (
        "import sys, streaming_encodec.relay.relay; "
        "print(*{'numpy', 'torch', 'onnxruntime', 'soxr', 'streaming_encodec.model'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
