"""Retrieval against a slow, exact implementation of the rule: loops over lists, fractions."""

from fractions import Fraction
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_bench.metrics.retrieval import (
    accuracy,
    correct_counts,
    even_layers,
    neighbours,
    normalise,
)
from xlt_bench.metrics.significance import percent


def dot(a, b):
    return sum(Fraction(p) * Fraction(q) for p, q in zip(a, b, strict=True))


def answers_by_rule(queries, candidates, k):
    """The index of each query's answer; exact, one candidate at a time."""

    def nearest(vector, others):
        cosines = [dot(vector, other) for other in others]
        order = sorted(range(len(others)), key=lambda j: (-cosines[j], j))[:k]
        return [(cosines[j], j) for j in order]

    def mean(near):
        return sum(cosine for cosine, _ in near) / Fraction(len(near))

    found = []
    for query in queries:
        near = nearest(query, candidates)
        best, answer = None, None
        for cosine, j in near:
            margin = (mean(near) + mean(nearest(candidates[j], queries))) / 2
            if margin:
                score = cosine / margin
            else:
                score = inf if cosine > 0 else -inf if cosine < 0 else Fraction(0)
            if best is None or score > best:
                best, answer = score, j
        found.append(answer)
    return found


def check(x, y, k=4):
    forward, backward = neighbours(torch.tensor(x), torch.tensor(y), k)
    x, y = np.array(x).tolist(), np.array(y).tolist()
    assert forward.tolist() == answers_by_rule(x, y, k)
    assert backward.tolist() == answers_by_rule(y, x, k)


def parallel(n, d, seed, noise=1.0):
    """Two languages' states of the same n sentences: shared content and noise."""
    generator = torch.Generator().manual_seed(seed)
    content, a, b = torch.randn(3, n, d, generator=generator)
    return normalise(content + noise * a + 0.5), normalise(content + noise * b + 0.5)


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_random_states_follow_the_rule(k):
    x, y = parallel(40, 16, seed=k)
    check(x.numpy(), y.numpy(), k)


def test_the_margin_changes_answers():
    # With these data, plain nearest neighbours would give other answers.
    x, y = parallel(60, 8, seed=1)
    forward, _ = neighbours(x, y)
    assert (forward.long() != (x @ y.T).argmax(dim=1)).any()


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 2), (3, 3), (3, 9), (9, 3), (4, 4)])
def test_fewer_candidates_than_k(n, m):
    x, y = parallel(9, 5, seed=n)
    check(x[:n].numpy(), y[:m].numpy())


@pytest.mark.parametrize("seed", range(5))
def test_integer_vectors_full_of_ties(seed):
    generator = np.random.default_rng(seed)
    x = generator.integers(-1, 2, size=(25, 4)).astype(np.float32)
    y = generator.integers(-1, 2, size=(25, 4)).astype(np.float32)
    check(x, y)


vectors = st.integers(1, 4).flatmap(
    lambda d: st.tuples(
        *[
            st.lists(
                st.lists(st.integers(-3, 3).map(float), min_size=d, max_size=d),
                min_size=1,
                max_size=9,
            )
        ]
        * 2
    )
)


@settings(max_examples=200)
@given(vectors, st.integers(1, 6))
def test_any_small_vectors(pair, k):
    x, y = (np.array(side, dtype=np.float32) for side in pair)
    check(x, y, k)


def test_all_sentences_equal_answer_with_the_first():
    same = torch.ones(7, 3)
    forward, backward = neighbours(same, same)
    assert forward.tolist() == backward.tolist() == [0] * 7
    assert accuracy(forward) == pytest.approx(100 / 7)


@pytest.mark.parametrize(("n", "d"), [(3, 17), (10, 64), (10, 4096), (30, 100)])
def test_of_two_copies_the_first_wins(n, d):
    # Small products are rounded by their position, which can make the later copy "nearer".
    for seed in range(20):
        x, y = parallel(n, d, seed, noise=3.0)
        y[n - 1] = y[0]
        forward, _ = neighbours(x, y)
        assert n - 1 not in forward.tolist()
        x[n - 1] = x[1]
        _, backward = neighbours(x, y)
        assert n - 1 not in backward.tolist()


def test_copies_lower_each_other_but_not_the_rest():
    # jav_Latn and urd_Arab hold such a pair: its second query is wrong, all the others are right.
    x, y = parallel(50, 64, seed=0, noise=0.1)
    y[33] = y[32]
    x[33] = x[32]
    forward, backward = neighbours(x, y)
    expected = [*range(33), 32, *range(34, 50)]
    assert forward.tolist() == backward.tolist() == expected


@pytest.mark.parametrize("seed", [125, 925])
def test_scores_are_compared_in_double_precision(seed):
    # Five near copies each of four sentences (their products are exact in float32, below 2**24);
    # with these seeds two scores differ by less than single precision can tell.
    generator = np.random.default_rng(seed)
    x = generator.integers(-1200, 1200, size=(20, 8))
    y = x + generator.integers(-2, 3, size=(20, 8))
    x = np.tile(x[:4], (5, 1)) + generator.integers(-1, 2, size=(20, 8))
    y = np.tile(y[:4], (5, 1)) + generator.integers(-1, 2, size=(20, 8))
    check(x.astype(np.float32), y.astype(np.float32))


def test_swapping_the_languages_swaps_the_directions():
    x, y = parallel(64, 32, seed=3)
    forward, backward = neighbours(x, y)
    there, back = neighbours(y, x)
    assert torch.equal(forward, back)
    assert torch.equal(backward, there)


def test_index_type_fits_the_candidates():
    assert neighbours(*parallel(10, 4, seed=0))[0].dtype == torch.int16
    many = torch.ones(33_000, 1)
    forward, backward = neighbours(torch.ones(2, 1), many)
    assert (forward.dtype, backward.dtype) == (torch.int64, torch.int16)


def test_a_query_needs_candidates():
    with pytest.raises(ValueError, match="needs sentences on both sides"):
        neighbours(torch.ones(0, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="got 2 and 2 sentences, k 0"):
        neighbours(torch.ones(2, 3), torch.ones(2, 3), k=0)


def test_normalise():
    states = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.bfloat16)
    unit = normalise(states)
    assert unit.dtype == torch.float32
    assert unit.numpy() == pytest.approx(np.array([[0.6, 0.8], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="not finite"):
        normalise(torch.tensor([[torch.inf, 1.0]]))


def test_accuracy_and_its_counts():
    answers = torch.tensor([0, 2, 2, 3], dtype=torch.int16)
    assert accuracy(answers) == 75.0
    counts = correct_counts(answers)
    assert counts.tolist() == [[1, 1], [0, 1], [1, 1], [1, 1]]
    assert percent(counts.sum(axis=0)) == 75.0
    with pytest.raises(ValueError, match="at least one answer"):
        accuracy(torch.tensor([], dtype=torch.int16))


def test_even_layers():
    assert even_layers(32) == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32]
    assert even_layers(5) == [2, 4]
    assert even_layers(1) == []
