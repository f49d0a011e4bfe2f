"""Shared by all tests: one torch thread, and a ledger of what ran, printed at the end of the run."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same cases in every run: a red suite must be red for everyone. No deadline: machines are noisy.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
# For a long hunt: pytest --hypothesis-profile=hunt
settings.register_profile("hunt", parent=settings.get_profile("suite"), derandomize=False, max_examples=3000)
settings.load_profile("suite")


class Ledger:
    """Counts of configurations per law, and agreement rates, for the summary."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.same: Counter[str] = Counter()
        self.total: Counter[str] = Counter()

    def count(self, law: str) -> None:
        """One more configuration for which ``law`` held."""
        self.counts[law] += 1

    def agreement(self, what: str, same: int, total: int) -> None:
        """So many of so many codes agreed."""
        self.same[what] += same
        self.total[what] += total

    def tables(self) -> tuple[Counter[str], ...]:
        return self.counts, self.same, self.total


_LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEDGER] = Ledger()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Adds what one process of `pytest -n` counted."""
    theirs = getattr(node, "workeroutput", {}).get("ledger", ())
    for mine, more in zip(node.config.stash[_LEDGER].tables(), theirs, strict=False):
        mine.update(more)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["ledger"] = [dict(table) for table in session.config.stash[_LEDGER].tables()]


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    return pytestconfig.stash[_LEDGER]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors lose time to thread hand-over, and two threads may round differently from one."""
    try:
        import torch
    except ImportError:  # the rooms without torch are tested without it
        return
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _denormals_as_found() -> Iterator[None]:
    """Sessions of ONNX Runtime leave their thread with denormals as zero, which hypothesis rightly refuses."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    ledger = config.stash[_LEDGER]
    if ledger.counts or ledger.total:
        terminalreporter.section("laws")
    for law, count in sorted(ledger.counts.items()):
        terminalreporter.write_line(f"{law}: {count} random configurations")
    for what, total in sorted(ledger.total.items()):
        terminalreporter.write_line(f"{what}: {ledger.same[what]} of {total} ({ledger.same[what] / total:.4%})")
