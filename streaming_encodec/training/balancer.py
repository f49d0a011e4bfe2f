"""EnCodec's loss balancer (arXiv 2210.13438, section 3.4): shares of the gradient, not weights of losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ROW_LIMIT = 2.0
"""A row's gradient counts at most this much times the loss's average."""


class LossBalancer:
    """Scales each loss's gradient at the model's output to its share, by a moving average of its norm.

    The model's backward pass then runs once, from the sum. A share says how much a loss moves the weights,
    independent of its scale; a loss whose gradient grows for a moment does not dominate, as the norm is an
    average. The sum is scaled to the norm of the ``reference`` loss, so that losses elsewhere in the model (the
    commitment) can be weighted against it.
    """

    def __init__(self, shares: Mapping[str, float], reference: str, decay: float = 0.99) -> None:
        self._shares = dict(shares)
        self._reference = reference
        self._decay = decay
        self._norms: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def balance(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """The sum of the losses' gradients at the output [B, C, T], each with its share."""
        # The reference's norm is needed even if it has no share: the sum is scaled to it.
        active = {name: value for name, value in gradients.items() if self._share(name) or name == self._reference}
        total_share = sum(self._share(name) for name in active)
        total = torch.zeros_like(next(iter(active.values())))
        for name, gradient in active.items():
            norms = gradient.norm(dim=(1, 2), keepdim=True)  # [B, 1, 1]
            judged = norms > 0.0  # the discriminator leaves clips out
            if not bool(judged.any()):
                continue
            if name in self._norms:
                # A nearly silent segment has a log-mel gradient a hundred times the usual one: limit each
                # row.
                limit = ROW_LIMIT * self._average(name)
                gradient = gradient * (limit / (norms + 1e-12)).clamp_max(1.0)
                norms = norms.clamp_max(limit)
            else:
                middle = norms[judged].median()
                gradient = gradient * (middle / (norms + 1e-12)).clamp_max(1.0)
                norms = norms.clamp_max(middle)
            before, weight = self._norms.get(name, 0.0), self._weights.get(name, 0.0)
            # A weighted mean: exact from the first step, not biased to zero.
            self._weights[name] = weight * self._decay + 1.0 - self._decay
            self._norms[name] = before * self._decay + float(norms[judged].mean()) * (1.0 - self._decay)
            total = total + gradient * (self._share(name) / total_share / (self._average(name) + 1e-12))
        return total * self._average(self._reference)

    def _share(self, name: str) -> float:
        return self._shares.get(name, 0.0)

    def _average(self, name: str) -> float:
        return self._norms.get(name, 0.0) / self._weights.get(name, 1.0)

    def state(self) -> dict[str, dict[str, float]]:
        """The moving averages, as plain values."""
        return {"norms": dict(self._norms), "weights": dict(self._weights)}

    def load_state(self, values: Mapping[str, Mapping[str, float]]) -> None:
        """Restore what :meth:`state` gave."""
        self._norms, self._weights = dict(values["norms"]), dict(values["weights"])
