"""How many files and sockets this process may have open."""

from __future__ import annotations

import contextlib


def raise_descriptor_limit(wanted: int) -> int | None:
    """Let this process open as many as `wanted`, or as many as the system allows it.

    Returns how many it may open now; None where the system has no such limit.
    """
    try:
        import resource
    except ImportError:  # Windows, whose sockets are not limited in this way
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if target > soft:
        # macOS calls its hard limit infinite, and refuses more than another limit allows.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
            soft = target
    return int(soft)
