"""The optimiser: orthogonal steps for the weight matrices, Adam for everything else.

The gradients of a codec's convolutions are dominated by a few directions, the low harmonics. Adam follows those, and
the phase of higher ones is learned late. Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) makes
each step of a matrix orthogonal, so that all directions move equally; scaled after arXiv 2502.16982, so that one
learning rate serves both rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
_SMALLEST_SIDE = 16
"""Adam takes matrices with a shorter side (the first and the last convolution)."""
_ADAM_SHARE = 0.6
_ITERATIONS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Of Newton and Schulz's iteration: singular values go to about 1, from above 0.001 in five rounds."""


class Muon(torch.optim.Optimizer):
    """Muon, with Adam for parameters that are not matrices.

    A convolution's weight is a matrix of its output channels by all inputs of one output sample.

    Args:
        modules: whose parameters are learned.
        betas: Adam's.
        weight_decay: of the matrices, relative to the learning rate.
        low: precision in which steps are made orthogonal; None is the parameters' own.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
        low: torch.dtype | None = None,
    ) -> None:
        self._low = low
        matrices: list[Tensor] = []
        transposed: list[Tensor] = []  # input channels come first there
        others: list[Tensor] = []
        for module in modules:
            for part in module.modules():
                for parameter in part.parameters(recurse=False):
                    if not _is_matrix(parameter):
                        others.append(parameter)
                    elif isinstance(part, nn.ConvTranspose1d):
                        transposed.append(parameter)
                    else:
                        matrices.append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "kind": "matrix", "weight_decay": weight_decay},
            {"params": transposed, "kind": "transposed", "weight_decay": weight_decay},
            {"params": others, "kind": "adam", "betas": betas},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": learning_rate})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient."""
        if closure is not None:
            raise TypeError("this optimiser evaluates no closure: call backward, then step()")
        self.step_part(0, 1)
        return None

    @torch.no_grad()
    def step_part(self, part: int, parts: int) -> None:
        """Update every ``parts``-th parameter; several parts can run in parallel."""
        learned = [(parameter, group) for group in self.param_groups for parameter in group["params"]]
        for parameter, group in learned[part::parts]:
            if parameter.grad is None:
                continue
            if group["kind"] == "adam":
                self._adam(parameter, parameter.grad, group)
            else:
                self._orthogonal(parameter, parameter.grad, group)

    def _orthogonal(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1.0 - _MOMENTUM)
        wanted = gradient.lerp(momentum, _MOMENTUM)  # Nesterov's
        if group["kind"] == "transposed":
            wanted = wanted.transpose(0, 1)
        flat = wanted.flatten(1)
        step = orthogonalised(flat, self._low).mul_(0.2 * max(flat.shape) ** 0.5).view_as(wanted)
        if group["kind"] == "transposed":
            step = step.transpose(0, 1)
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"]).sub_(step, alpha=group["lr"])

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["steps"] = torch.zeros(())
        state["steps"] += 1
        fast, slow = group["betas"]
        state["first"].lerp_(gradient, 1.0 - fast)
        state["second"].lerp_(gradient.square(), 1.0 - slow)
        count = float(state["steps"])
        scale = (state["second"] / (1.0 - slow**count)).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["first"], scale, value=-_ADAM_SHARE * group["lr"] / (1.0 - fast**count))


def orthogonalised(matrix: Tensor, low: torch.dtype | None = None) -> Tensor:
    """The nearest matrix with all singular values about 1 (within 0.7 to 1.2), ``[m, n]`` → same shape.

    ``low``: precision of the computation; five rounds reach that range in any. Bfloat16 takes a third of the time
    if the processor has instructions for it, and many times as long otherwise.
    """
    a, b, c = _QUINTIC
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x.div(x.norm() + 1e-9).to(low or x.dtype)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.to(matrix.dtype)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() >= 2 and min(parameter.shape[0], parameter[0].numel()) >= _SMALLEST_SIDE
