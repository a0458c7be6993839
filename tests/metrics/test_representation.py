"""MEXA against its definition in loops, CKA against numpy, and how both behave."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from xlt_bench.metrics.representation import cka, cosine_margin, mexa


def slow_mexa(first, second):
    """MEXA by its definition (arXiv 2410.05873, section 3), one pair of sentences at a time.

    github cisnlp/MEXA computes it so: cosines in double precision from scipy, and the diagonal
    strictly larger than the rest of its row and of its column.
    """
    matrix = np.array([[1 - cosine(b, a) for a in first] for b in second])
    n = len(matrix)
    right = 0
    for i in range(n):
        rest = [matrix[i, j] for j in range(n) if j != i] + [
            matrix[j, i] for j in range(n) if j != i
        ]
        right += all(matrix[i, i] > other for other in rest)
    return 100 * right / n


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(0.1, 3))
def test_mexa_is_its_definition(seed, n, noise):
    generator = np.random.default_rng(seed)
    first = generator.normal(size=(n, 6)).astype(np.float32)
    second = (first + noise * generator.normal(size=(n, 6))).astype(np.float32)
    found = mexa(torch.tensor(first), torch.tensor(second))
    assert found == pytest.approx(slow_mexa(first.astype(float), second.astype(float)))
    assert found == mexa(torch.tensor(second), torch.tensor(first))


def test_a_sentence_that_is_nearest_one_way_only_and_a_tie_do_not_count():
    english = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    both_near_the_first = torch.tensor([[1.0, 0.1], [1.0, 0.3]])
    # Row 2: its own English cosine is smaller than that with sentence 1.
    assert mexa(both_near_the_first, english) == 50
    assert mexa(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), english) == 0  # equal to its column's other


def test_the_margin_of_cosines_by_hand():
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    second = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    # Pairs: 1 and cos 45°; others: cos 45° (first 1, second 2) and 0.
    half = 2**-0.5
    assert cosine_margin(first, second) == pytest.approx((1 + half) / 2 - half / 2)


def test_cka_is_the_correlation_of_unbiased_similarities():
    """With many sentences and few dimensions it is near the usual estimator, of Kornblith et al."""
    generator = np.random.default_rng(2)
    x = generator.normal(size=(800, 5))
    y = x @ generator.normal(size=(5, 7)) + generator.normal(size=(800, 7))
    a, b = x - x.mean(0), y - y.mean(0)
    usual = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert float(cka(torch.tensor(x), torch.tensor(y))) == pytest.approx(usual, abs=0.01)
    assert float(cka(torch.tensor(x), torch.tensor(3 * x + 1))) == pytest.approx(1)
