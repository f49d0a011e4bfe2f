"""What both ends ask of the kernel's TCP: to hold little voice, and to send again soon what was lost."""

from __future__ import annotations

import socket
import sys

import pytest
from relay_kit import running

from streaming_encodec.transport.websocket import tcp
from streaming_encodec.transport.websocket.client import WebSocketDialer
from streaming_encodec.transport.websocket.server import WebSocketServerConnection

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the options are Linux's")


def has(option: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.getsockopt(socket.IPPROTO_TCP, option)
        except OSError:
            return False
    return True


@LINUX
@pytest.mark.parametrize(("option", "value"), [(25, 4096), *tcp._OPTIONS])
async def test_both_ends_set_each_option_that_the_kernel_knows(option: int, value: int) -> None:
    if not has(option):
        pytest.skip(f"this kernel has no TCP option {option}")
    async with running() as relay:
        near = await WebSocketDialer(relay.url).connect()
        (far,) = relay._admission.connections
        assert isinstance(far, WebSocketServerConnection)
        for end in (near, far):
            sock = end.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, option) == value
        await near.close()


def test_a_local_socket_has_no_tcp_options() -> None:
    assert not tcp.is_tcp(None)
    if hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as sock:
            assert not tcp.is_tcp(sock)
