"""What the kernel's TCP is asked to do for voice, where the system can: hold little, and send again soon.

TCP is made for bulk. Its sender waits 200 ms at least until it sends a lost packet again, twice as long each time, and
the kernel takes minutes of voice for a line that is dead. Each option below is left out where a system lacks it.
"""

from __future__ import annotations

import contextlib
import socket
import sys

from streaming_encodec.transport.limits import UNSENT_LIMIT_BYTES

RESEND_S = 0.02
"""The least time until a lost packet is sent again, on top of the round trip."""
LONGEST_RESEND_S = 1.0
"""The most, however often in a row it was lost: after an outage the line is tried at least so often."""
GIVE_UP_S = 20.0
"""After so long without an acknowledgement the kernel ends the connection."""

_LINUX = sys.platform == "linux"
# Not in the socket module, or only of newer Python versions: linux/tcp.h, and netinet/tcp.h of macOS.
_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)
_OPTIONS: tuple[tuple[int, int], ...] = (
    (
        (16, 1),  # TCP_THIN_LINEAR_TIMEOUTS: the waiting time of a stream with few packets on the way is not doubled
        (18, round(1000 * GIVE_UP_S)),  # TCP_USER_TIMEOUT
        (44, round(1000 * LONGEST_RESEND_S)),  # TCP_RTO_MAX_MS, Linux 6.15
        (45, round(1e6 * RESEND_S)),  # TCP_RTO_MIN_US, Linux 6.15
    )
    if _LINUX
    else ()
)


def is_tcp(sock: socket.socket | None) -> bool:
    """Whether it is a TCP socket; a transport may have none, or a local one."""
    return sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)


def tune(sock: socket.socket) -> None:
    """Set the options of a TCP socket that voice goes out of."""
    options = _OPTIONS if _NOTSENT_LOWAT is None else ((_NOTSENT_LOWAT, UNSENT_LIMIT_BYTES), *_OPTIONS)
    for option, value in options:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
