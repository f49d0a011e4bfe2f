"""What wakes the thread that computes."""

import os
import subprocess
import sys
import threading
import time

import pytest

from streaming_encodec.audio.devices.wakeup import Wakeup


def test_it_wakes_once_for_all_that_rang_before() -> None:
    wakeup = Wakeup()
    for _ in range(3):
        wakeup.set()
    assert wakeup.wait(0.0)
    assert not wakeup.wait(0.01)
    wakeup.close()


def test_who_waits_is_woken_by_another_thread() -> None:
    wakeup = Wakeup()
    threading.Timer(0.05, wakeup.set).start()
    assert wakeup.wait(60.0)


def test_setting_it_never_blocks() -> None:
    wakeup = Wakeup()
    begin = time.monotonic()
    for _ in range(100_000):  # far more than the system keeps
        wakeup.set()
    assert time.monotonic() - begin < 30
    while wakeup.wait(0.0):
        pass


@pytest.mark.skipif(os.name != "posix", reason="nothing is inherited there")
def test_another_process_sets_it() -> None:
    wakeup = Wakeup()
    code = f"import os; os.write({wakeup.number}, b'!')"
    subprocess.run([sys.executable, "-c", code], pass_fds=[wakeup.number], check=True)
    assert wakeup.wait(60.0)
