"""A listener's line is cut, and nobody says so: little voice lies in the kernel, and the listener is put out."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from relay_kit import counted, running, seated, until, voice

from streaming_encodec.bench.network.topology import (
    LISTENER,
    RELAY,
    RELAY_FOR,
    SPEAKER,
    Topology,
    check_possible,
    inside,
    open_tun,
)
from streaming_encodec.errors import StreamingEncodecError
from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.transport.limits import MAX_KERNEL_AGE_S
from streaming_encodec.transport.websocket import tcp
from streaming_encodec.transport.websocket.server import WebSocketServerConnection


class Lines:
    """Carries packets between the namespaces until they are cut."""

    def __init__(self, topology: Topology) -> None:
        self.whole = True
        self._ways: dict[int, int] = {}
        for person in (SPEAKER, LISTENER):
            with inside(topology.name(person)):
                near = open_tun(RELAY)
            with inside(topology.name(RELAY)):
                far = open_tun(person)
            self._ways |= {near: far, far: near}
        self._stop, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        while True:
            ready, _, _ = select.select([*self._ways, self._stop], [], [])
            if self._stop in ready:
                return
            for source in ready:
                packet = os.read(source, 2048)
                if self.whole and packet[0] >> 4 == 4:
                    os.write(self._ways[source], packet)

    def close(self) -> None:
        os.close(self._wake)
        self._thread.join()
        for descriptor in (*self._ways, self._stop):
            os.close(descriptor)


@contextmanager
def lines() -> Iterator[tuple[Topology, Lines]]:
    try:
        check_possible()
    except StreamingEncodecError as error:
        pytest.skip(str(error))
    with ExitStack() as stack:
        topology = stack.enter_context(Topology())
        carried = Lines(topology)
        stack.callback(carried.close)
        topology.address()
        yield topology, carried


async def test_a_listener_behind_a_cut_line_is_put_out_and_little_voice_waits_for_it() -> None:
    with lines() as (topology, carried), ExitStack() as stack:
        stack.enter_context(inside(topology.name(RELAY)))
        async with running(limits=RelayLimits(stall_s=1.5), host="0.0.0.0", insecure=True) as relay:
            with inside(topology.name(LISTENER)):
                url = f"ws://{RELAY_FOR[LISTENER]}:{relay.port}"
                listener = seated(relay, "subscribe", connection={"uri": url})
                ear, _ = await listener.__aenter__()
            (far,) = relay._admission.connections
            assert isinstance(far, WebSocketServerConnection)
            sock = far.transport.get_extra_info("socket")
            async with seated(relay, "publish", connection={"uri": f"ws://127.0.0.1:{relay.port}"}) as (mouth, _):
                most = number = 0

                async def talk() -> None:
                    nonlocal most, number
                    while True:
                        await mouth.send(voice(number, timestamp=round(75 * relay._clock())))
                        number += 1
                        most = max(most, tcp._outq(sock))
                        await asyncio.sleep(1 / 75)

                talking = asyncio.create_task(talk())
                await until(lambda: counted(relay, "packets_out") > 30, "voice goes out")
                carried.whole = False
                await until(lambda: counted(relay, "evictions") == 1, "it is put out")
                talking.cancel()
                # What 0.3 s hold, with the frames' headers, and what a pause of this machine's adds.
                assert most <= 75 * (MAX_KERNEL_AGE_S + 0.3) * len(voice(0)) * 1.5
                assert relay.metrics.closed == {4410: 1}
                await until(lambda: far not in relay._admission.connections, "it is gone")
                assert counted(relay, "packets_dropped") > 30
            ear.transport.abort()


class Kernel:
    """The kernel's side: bytes it holds."""

    def __init__(self) -> None:
        self.bytes = 0
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.bytes


def test_what_is_acknowledged_in_time_is_never_late_and_seldom_asked_for() -> None:
    kernel = Kernel()
    queue = tcp.KernelQueue(kernel, lambda: 0.0)
    for step in range(750):
        now_s = step / 75
        assert not queue.is_late(now_s)
        queue.wrote(30, now_s)
        kernel.bytes = 60
    assert kernel.asked < 40
    assert queue.stalled_s(10.0) < 0.1


def test_on_a_dead_line_voice_is_held_back_and_the_stall_is_timed() -> None:
    kernel = Kernel()
    queue = tcp.KernelQueue(kernel, lambda: 0.0)
    written = 0
    for step in range(150):
        now_s = step / 75
        if not queue.is_late(now_s):
            queue.wrote(30, now_s)
            written += 1
            kernel.bytes += 30
    assert written / 75 == pytest.approx(MAX_KERNEL_AGE_S, abs=0.03)
    assert queue.stalled_s(2.0) == pytest.approx(2.0)
    queue.stood_still(1.0, 2.0)
    assert queue.stalled_s(2.0) == pytest.approx(1.0)
    kernel.bytes = 0
    assert not queue.is_late(2.1)
    assert queue.stalled_s(2.1) == 0.0


@pytest.mark.parametrize(("round_trip_s", "late"), [(0.1, True), (0.5, False)])
def test_a_long_way_is_no_queue(round_trip_s: float, late: bool) -> None:
    kernel = Kernel()
    queue = tcp.KernelQueue(kernel, lambda: round_trip_s)
    queue.wrote(30, 0.0)
    kernel.bytes = 30
    assert queue.is_late(0.6) == late


@pytest.mark.parametrize(("after_s", "slow"), [(0.15, False), (0.3, False), (0.5, True)])
def test_a_line_is_slow_after_two_round_trips_and_some_time(after_s: float, slow: bool) -> None:
    kernel = Kernel()
    queue = tcp.KernelQueue(kernel, lambda: 0.1)
    queue.wrote(30, 0.0)
    kernel.bytes = 30
    assert queue.is_slow(after_s) == slow
    kernel.bytes = 0
    assert not queue.is_slow(after_s)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what the kernel holds")
def test_the_kernel_tells_the_round_trip() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            near.sendall(b"x")
            assert far.recv(1) == b"x"
            queue = tcp.kernel_queue(near, lambda: 1000.0)
            queue.wrote(1 << 30, 0.0)  # more than the kernel has, so it was acknowledged
            assert not queue.is_late(10.0)
            assert 0 < tcp.way_s(near) < 0.5


async def test_voice_is_sent_again_soon_and_control_messages_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("these options are Linux's")
    async with running() as relay, seated(relay, "subscribe"):
        (ears,) = relay._admission.connections
        async with seated(relay, "publish") as (mouth, _):
            (mouths,) = set(relay._admission.connections) - {ears}
            assert isinstance(ears, WebSocketServerConnection)
            assert isinstance(mouths, WebSocketServerConnection)

            def hurries(connection: WebSocketServerConnection) -> bool:
                sock: socket.socket = connection.transport.get_extra_info("socket")
                return bool(sock.getsockopt(socket.IPPROTO_TCP, 16))  # TCP_THIN_LINEAR_TIMEOUTS

            await mouth.send(voice(0))
            await until(lambda: counted(relay, "packets_out") == 1, "voice goes out")
            assert (hurries(ears), hurries(mouths)) == (True, False)
            ears.send_control("{}")
            assert hurries(ears)  # voice went out just now
            monkeypatch.setattr("streaming_encodec.transport.websocket.connection._NO_VOICE_S", -1.0)
            ears.send_control("{}")
            assert not hurries(ears)


async def test_a_copy_of_a_packet_is_left_out_where_the_line_is_slow() -> None:
    async with running() as relay, seated(relay, "subscribe") as (ear, _):
        (ears,) = relay._admission.connections
        assert isinstance(ears, WebSocketServerConnection)
        kernel = Kernel()
        kernel.bytes = 10
        ears._kernel = tcp.KernelQueue(kernel, lambda: 0.0)
        ears._kernel.wrote(10, ears.loop.time() - 0.25)  # not yet so old that all has to wait
        ears.send_packet(1, 1, voice(1), spare=True)
        ears.send_packet(1, 1, voice(2))
        assert await asyncio.wait_for(ear.recv(), 30) == voice(2)
        kernel.bytes = 0
        ears.send_packet(1, 1, voice(3), spare=True)
        assert await asyncio.wait_for(ear.recv(), 30) == voice(3)


def test_where_the_system_does_not_tell_nothing_is_late() -> None:
    queue = tcp.KernelQueue(None, lambda: 0.0)
    queue.wrote(30, 0.0)
    assert not queue.is_late(100.0)
    assert queue.stalled_s(100.0) == 0.0
