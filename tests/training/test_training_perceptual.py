"""The losses after models of hearing: their order is that of the measures, their gradients lead to the target."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch
from torch import Tensor

from streaming_encodec.training import perceptual
from streaming_encodec.training.perceptual import EnvelopeLoss, LoudnessLoss, SimilarityLoss, bark_bank, third_octaves

RATE = 24000
LOSSES = {"loudness": LoudnessLoss(RATE), "envelope": EnvelopeLoss(RATE), "similarity": SimilarityLoss(RATE)}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def voice(seconds: float = 1.0) -> Tensor:
    """A buzz of moving pitch and level, with some noise: speech enough for these losses."""
    t = np.arange(int(seconds * RATE)) / RATE
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.5 * t)) / RATE
    buzz = sum(np.sin(k * pitch) / k for k in range(1, 30))
    level = 0.05 + 0.1 * np.abs(np.sin(2 * np.pi * 3 * t))
    noise = np.random.default_rng(0).standard_normal(len(t)) * 0.003
    return torch.from_numpy((level * buzz * 0.3 + noise).astype(np.float32))[None, None]


@each_loss
def test_more_noise_is_worse_and_none_is_best(loss: torch.nn.Module) -> None:
    clean = voice()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * clean.std()
    values = [float(loss(clean + noise * 10 ** (-snr / 20), clean)) for snr in (40, 20, 10, 0)]
    assert float(loss(clean, clean)) < 0.02
    assert values == sorted(values)
    assert values[-1] > 10 * values[0]


def test_added_sound_is_worse_than_missing_sound() -> None:
    """P.862's asymmetry: coding noise is heard, a lost band less so."""
    clean = voice()
    band = torch.from_numpy(np.sin(2 * np.pi * 3000 * np.arange(RATE) / RATE).astype(np.float32))[None, None] * 0.02
    loss = LoudnessLoss(RATE)
    assert float(loss(clean + band, clean)) > 1.5 * float(loss(clean, clean + band))


def test_pauses_have_no_say_in_the_envelopes() -> None:
    """The same words, another faint noise in the second of quiet after them."""
    noise = [torch.randn(1, 1, 2 * RATE, generator=torch.Generator().manual_seed(n)) * 3e-4 for n in (1, 2)]
    words = torch.nn.functional.pad(voice(), (0, RATE))
    quiet = torch.arange(2 * RATE) >= RATE
    output, target = (words + n * quiet for n in noise)
    output = output.clone().requires_grad_()
    loss = EnvelopeLoss(RATE)(output, target)
    assert float(loss.detach()) < 0.01
    gradient = torch.autograd.grad(loss, output)[0]
    assert float(gradient[..., RATE + RATE // 2 :].abs().max()) == 0.0


def test_loudness_does_not_depend_on_the_level_of_both() -> None:
    clean = voice()
    noisy = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * 0.01
    loss = LoudnessLoss(RATE)
    assert float(loss(noisy / 4, clean / 4)) == pytest.approx(float(loss(noisy, clean)), rel=0.05)


@each_loss
@pytest.mark.parametrize("kind", ["silence", "output silent", "both loud"])
def test_gradients_are_finite_on_extremes(loss: torch.nn.Module, kind: str) -> None:
    target = torch.zeros(1, 1, RATE // 2) if kind == "silence" else voice(0.5)
    output = torch.zeros_like(target) if kind != "both loud" else torch.sign(target)
    output.requires_grad_()
    value = loss(output, target)
    torch.autograd.backward(value)
    assert output.grad is not None
    assert bool(value.isfinite())
    assert bool(output.grad.isfinite().all())


@each_loss
def test_following_the_gradient_takes_the_noise_away(loss: torch.nn.Module) -> None:
    clean = voice(0.5)
    noisy = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * clean.std() * 0.3
    x = noisy.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], 1e-3)
    before = float(loss(noisy, clean))
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(loss(x, clean))
        optimizer.step()
    assert float(loss(x.detach(), clean)) < 0.6 * before


def test_the_banks_cover_what_they_say() -> None:
    bank, widths, centres = bark_bank(RATE, 768, 8000.0)
    bins = np.arange(385) * RATE / 768
    assert (bank.sum(axis=1) > 0).all()
    inside = (bins > 100) & (bins < 7900)
    assert bank.sum(axis=0)[inside] == pytest.approx(1.0, abs=1e-5)
    assert widths == pytest.approx(widths[0])
    assert (np.diff(centres) > 0).all()
    octaves = third_octaves(RATE, 614)
    assert (octaves.sum(axis=1) > 0).all()
    assert octaves.sum(axis=0).max() == 1.0


@pytest.mark.parametrize("snr_db", [30.0, 10.0, 0.0])
def test_similarity_is_that_of_visqol(snr_db: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Band by band, beside the package, which realigns patches and knows no ``_FLAT`` to speak of."""
    monkeypatch.setattr(perceptual, "_FLAT", 4.5e-4)
    visqol = pytest.importorskip("visqol", reason="visqol-python is not installed (extra eval)")
    api = visqol.VisqolApi()
    api.create(mode="speech", use_lattice_model=False)
    clean = voice(4.0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * clean.std()
    noisy = clean + noise * 10 ** (-snr_db / 20)
    reference, degraded = (soxr.resample(x[0, 0].double().numpy(), RATE, 16000) for x in (clean, noisy))
    judged = api.measure_from_arrays(reference, degraded, 16000)
    similarity = SimilarityLoss(RATE).similarity(noisy, clean)[0].mean(-1).numpy()
    assert similarity[:-1] == pytest.approx(np.asarray(judged.fvnsim)[:-1], abs=0.05)
