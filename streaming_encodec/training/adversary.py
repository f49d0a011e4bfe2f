"""The discriminator's part of a training step: its losses for the codec, and its own step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from streaming_encodec.training import state
from streaming_encodec.training.config import TrainConfig
from streaming_encodec.training.discriminator import (
    MultiScaleStftDiscriminator,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)


class Judged(NamedTuple):
    """The discriminator's result for a replica's share."""

    losses: dict[str, float]
    gradients: dict[str, Tensor]  # at the output [b, 1, T], of the decoder's two losses
    learned: Sequence[Tensor] | None  # its own gradients; None on a step on which it doesn't learn


class Adversary:
    """The discriminator with its optimiser; ``low``: the precision of its products, None for float32."""

    def __init__(self, config: TrainConfig, low: torch.dtype | None = None) -> None:
        self._every = config.loss.discriminator_every
        self._rows = -(-config.loss.discriminator_clips // config.replicas)
        self._rate_share = config.loss.discriminator_learning_rate_share
        self._low = low
        with torch.random.fork_rng(devices=[]):  # the codec's random start must not depend on it
            torch.manual_seed(config.seed + 1)
            self.discriminator = MultiScaleStftDiscriminator(
                config.loss.discriminator_windows, config.loss.discriminator_filters
            ).to(config.device)
        self.optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=0.0
        )

    def judge(self, step: int, output: Tensor, target: Tensor) -> Judged:
        """Losses and gradients for ``output`` and ``target`` [b, 1, T]; changes nothing, so replicas may share it.

        One pass serves both sides: the decoder gets the losses of the discriminator before this step.
        Only the first clips take part; the gradient of the others is zero.
        """
        learns = step % self._every == 0
        heard = output[: self._rows].detach().requires_grad_()
        with torch.autocast(heard.device.type, self._low or torch.bfloat16, enabled=self._low is not None):
            with torch.set_grad_enabled(learns):
                real = self.discriminator(target[: self._rows])
            fake = self.discriminator(heard)
        wanted = {"adversarial": adversarial_loss(fake), "feature": feature_loss(real, fake)}
        gradients = {}
        for name, loss in wanted.items():
            of_heard = torch.autograd.grad(loss, heard, retain_graph=True)[0]
            gradients[name] = torch.cat([of_heard, torch.zeros_like(output[self._rows :])])
        losses = {name: float(loss.detach()) for name, loss in wanted.items()}
        if not learns:
            return Judged(losses, gradients, None)
        own = discriminator_loss(real, fake)
        losses["discriminator"] = float(own.detach())
        return Judged(losses, gradients, torch.autograd.grad(own, list(self.discriminator.parameters())))

    def learn(self, judged: Sequence[Judged], weights: Sequence[float], learning_rate: float) -> None:
        """One step of the discriminator, from its results for each replica's share of the batch."""
        shares = [(weight, part.learned) for weight, part in zip(weights, judged, strict=True) if part.learned]
        if not shares:
            return
        for number, parameter in enumerate(self.discriminator.parameters()):
            parameter.grad = sum((weight * learned[number] for weight, learned in shares), torch.zeros_like(parameter))
        torch.nn.utils.clip_grad_norm_(self.discriminator.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate_share * learning_rate
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Tensors to resume from."""
        tensors = state.with_prefix("weights", self.discriminator.state_dict())
        return tensors | state.with_prefix("optimizer", state.optimizer_tensors(self.optimizer))

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` gave."""
        self.discriminator.load_state_dict(state.without_prefix("weights", tensors))
        state.load_optimizer_tensors(self.optimizer, state.without_prefix("optimizer", tensors))
