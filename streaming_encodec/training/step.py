"""One training step, a function of the step's number: its random draws depend on (seed, step) alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from streaming_encodec.errors import ConfigError, StreamingEncodecError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.streaming.conceal import conceal_latent
from streaming_encodec.training import products, state
from streaming_encodec.training.adversary import Adversary, Judged
from streaming_encodec.training.balancer import LossBalancer
from streaming_encodec.training.channel import GaussianChannel
from streaming_encodec.training.config import TrainConfig
from streaming_encodec.training.gradients import require_sane_gradients
from streaming_encodec.training.initial import deepen, initialise
from streaming_encodec.training.losses import MelLoss, shaped_loss, waveform_loss
from streaming_encodec.training.lost_frames import draw_losses
from streaming_encodec.training.muon import Muon
from streaming_encodec.training.perceptual import EnvelopeLoss, LoudnessLoss, SimilarityLoss
from streaming_encodec.training.quantizer import QuantizerTrainer
from streaming_encodec.training.replicas import Replicas


class DivergedError(StreamingEncodecError):
    """The losses are no longer finite; the message says how to resume."""


_LEVEL_SHARE = 0.2
"""Weight of the loss that keeps the latent at unit power: otherwise, through the channel, louder is always better."""


class _Decoded(NamedTuple):
    """A replica's result for its share."""

    output: Tensor  # [b, C, T]
    losses: dict[str, float]
    gradients: dict[str, Tensor]  # at the output
    judged: Judged | None  # by the discriminator, where it takes part


class CodecTrainer:
    """The model with its losses, codebook averages and optimiser: everything that a step changes.

    ``batch`` [B, 1, T] of speech sets the levels of random weights. ``quantised``: whether there are codebooks; before,
    the channel takes their place.
    """

    def __init__(self, config: TrainConfig, batch: Tensor) -> None:
        self.config = config
        self.device = torch_device(config.device)
        if config.precision == "bfloat16":
            require_sane_gradients(config.model, self.device, torch.bfloat16)
        self.model = _starting_model(config, batch.cpu()).to(self.device).train()
        self.replicas = Replicas(self.model, config.replicas)
        self.quantised = config.quantizer.keep
        self.channel = GaussianChannel(config.model.hidden_size, config.channel)
        self.quantizer = QuantizerTrainer(self.model.quantizer, config.quantizer)
        self.mel = MelLoss(config.model.sampling_rate, config.loss.mel_windows).to(self.device)
        self.loudness = LoudnessLoss(config.model.sampling_rate).to(self.device)
        self.envelope = EnvelopeLoss(config.model.sampling_rate).to(self.device)
        self.similarity = SimilarityLoss(config.model.sampling_rate).to(self.device)
        shares = {"waveform": config.loss.waveform, "shaped": config.loss.shaped, "mel": config.loss.mel}
        shares |= {"loudness": config.loss.loudness, "envelope": config.loss.envelope}
        shares |= {"similarity": config.loss.similarity}
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "waveform": waveform_loss, "shaped": shaped_loss, "mel": self.mel,
            "loudness": self.loudness, "envelope": self.envelope, "similarity": self.similarity,
        }  # fmt: skip
        # The waveform loss is always needed: the others are scaled by it.
        self._losses = {name: loss for name, loss in losses.items() if shares[name] > 0.0 or name == "waveform"}
        shares |= {"adversarial": config.loss.adversarial, "feature": config.loss.feature}
        self.balancer = LossBalancer(shares, reference="waveform")
        self.optimizer = Muon(
            (self.model.encoder, self.model.decoder),
            config.learning_rate,
            config.betas,
            config.weight_decay,
            low_precision(config),
        )
        self.adversary = Adversary(config, low_precision(config)) if config.loss.adversarial_start is not None else None

    def step(self, step: int, samples: Tensor, learning_rate: float) -> dict[str, float]:
        """One step on ``samples`` [B, 1, T]; returns losses and diagnostics by name."""
        config = self.config
        rng = np.random.default_rng([config.seed, step, 1])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        frozen = self.quantised and config.quantizer.freeze_encoder
        encoded = self._encode(samples, learning=not frozen)
        # A leaf, so that the loss's gradient at the latent is available before the encoder's backward pass.
        latent = torch.cat([part.detach().float() for part in encoded]).requires_grad_(not frozen)
        if not bool(latent.detach().isfinite().all()):
            raise _diverged("latent", step)
        passed, pull = latent, None
        active = torch.from_numpy(rng.choice(config.quantizer.counts, len(samples))).to(self.device)
        report: dict[str, float] = {}
        if self.quantised:
            passed, commitment, used = self.quantizer(latent, active, None if frozen else generator)
            report |= {"perplexity_1": float(used[0]), "perplexity_mean": float(used[:8].mean())}
            report["commitment"] = float(commitment.detach())
            if not frozen:
                pull = _share_of(torch.autograd.grad(commitment, latent)[0], config.quantizer.commitment_share)
        else:
            self.channel.follow(latent.detach())
            pull = _LEVEL_SHARE * _towards_unit_power(latent.detach())
            if step >= config.channel.start_step:
                bits = [float(count) * config.model.bits_per_codebook for count in active]
                passed = self.channel(latent, bits, generator)
        if self._frames_get_lost(step):
            lost = draw_losses(len(samples), latent.shape[-1], config.lost_frames, rng)
            passed = conceal_latent(passed, lost, config.lost_frames.decay)
        self.optimizer.zero_grad(set_to_none=True)
        phase = (active / self.config.loss.phase_counts).clamp_max(1.0)[:, None, None]
        report |= self._through_decoder(passed, samples, phase, learning_rate, step)
        if pull is not None:
            self._backward_through_encoder(encoded, latent, pull)
        self.replicas.gather_gradients()
        return report | self._update(step, learning_rate)

    def _encode(self, samples: Tensor, learning: bool) -> list[Tensor]:
        shares = self.replicas.shares(samples)

        def work(i: int, model: EncodecModel) -> Tensor:
            with torch.set_grad_enabled(learning):
                return self.run(model.encoder, shares[i])

        return self.replicas.each(work)

    def _through_decoder(
        self, passed: Tensor, samples: Tensor, phase: Tensor, learning_rate: float, step: int
    ) -> dict[str, float]:
        """Decode ``passed`` [B, D, F] and run the backward pass of the balanced losses down to it; returns the losses.

        ``phase`` [B, 1, 1]: weight of the losses that depend on phase.
        """
        shares = self.replicas.shares(samples)
        latents = [share.detach().requires_grad_() for share in self.replicas.shares(passed)]

        start = self.config.loss.adversarial_start
        adversary = self.adversary if start is not None and step >= start else None

        def decode(i: int, model: EncodecModel) -> _Decoded:
            output = self.run(model.decoder, latents[i]).float()
            losses, gradients = self._judge(output.detach(), shares[i], step)
            judged = None if adversary is None else adversary.judge(step, output, shares[i])
            if judged is not None:
                losses |= judged.losses
                gradients |= judged.gradients
            return _Decoded(output, losses, gradients, judged)

        decoded = self.replicas.each(decode)
        weights = [len(share) / len(samples) for share in shares]
        losses = {
            name: sum(w * d.losses[name] for w, d in zip(weights, decoded, strict=True)) for name in decoded[0].losses
        }
        gradients = {
            name: torch.cat([w * d.gradients[name] for w, d in zip(weights, decoded, strict=True)])
            for name in decoded[0].gradients
        }
        for name in self.config.loss.phase_losses & gradients.keys():
            gradients[name] *= phase
        if adversary is not None:
            adversary.learn([d.judged for d in decoded if d.judged is not None], weights, learning_rate)
        wanted = self.replicas.shares(self.balancer.balance(gradients))
        self.replicas.each(lambda i, model: torch.autograd.backward(decoded[i].output, wanted[i]))
        if passed.requires_grad:
            torch.autograd.backward(passed, torch.cat([_gradient_of(latent) for latent in latents]))
        return losses

    def _judge(self, heard: Tensor, samples: Tensor, step: int) -> tuple[dict[str, float], dict[str, Tensor]]:
        """The losses of a share and their gradients at its output, one by one for the balancer."""
        losses, gradients = {}, {}
        for name, loss in self._losses.items():
            # A leaf: each gradient at the output is available before the decoder's backward pass.
            x = heard.detach().requires_grad_()
            value = self.mel(x, samples, self._windows(step)) if name == "mel" else loss(x, samples)
            losses[name], gradients[name] = float(value.detach()), torch.autograd.grad(value, x)[0]
        return losses, gradients

    def run(self, stack: StreamableStack, x: Tensor) -> Tensor:
        """Encoder or decoder in the run's precision, in the form that is fast on its device."""
        return products.forward(stack, self.config.model, x, low_precision(self.config))

    def _frames_get_lost(self, step: int) -> bool:
        start = self.config.lost_frames.start_step
        return self.quantised if start is None else step >= start

    def _windows(self, step: int) -> tuple[int, ...]:
        windows = self.config.loss.mel_windows
        turns = -(-len(windows) // self.config.loss.mel_windows_a_step)
        return windows[step % turns :: turns]

    def _backward_through_encoder(self, encoded: list[Tensor], latent: Tensor, pull: Tensor) -> None:
        gradient = _gradient_of(latent)
        # A share of the decoder's gradient: a fixed weight dominated it, and the codebooks collapsed.
        wanted = self.replicas.shares((gradient + pull * gradient.norm()).to(encoded[0].dtype))
        self.replicas.each(lambda i, model: torch.autograd.backward(encoded[i], wanted[i]))

    def _update(self, step: int, learning_rate: float) -> dict[str, float]:
        learned = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(learned, self.config.grad_clip))
        if not np.isfinite(norm):
            raise _diverged("gradient", step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.replicas.each(lambda i, model: self.optimizer.step_part(i, self.config.replicas))
        return {"grad_norm": norm}

    def state(self) -> dict[str, Tensor]:
        """Every tensor to resume from, by name."""
        tensors = state.with_prefix("model", self.model.state_dict())
        tensors |= state.with_prefix("quantizer", self.quantizer.state())
        tensors |= state.with_prefix("channel", self.channel.state())
        tensors |= state.with_prefix("optimizer", state.optimizer_tensors(self.optimizer))
        if self.adversary is not None:
            tensors |= state.with_prefix("adversary", self.adversary.state())
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` gave. A discriminator that the saved run didn't have keeps its new weights."""
        self.model.load_state_dict(state.without_prefix("model", tensors))
        self.quantizer.load_state(state.without_prefix("quantizer", tensors))
        self.channel.load_state(state.without_prefix("channel", tensors))
        state.load_optimizer_tensors(self.optimizer, state.without_prefix("optimizer", tensors))
        held = state.without_prefix("adversary", tensors)
        if self.adversary is not None and held:
            self.adversary.load_state(held)

    @torch.no_grad()
    def start_quantizer(self, batches: list[Tensor]) -> None:
        """Set the codebooks by k-means on the latents of some batches [B, 1, T]."""
        latents = [self.run(self.model.encoder, batch).float().transpose(1, 2).flatten(0, 1) for batch in batches]
        generator = torch.Generator().manual_seed(self.config.seed)
        self.quantizer.start(torch.cat(latents), generator)
        self.quantised = True


def low_precision(config: TrainConfig) -> torch.dtype | None:
    """Precision of products; None is float32, as everything else."""
    return torch.bfloat16 if config.precision == "bfloat16" else None


def torch_device(name: str) -> torch.device:
    """The device of that name. Raises `ConfigError` if there is none."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {name!r}: give cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("this torch sees no CUDA device: install its CUDA build and a driver, or train with cpu")
    return device


def _starting_model(config: TrainConfig, batch: Tensor) -> EncodecModel:
    if config.start_model is not None:
        model = EncodecModel.from_pretrained(config.start_model)
        layers = config.model.num_residual_layers
        if model.config.num_residual_layers < layers and not model.config.use_conv_shortcut:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                model = deepen(model, layers)
        if model.config != config.model:
            raise ConfigError(f"start_model {config.start_model} has another architecture than the run's model")
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = EncodecModel(config.model)
        initialise(model, batch)
    return model


def _diverged(what: str, step: int) -> DivergedError:
    return DivergedError(
        f"the {what} of step {step} is not finite: resume from the last saved state with a lower learning_rate, "
        "or with precision='float32'"
    )


def _gradient_of(leaf: Tensor) -> Tensor:
    if leaf.grad is None:  # the decoder always uses the latent
        raise DivergedError("no gradient reached the latent: resume from the last saved state")
    return leaf.grad


def _share_of(pull: Tensor, share: float) -> Tensor:
    """``pull``, to be multiplied by the norm of the gradient that it goes with."""
    return pull.mul(share / (pull.norm() + 1e-12))


def _towards_unit_power(latent: Tensor) -> Tensor:
    """As long as the excess of power over 1."""
    excess = latent.square().mean() - 1.0
    return latent.mul(excess.clamp(-1.0, 1.0) / latent.norm())
