"""How an engine's steps are compared with the layers' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from streaming_encodec.engines.torch_engine import LayersStepper
from streaming_encodec.stepping.engine import Engine
from streaming_encodec.stepping.stepper import Stepper
from streaming_encodec.stepping.tree import map_arrays, named_arrays


def error(got: Any, wanted: Tensor) -> float:
    """The difference's norm, relative to the signal's (or to 1, for signals that are almost nothing)."""
    got = torch.as_tensor(got)
    assert got.shape == wanted.shape
    return float((got - wanted).norm() / wanted.norm().clamp(min=1.0)) if wanted.numel() else 0.0


def verify_step(stack, engine: Engine, stepper: Stepper, inputs: list[Tensor], tolerance: float) -> None:
    """The stepper's outputs and states against the layers', from the layers' state at each step."""
    state = stack.init_state(inputs[0].shape[0])
    for x in inputs:
        mine = stepper.enter(state)
        kept = dict(named_arrays(map_arrays(engine.arrays.copy, stepper.leave(mine)), "kept"))
        wanted, state = LayersStepper(stack).step(x, state)
        got, after = stepper.step(engine.arrays.floats(x), mine)
        assert error(got, wanted) <= tolerance
        assert all(np.array_equal(array, kept[name]) for name, array in named_arrays(stepper.leave(mine), "kept"))
        theirs = dict(named_arrays(stepper.leave(after), "layers"))
        for name, tensor in named_arrays(state, "layers"):
            assert error(theirs[name], tensor) <= tolerance, name


def same(codes: Tensor, wanted: Tensor) -> tuple[int, int]:
    """How many codes are the wanted ones, and of how many."""
    assert codes.shape == wanted.shape
    return int((codes == wanted).sum()), wanted.numel()
