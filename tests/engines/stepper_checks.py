"""How an engine's steps are compared with the layers' own."""

from __future__ import annotations

import torch
from torch import Tensor

from streaming_encodec.stepping.half import ReferenceStepper, Stepper
from streaming_encodec.stepping.tree import named_tensors


def error(got: Tensor, wanted: Tensor) -> float:
    """The difference's norm, relative to the signal's (or to 1, for signals that are almost nothing)."""
    assert got.shape == wanted.shape
    return float((got - wanted).norm() / wanted.norm().clamp(min=1.0)) if wanted.numel() else 0.0


def verify_step(stack, stepper: Stepper, inputs: list[Tensor], tolerance: float) -> None:
    """The stepper's outputs and states against the layers', from the layers' state at each step."""
    state = stack.init_state(inputs[0].shape[0])
    for x in inputs:
        mine = stepper.enter(state)
        kept = [tensor.clone() for _, tensor in named_tensors(mine, "kept")]
        wanted, state = ReferenceStepper(stack).step(x, state)
        got, after = stepper.step(x, mine)
        assert error(got, wanted) <= tolerance
        assert all(torch.equal(t, k) for (_, t), k in zip(named_tensors(mine, "kept"), kept, strict=True))
        theirs = dict(named_tensors(stepper.leave(after), "layers"))
        for name, tensor in named_tensors(state, "layers"):
            assert error(theirs[name], tensor) <= tolerance, name


def same(codes: Tensor, wanted: Tensor) -> tuple[int, int]:
    """How many codes are the wanted ones, and of how many."""
    assert codes.shape == wanted.shape
    return int((codes == wanted).sum()), wanted.numel()
