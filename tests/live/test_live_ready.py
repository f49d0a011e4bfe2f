"""A process made ready for a call, and given back as it was."""

import gc
import os

import pytest

from streaming_encodec.live.ready import before_others, ready_for_a_call


def test_garbage_is_looked_for_among_what_is_new_only() -> None:
    assert gc.get_freeze_count() == 0
    with ready_for_a_call():
        frozen = gc.get_freeze_count()
        with ready_for_a_call():
            pass
        assert gc.get_freeze_count() == frozen > 1000  # the inner one left what was not its own
    assert gc.get_freeze_count() == 0


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="this system has no priorities that could be set")
def test_priority_is_taken_where_allowed_and_given_back() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with before_others() as allowed:
        now = os.getpriority(os.PRIO_PROCESS, 0)
        assert now < 0 if allowed else now == before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="this system has no priorities that could be set")
def test_who_may_not_goes_on_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(os, "getpriority", lambda *_: 0)
    with before_others() as allowed:
        assert not allowed
