"""Training of the residual quantiser."""

from __future__ import annotations

import pytest
import torch

from streaming_encodec.model.quantizer import ResidualVectorQuantizer
from streaming_encodec.training.config import QuantizerConfig
from streaming_encodec.training.quantizer import QuantizerTrainer, kmeans, perplexity

from .conftest import TINY_MODEL


def fresh(config: QuantizerConfig = QuantizerConfig()) -> tuple[ResidualVectorQuantizer, QuantizerTrainer]:  # noqa: B008
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(TINY_MODEL)
    for k, book in enumerate(quantizer.codebooks):
        book.embed.normal_(std=0.6**k)
    return quantizer, QuantizerTrainer(quantizer, config)


def latents(seed: int = 1, batch: int = 4, frames: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, TINY_MODEL.hidden_size, frames, generator=generator)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_each_row_is_quantised_as_the_model_does_with_its_number_of_codebooks() -> None:
    quantizer, trainer = fresh()
    x = latents()
    got = trainer(x, torch.tensor([1, 2, 4, 2]), None).latent
    for row, count in enumerate([1, 2, 4, 2]):
        expected = quantizer.decode(quantizer.encode(x[row : row + 1], count))
        assert torch.allclose(got[row], expected[0], atol=1e-5)


def test_gradient_passes_straight_through() -> None:
    _, trainer = fresh()
    x = latents().requires_grad_()
    weights = torch.randn_like(x)
    (trainer(x, torch.tensor([1, 2, 4, 2]), None).latent * weights).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, weights)


def test_commitment_pulls_the_latent_to_its_codes() -> None:
    _, trainer = fresh()
    x = latents().requires_grad_()
    counts = torch.full((4,), 4)
    before = trainer(x, counts, None)
    before.commitment.backward()
    assert x.grad is not None
    after = trainer((x - 2.0 * x.grad).detach(), counts, None)
    assert float(after.commitment) < float(before.commitment)


def test_codebooks_move_to_the_vectors_that_choose_them() -> None:
    quantizer, trainer = fresh(QuantizerConfig(decay=0.9, dead_share=0.0))
    x, counts = latents(frames=200), torch.full((4,), 4)
    error = [float((trainer(x, counts, generator()).latent - x).pow(2).mean()) for _ in range(40)]
    assert error[-1] < 0.75 * error[0]
    codes = quantizer.encode(x, 1)[:, 0]
    vectors = x.transpose(1, 2)[codes == 3]
    assert torch.allclose(quantizer.codebooks[0].embed[3], vectors.mean(0), atol=0.15)


def test_codebooks_that_no_row_uses_stay_and_without_a_generator_all_do() -> None:
    quantizer, trainer = fresh()
    before = [book.embed.clone() for book in quantizer.codebooks]
    trainer(latents(), torch.tensor([1, 2, 2, 1]), generator())
    same = [torch.equal(book.embed, old) for book, old in zip(quantizer.codebooks, before, strict=True)]
    assert same == [False, False, True, True]
    quantizer, trainer = fresh()
    trainer(latents(), torch.full((4,), 4), None)
    assert all(torch.equal(book.embed, old) for book, old in zip(quantizer.codebooks, before, strict=True))


def test_dead_codes_come_back_as_vectors_of_the_batch() -> None:
    quantizer, trainer = fresh(QuantizerConfig(decay=0.5, dead_share=0.05))
    quantizer.codebooks[0].embed[5:] = 100.0  # nobody's nearest
    trainer._sums[0] = quantizer.codebooks[0].embed.clone()
    x, counts = latents(frames=200), torch.full((4,), 1)
    used = [float(trainer(x, counts, generator()).perplexity[0]) for _ in range(12)]
    assert used[0] < 6
    assert used[-1] > 10
    assert float(quantizer.codebooks[0].embed.abs().max()) < 10


def test_kmeans_finds_the_centres_and_fills_empty_ones() -> None:
    torch.manual_seed(0)
    centres = torch.randn(8, 4) * 10
    points = centres.repeat(50, 1) + 0.01 * torch.randn(400, 4)
    found = kmeans(points, 16, 10, generator())
    assert torch.isfinite(found).all()
    assert float(torch.cdist(centres, found).min(dim=1).values.max()) < 0.1


def test_kmeans_start_quantises_better_than_random_codebooks_and_each_codebook_helps() -> None:
    quantizer, trainer = fresh()
    x = latents(frames=300)
    rows = x.transpose(1, 2).reshape(-1, TINY_MODEL.hidden_size)

    def errors() -> list[float]:
        return [float((quantizer.decode(quantizer.encode(x, k)) - x).pow(2).mean()) for k in (1, 2, 4)]

    before = errors()
    trainer.start(rows, generator())
    after = errors()
    assert all(a < b for a, b in zip(after, before, strict=True))
    assert after[0] > after[1] > after[2]


def test_fewer_vectors_than_codes_can_start_it_too() -> None:
    quantizer, trainer = fresh()
    trainer.start(torch.randn(5, TINY_MODEL.hidden_size), generator())
    assert all(torch.isfinite(book.embed).all() for book in quantizer.codebooks)


def test_state_continues_exactly() -> None:
    counts = torch.full((4,), 4)
    quantizer, trainer = fresh()
    trainer(latents(1), counts, generator())
    state = {name: value.clone() for name, value in trainer.state().items()}
    books = [book.embed.clone() for book in quantizer.codebooks]
    trainer(latents(2), counts, generator())
    other_quantizer, other = fresh()
    for book, embed in zip(other_quantizer.codebooks, books, strict=True):
        book.embed.copy_(embed)
    other.load_state(state)
    other(latents(2), counts, generator())
    assert all(
        torch.equal(one.embed, two.embed)
        for one, two in zip(quantizer.codebooks, other_quantizer.codebooks, strict=True)
    )


def test_perplexity_counts_codes_in_even_use() -> None:
    assert float(perplexity(torch.arange(8).repeat(5), 16)) == pytest.approx(8.0, rel=1e-4)
    assert float(perplexity(torch.zeros(40, dtype=torch.int64), 16)) == pytest.approx(1.0, rel=1e-4)
