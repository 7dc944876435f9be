"""The basis is complete: as many terms as partitions; each commutes, they are independent, they span all that does."""

import itertools
import math

import pytest
import torch
from unf_specs import apply_term

from wsrl.unf.basis import patterns, terms, valid_partitions


def shapes(axes, sizes):
    return tuple(sizes[axis] for axis in axes)


def pairs(longest):
    """Every way in which two sides share permutations, each once: names appear in the order a, b, c, ..."""
    names = "abcdef"
    for num_out, num_in in itertools.product(range(longest + 1), repeat=2):
        for labels in valid_partitions((), ("x",) * (num_out + num_in)):
            axes = tuple(names[label] for label in labels)
            yield axes[:num_out], axes[num_out:]


def matrix(term, out_axes, in_axes, sizes):
    """A term as a matrix from flat inputs to flat outputs."""
    shape = shapes(in_axes, sizes)
    count = math.prod(shape)
    basis = torch.eye(count, dtype=torch.float64).reshape(count, *shape, 1)
    return apply_term(term, basis, shapes(out_axes, sizes)).reshape(count, -1).T


def permute(values, axes, permutation):
    """Move the entries of ``values (B, *axes, C)``."""
    for index, axis in enumerate(axes):
        values = values.index_select(index + 1, permutation[axis])
    return values


def bell(count):
    return len(valid_partitions((), ("x",) * count))


def test_bell_numbers():
    assert [bell(n) for n in range(7)] == [1, 1, 2, 5, 15, 52, 203]


@pytest.mark.parametrize(("out_axes", "in_axes"), [(("a", "b"), ("a", "b")), (("a", "a"), ("a", "a"))])
def test_the_counts_of_the_paper(out_axes, in_axes):
    assert len(valid_partitions(out_axes, in_axes)) == (4 if "b" in out_axes else 15)


@pytest.mark.parametrize(("out_axes", "in_axes"), list(pairs(3)))
def test_as_many_terms_as_partitions(out_axes, in_axes):
    counts = {axis: (*out_axes, *in_axes).count(axis) for axis in {*out_axes, *in_axes}}
    num_terms = len(terms(out_axes, in_axes))
    assert num_terms == len(valid_partitions(out_axes, in_axes)) == math.prod(bell(count) for count in counts.values())


@pytest.mark.parametrize(("out_axes", "in_axes"), list(pairs(2)))
def test_terms_commute_and_are_independent(out_axes, in_axes):
    names = sorted({*out_axes, *in_axes})
    sizes = {name: 4 + index % 2 for index, name in enumerate(names)}
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, *shapes(in_axes, sizes), 3, generator=generator, dtype=torch.float64)
    permutation = {name: torch.randperm(size, generator=generator) for name, size in sizes.items()}
    basis = terms(out_axes, in_axes)
    for term in basis:
        shape = shapes(out_axes, sizes)
        moved = apply_term(term, permute(values, in_axes, permutation), shape)
        assert torch.allclose(moved, permute(apply_term(term, values, shape), out_axes, permutation), atol=1e-12)
    rows = torch.stack([matrix(term, out_axes, in_axes, sizes).flatten() for term in basis])
    assert torch.linalg.matrix_rank(rows) == len(basis)


def moves(axes, sizes, permutation):
    """The matrix by which a permutation acts on flat tensors."""
    count = math.prod(shapes(axes, sizes))
    rows = torch.eye(count, dtype=torch.float64).reshape(count, *shapes(axes, sizes), 1)
    return permute(rows, axes, permutation).reshape(count, count).T.contiguous()


def null_space_dimension(out_axes, in_axes, sizes):
    """Dimension of the maps that commute with a swap and a cycle of each permutation, by brute force."""
    num_out, num_in = math.prod(shapes(out_axes, sizes)), math.prod(shapes(in_axes, sizes))
    squares = torch.zeros(num_out * num_in, num_out * num_in, dtype=torch.float64)
    for name, size in sizes.items():
        for generator in ([1, 0, *range(2, size)], [*range(1, size), 0]):
            permutation = {other: torch.arange(count) for other, count in sizes.items()}
            permutation[name] = torch.tensor(generator)
            # out M - M in = 0 on row-major M
            constraint = torch.kron(moves(out_axes, sizes, permutation), torch.eye(num_in)) - torch.kron(
                torch.eye(num_out), moves(in_axes, sizes, permutation).T.contiguous()
            )
            squares += constraint.T @ constraint
    return num_out * num_in - int(torch.linalg.matrix_rank(squares, hermitian=True))


def rank_of_terms(out_axes, in_axes, sizes):
    rows = torch.stack([matrix(term, out_axes, in_axes, sizes).flatten() for term in terms(out_axes, in_axes)])
    return int(torch.linalg.matrix_rank(rows @ rows.T, hermitian=True))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(("out_axes", "in_axes"), list(pairs(2)))
def test_the_span_is_all_that_commutes(out_axes, in_axes, size):
    sizes = dict.fromkeys({*out_axes, *in_axes}, size)
    assert rank_of_terms(out_axes, in_axes, sizes) == null_space_dimension(out_axes, in_axes, sizes)


@pytest.mark.parametrize(("out_axes", "in_axes"), list(pairs(3)))
def test_the_span_is_all_that_commutes_for_every_pair_up_to_three_axes(out_axes, in_axes):
    """Axes as long as a permutation has of them make the terms independent; two elements keep the null space small."""
    small = dict.fromkeys({*out_axes, *in_axes}, 2)
    assert rank_of_terms(out_axes, in_axes, small) == null_space_dimension(out_axes, in_axes, small)
    long = {name: (*out_axes, *in_axes).count(name) for name in {*out_axes, *in_axes}}
    assert rank_of_terms(out_axes, in_axes, long) == len(terms(out_axes, in_axes))


WITHIN = {"d": ("h",)}


@pytest.mark.parametrize(
    ("out_axes", "in_axes", "expected"),
    [
        (("h", "d"), ("h", "d"), 3),
        (("h", "d", "e"), ("h", "d", "e"), 6),
        (("h",), ("h", "d"), 2),
        (("h", "d"), ("e",), 1),
    ],
)
def test_permutations_inside_others(out_axes, in_axes, expected):
    assert len(valid_partitions(out_axes, in_axes, WITHIN)) == len(terms(out_axes, in_axes, WITHIN)) == expected
    sizes = {"h": 3, "d": 4, "e": 2}
    generator = torch.Generator().manual_seed(1)
    heads, other = torch.randperm(3, generator=generator), torch.randperm(2, generator=generator)
    inside = torch.stack([torch.randperm(4, generator=generator) for _ in range(3)])

    def move(values, axes):
        if "d" in axes:  # h and d are the first two axes here
            values = values[:, torch.arange(3)[:, None], inside]
        for index, axis in enumerate(axes):
            if axis in ("h", "e"):
                values = values.index_select(index + 1, heads if axis == "h" else other)
        return values

    values = torch.randn(2, *shapes(in_axes, sizes), 1, generator=generator, dtype=torch.float64)
    for term in terms(out_axes, in_axes, WITHIN):
        shape = shapes(out_axes, sizes)
        moved = apply_term(term, move(values, in_axes), shape)
        assert torch.allclose(moved, move(apply_term(term, values, shape), out_axes), atol=1e-12)


def test_a_wrong_term_does_not_commute():
    """The control: joining axes of two permutations gives a map that the test above would refuse."""
    values = torch.randn(1, 4, 4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (diagonal,) = [t for t in terms((), ("a", "a")) if not t[1].is_simple]
    permutation = {"a": torch.tensor([1, 2, 3, 0]), "b": torch.tensor([0, 1, 2, 3])}
    moved = apply_term(diagonal, permute(values, ("a", "b"), permutation), ())
    assert not torch.allclose(moved, apply_term(diagonal, values, ()))


def test_patterns_of_a_matrix():
    assert [p.kept_axes for p in patterns(("b", "a"))] == [(1, 0), (0,), (1,), ()]
    assert len(patterns(("a", "a"))) == 6
    assert len(patterns(("a", "a"), orders=True)) == 7
