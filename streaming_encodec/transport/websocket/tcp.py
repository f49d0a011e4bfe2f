"""What the kernel's TCP is asked to do for voice, where the system can: hold little, and send again soon.

TCP is made for bulk. Its sender waits 200 ms at least until it sends a lost packet again, twice as long each time, and
the kernel takes minutes of voice for a line that is dead. Each option below is left out where a system lacks it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable

from streaming_encodec.transport.limits import MAX_KERNEL_AGE_S, UNSENT_LIMIT_BYTES

if sys.platform != "win32":
    import fcntl

RESEND_S = 0.02
"""The least time until a lost packet of voice is sent again, on top of the round trip."""
_USUAL_RESEND_S = 0.2
SLOW_S = 0.2
"""What is not acknowledged after so long and two round trips waits for something."""
LONGEST_RESEND_S = 1.0
"""The most, however often in a row it was lost: after an outage the line is tried at least so often."""
GIVE_UP_S = 20.0
"""After so long without an acknowledgement the kernel ends the connection."""

_LINUX = sys.platform == "linux"
_SIOCOUTQ = 0x5411  # linux/sockios.h
_SO_NWRITE = 0x1024  # sys/socket.h of macOS
_TCP_INFO = 11
_SACKED, _RTT, _MIN_RTT = 28, 68, 148  # of tcpi_sacked, tcpi_rtt and tcpi_min_rtt in tcp_info, linux/tcp.h
_MOST_QUEUE_S = 0.5
"""Of the round trip as it is lately, so much counts: others may fill a queue in the network, and what waits there comes
through. A longer queue may be this connection's own, which grows with whatever is written."""
# Not in the socket module, or only of newer Python versions: linux/tcp.h, and netinet/tcp.h of macOS.
_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)
_OPTIONS: tuple[tuple[int, int], ...] = (
    (
        (18, round(1000 * GIVE_UP_S)),  # TCP_USER_TIMEOUT
        (44, round(1000 * LONGEST_RESEND_S)),  # TCP_RTO_MAX_MS, Linux 6.15
    )
    if _LINUX
    else ()
)
_THIN_LINEAR_TIMEOUTS = 16  # the waiting time of a stream with few packets on the way is not doubled
_RTO_MIN_US = 45  # Linux 6.15


def is_tcp(sock: socket.socket | None) -> bool:
    """Whether it is a TCP socket; a transport may have none, or a local one."""
    return sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)


def tune(sock: socket.socket) -> None:
    """Set the options of a TCP socket that voice goes out of."""
    _set(sock, _OPTIONS if _NOTSENT_LOWAT is None else ((_NOTSENT_LOWAT, UNSENT_LIMIT_BYTES), *_OPTIONS))


def hurry(sock: socket.socket, soon: bool) -> None:
    """Send lost packets again soon, or as the system does it by itself.

    Voice is worth it. For control messages it would not be: on a slow line a packet takes longer than the time after
    which it is sent again, and its copies would fill the line up.
    """
    if _LINUX:
        _set(
            sock,
            ((_THIN_LINEAR_TIMEOUTS, int(soon)), (_RTO_MIN_US, round(1e6 * (RESEND_S if soon else _USUAL_RESEND_S)))),
        )


def _set(sock: socket.socket, options: tuple[tuple[int, int], ...]) -> None:
    for option, value in options:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


class KernelQueue:
    """What was written to a socket and not acknowledged by the other end. Time is handed in.

    unacknowledged: bytes in the kernel; None where the system does not tell, and then nothing is ever late.
    way_s: what a byte on its way needs until it is acknowledged, as things are.
    """

    def __init__(self, unacknowledged: Callable[[], int] | None, way_s: Callable[[], float]) -> None:
        self._unacknowledged, self._way_s = unacknowledged, way_s
        self._written: deque[tuple[float, int]] = deque()  # when, and the bytes written until then
        self._total = 0
        self._progress_s = 0.0

    def wrote(self, size: int, now_s: float) -> None:
        """So many bytes were written."""
        if self._unacknowledged is None:
            return
        if not self._written:
            self._progress_s = now_s
        self._total += size
        self._written.append((now_s, self._total))

    def is_late(self, now_s: float) -> bool:
        """Whether the oldest byte in the kernel is older than `MAX_KERNEL_AGE_S` and what its way takes."""
        return self._is_older(MAX_KERNEL_AGE_S, 1, now_s)

    def is_slow(self, now_s: float) -> bool:
        """Whether it is older than `SLOW_S` and twice that: a line that works has got it through by then."""
        return self._is_older(SLOW_S, 2, now_s)

    def _is_older(self, age_s: float, ways: int, now_s: float) -> bool:
        # The kernel is asked only once there may be something old: a few times a second on a good line.
        if not self._written or now_s - self._written[0][0] <= age_s:
            return False
        self._look(now_s)
        if not self._written:
            return False
        over_s = now_s - self._written[0][0] - age_s
        return over_s > 0 and over_s > ways * self._way_s()

    def stalled_s(self, now_s: float) -> float:
        """For how long nothing was acknowledged though there was something to acknowledge."""
        if self._written:
            self._look(now_s)
        return now_s - self._progress_s if self._written else 0.0

    def stood_still(self, seconds: float, now_s: float) -> None:
        """This program did not run for so long."""
        self._progress_s = min(now_s, self._progress_s + seconds)

    def _look(self, now_s: float) -> None:
        if self._unacknowledged is None:
            return
        acknowledged = self._total - self._unacknowledged()
        while self._written and self._written[0][1] <= acknowledged:
            self._written.popleft()
            self._progress_s = now_s


def kernel_queue(sock: socket.socket | None, round_trip_s: Callable[[], float]) -> KernelQueue:
    """The queue of a TCP socket. round_trip_s: measured by pings, where the kernel does not tell."""
    if sock is None or not is_tcp(sock):
        return KernelQueue(None, round_trip_s)
    if sys.platform == "darwin":
        return KernelQueue(lambda: sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE), round_trip_s)
    if not _LINUX:
        return KernelQueue(None, round_trip_s)
    return KernelQueue(lambda: _outq(sock), lambda: way_s(sock))


def _outq(sock: socket.socket) -> int:
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)))[0])
    except (OSError, ValueError):  # it was closed just now
        return 0


def way_s(sock: socket.socket) -> float:
    """A round trip; two while the other end tells that it waits for a packet that was lost, and gets later ones."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256)
        sacked, rtt_us, min_rtt_us = (int(struct.unpack_from("I", info, at)[0]) for at in (_SACKED, _RTT, _MIN_RTT))
    except (OSError, struct.error):
        return 0.0
    round_trip_s = max(min_rtt_us / 1e6, min(rtt_us / 1e6, _MOST_QUEUE_S))
    return 2 * round_trip_s if sacked else round_trip_s
