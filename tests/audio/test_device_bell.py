"""What wakes the thread that computes."""

import os
import subprocess
import sys
import threading
import time

import pytest

from streaming_encodec.audio.devices.bell import Bell


def test_it_wakes_once_for_all_that_rang_before() -> None:
    bell = Bell()
    for _ in range(3):
        bell.ring()
    assert bell.wait(0.0)
    assert not bell.wait(0.01)
    bell.close()


def test_who_waits_is_woken_by_another_thread() -> None:
    bell = Bell()
    threading.Timer(0.05, bell.ring).start()
    assert bell.wait(60.0)


def test_nobody_who_rings_waits() -> None:
    bell = Bell()
    begin = time.monotonic()
    for _ in range(100_000):  # far more than the system keeps
        bell.ring()
    assert time.monotonic() - begin < 30
    while bell.wait(0.0):
        pass


@pytest.mark.skipif(os.name != "posix", reason="nothing is inherited there")
def test_another_process_rings_it() -> None:
    bell = Bell()
    code = f"import os; os.write({bell.number}, b'!')"
    subprocess.run([sys.executable, "-c", code], pass_fds=[bell.number], check=True)
    assert bell.wait(60.0)
