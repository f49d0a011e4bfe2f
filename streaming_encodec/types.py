"""Arrays by name: numpy's of one type, and those that may be torch's too. Imports no torch."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
"""Latent frames, weights, and other real numbers."""

Pcm: TypeAlias = NDArray[np.float32]
"""Sound: samples within -1 … 1, [C, n] or [n]."""

IntArray: TypeAlias = NDArray[np.int64]
"""Codes, and other whole numbers."""

AnyArray: TypeAlias = Any
"""A numpy array or a torch tensor. Code that takes either must run without torch, so it cannot name ``Tensor``."""
