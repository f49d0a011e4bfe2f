"""Tests that need something of the machine: what CI must have, and other machines may lack."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def cannot(reason: str) -> NoReturn:
    """End a test that cannot run here: a failure in CI, where it must run, a skip with its reason elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
