"""Three network namespaces, speaker, relay and listener, joined by two lines (Linux, root).

    speaker 10.77.1.2 --- 10.77.1.1 relay 10.77.2.1 --- 10.77.2.2 listener

Each end of a line is a TUN device, of which `forwarder` holds the other side: the kernels' own TCP speaks through it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from streaming_encodec.errors import StreamingEncodecError

SPEAKER, RELAY, LISTENER = "speaker", "relay", "listener"
RELAY_FOR = {SPEAKER: "10.77.1.1", LISTENER: "10.77.2.1"}
"""The relay's address on each person's line."""
_ADDRESS = {SPEAKER: "10.77.1.2", LISTENER: "10.77.2.2"}
_NEXT_ADDRESS = "10.77.2.3"

_NAMESPACES = Path("/run/netns")
_NAME = re.compile(r"streaming-encodec-(\d+)-\w+")
_TCP = ("congctl", "cubic")
"""Of each route: what most servers and clients have, whatever this machine's own is (a namespace's may not be set)."""
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000  # linux/if_tun.h
_CLONE_NEWNET = 0x40000000  # linux/sched.h


def check_possible() -> None:
    """Raise StreamingEncodecError where this machine cannot make such networks."""
    missing = []
    if sys.platform != "linux":
        missing.append("Linux")
    elif os.geteuid() != 0:
        missing.append("root (sudo)")
    elif not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        missing.append("/dev/net/tun (a container needs --device /dev/net/tun --cap-add NET_ADMIN,SYS_ADMIN)")
    if shutil.which("ip") is None:
        missing.append("the program ip (package iproute2)")
    if not missing and not _is_allowed():
        missing.append("the right to make them (a container needs --cap-add NET_ADMIN,SYS_ADMIN)")
    if missing:
        raise StreamingEncodecError(
            f"bad networks are made of network namespaces and TUN devices: this machine lacks {', '.join(missing)}"
        )


def _is_allowed() -> bool:
    """Make one of each, and remove it: root in a container may be refused either."""
    name = f"streaming-encodec-{os.getpid()}-trial"
    try:
        os.close(open_tun("se-trial"))
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    return True


def open_tun(device: str) -> int:
    """A new TUN device in the namespace of the calling thread; gone when the descriptor is closed."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Within it the calling thread, and what it starts, is in the network namespace; sockets made there stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net", "rb") as home, open(_NAMESPACES / namespace, "rb") as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
        try:
            yield
        finally:
            libc.setns(home.fileno(), _CLONE_NEWNET)


class Topology:
    """The namespaces, from entering it to leaving it, whatever happens meanwhile.

    Names hold the process id, so that two laboratories do not meet; what one that was killed left behind is removed
    by the next one.
    """

    def __init__(self) -> None:
        self._names = {place: f"streaming-encodec-{os.getpid()}-{place}" for place in (SPEAKER, RELAY, LISTENER)}

    def name(self, place: str) -> str:
        """The namespace of speaker, relay or listener."""
        return self._names[place]

    def __enter__(self) -> Self:
        for found in _NAMESPACES.glob("streaming-encodec-*"):
            match = _NAME.fullmatch(found.name)
            if match and not Path(f"/proc/{match[1]}").exists():
                _remove(found.name)
        try:
            for name in self._names.values():
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._names.values():
            if (_NAMESPACES / name).exists():
                _remove(name)

    def address(self) -> None:
        """Give the devices their addresses, once they are there: in the relay's namespace called after the person at
        the other end, in a person's namespace `relay`."""
        for person, relay in RELAY_FOR.items():
            _ip("-n", self.name(person), "addr", "add", _ADDRESS[person], "peer", relay, "dev", RELAY)
            _ip("-n", self.name(RELAY), "addr", "add", relay, "peer", _ADDRESS[person], "dev", person)
            _ip("-n", self.name(person), "link", "set", RELAY, "up")
            _ip("-n", self.name(RELAY), "link", "set", person, "up")
            self._route(person, relay, RELAY, _ADDRESS[person])
            self._route(RELAY, _ADDRESS[person], person, relay)
        self._route(RELAY, _NEXT_ADDRESS, LISTENER, RELAY_FOR[LISTENER])

    def give_new_address(self) -> None:
        """The listener's address is another one from now on, as after a change from Wi-Fi to mobile."""
        there, relay = self.name(LISTENER), RELAY_FOR[LISTENER]
        _ip("-n", there, "addr", "del", _ADDRESS[LISTENER], "peer", relay, "dev", RELAY)
        _ip("-n", there, "addr", "add", _NEXT_ADDRESS, "peer", relay, "dev", RELAY)
        self._route(LISTENER, relay, RELAY, _NEXT_ADDRESS)

    def _route(self, place: str, target: str, device: str, source: str) -> None:
        _ip("-n", self.name(place), "route", "replace", f"{target}/32", "dev", device, "src", source, *_TCP)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        raise StreamingEncodecError(f"ip {' '.join(arguments)}: {' '.join(done.stderr.split())}")
    return done.stdout


def _remove(name: str) -> None:
    """Remove a namespace, and end first what still runs in it: it would go on with nobody who knows of it."""
    for process in _ip("netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    _ip("netns", "del", name)
