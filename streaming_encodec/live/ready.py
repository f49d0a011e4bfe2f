"""A process made ready for a call, whose threads have 13 ms for a frame."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

_NICE = -11
"""PulseAudio's default for the same purpose: ahead of all ordinary work, and still sharing with it."""


@contextlib.contextmanager
def ready_for_a_call() -> Iterator[None]:
    """Enter it when the model is loaded, before devices are opened: it takes a moment.

    Within the block this thread, and those that it starts, go before ordinary programs where that is allowed, and
    garbage is looked for only among what is new: a collection that looks at everything torch has made takes a quarter
    of a second.
    """
    freeze = gc.isenabled() and gc.get_freeze_count() == 0
    if freeze:
        gc.collect()
        gc.freeze()
    try:
        with before_others():
            yield
    finally:
        if freeze:
            gc.unfreeze()


@contextlib.contextmanager
def before_others() -> Iterator[bool]:
    """Within the block this thread, and the threads that it starts, go before ordinary programs, if that is allowed.

    Yields whether it is. On Linux it takes root, `CAP_SYS_NICE`, or a `nice` limit (`/etc/security/limits.d`) such as
    audio packages grant to the group `audio`. Elsewhere nothing changes.
    """
    if not hasattr(os, "setpriority"):
        yield False
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    allowed = False
    if before > _NICE:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
            allowed = True
    try:
        yield allowed or before <= _NICE
    finally:
        if allowed:
            os.setpriority(os.PRIO_PROCESS, 0, before)
