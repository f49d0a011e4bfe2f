"""The discriminator's part of a training step: judge, and learn to judge better."""

from __future__ import annotations

from collections.abc import Mapping

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


class Adversary:
    """The discriminator with its optimiser."""

    def __init__(self, config: TrainConfig) -> None:
        self._every = config.loss.discriminator_every
        with torch.random.fork_rng(devices=[]):  # the codec's start doesn't depend on whether there is an adversary
            torch.manual_seed(config.seed + 1)
            self.discriminator = MultiScaleStftDiscriminator(
                config.loss.discriminator_windows, config.loss.discriminator_filters
            ).to(config.device)
        self.optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=0.0
        )

    def learn(self, step: int, output: Tensor, target: Tensor, learning_rate: float) -> float:
        """One step of the discriminator on ``[B, 1, T]``; returns its loss, 0 on steps left out."""
        if step % self._every:
            return 0.0
        loss = discriminator_loss(self.discriminator(target), self.discriminator(output.detach()))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.discriminator.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return float(loss.detach())

    def losses(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The decoder's adversarial and feature losses for ``output`` [B, 1, T]."""
        with torch.no_grad():
            real = self.discriminator(target)
        fake = self.discriminator(output)
        return {"adversarial": adversarial_loss(fake), "feature": feature_loss(real, fake)}

    def state(self) -> dict[str, Tensor]:
        """Tensors to resume from."""
        tensors = state.with_prefix("weights", self.discriminator.state_dict())
        return tensors | state.with_prefix("optimizer", state.optimizer_tensors(self.optimizer))

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        self.discriminator.load_state_dict(state.without_prefix("weights", tensors))
        state.load_optimizer_tensors(self.optimizer, state.without_prefix("optimizer", tensors))
