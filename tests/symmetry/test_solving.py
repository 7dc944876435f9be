"""Equations between axes: what follows for the atoms, and that nothing unsound is kept."""

import pytest

from wsrl.symmetry.inference.dividing import cut_at
from wsrl.symmetry.inference.reshape import narrow, select, settle, stack, view
from wsrl.symmetry.inference.solving import collapse, cut, unify
from wsrl.symmetry.inference.terms import concat, flat_parts, leaves, new_axis, parents_of, resolve, size_of


def sizes(axis):
    return [atom.size for atom in resolve(axis)]


def test_two_views_have_their_common_refinement():
    axis = new_axis(24)
    (outer, inner), other = view([axis], [24], [4, 6]), view([axis], [24], [12, 2])
    assert sizes(axis) == [4, 3, 2]
    assert sizes(other[0]) == [4, 3] and resolve(outer) == resolve(other[0])[:1] and sizes(inner) == [3, 2]
    first, second, third = resolve(axis)
    assert parents_of(second) == (first,) and parents_of(third) == (first, second)


def test_views_that_cut_across_each_other_are_fixed():
    axis = new_axis(12)
    view([axis], [12], [4, 3])
    axes = view([axis], [12], [3, 4])
    assert not leaves(axis) and [sizes(part) for part in axes] == [[3], [4]] and not leaves(axes[0] + axes[1])


def test_what_moves_alike_depends_on_what_both_depend_on():
    axis, plain = new_axis(8), new_axis(4)
    heads, inside = view([axis], [8], [2, 4])
    assert parents_of(resolve(inside)[0]) == resolve(heads)
    unify(inside, plain)
    assert parents_of(resolve(inside)[0]) == () and resolve(inside) == resolve(plain)


def test_a_tensor_that_lost_the_parent_ends_the_dependence():
    heads, inside = view([new_axis(8)], [8], [2, 4])
    settle([heads, inside])
    assert parents_of(resolve(inside)[0]) == resolve(heads)
    settle([inside])
    assert parents_of(resolve(inside)[0]) == ()
    heads, inside = view([new_axis(8)], [8], [2, 4])
    settle([heads, inside, heads])  # which of the two axes of heads would it be?
    assert parents_of(resolve(inside)[0]) == ()


def test_selected_parts_of_a_view_have_permutations_of_their_own():
    axis = new_axis(12)
    axes = settle(view([axis], [12], [3, 4]))
    first, second = select(axes, 0, 0)[0], select(axes, 0, 1)[0]
    assert resolve(first) != resolve(second) and len(leaves(axes[1])) == 3
    unify(first, second)
    assert resolve(first) == resolve(second) and len(leaves(axes[1])) == 2
    family = resolve(axes[1])[0]
    assert family.is_family
    collapse(family)
    assert len(leaves(axes[1])) == 1 and resolve(axes[1]) == resolve(select(axes, 0, 2)[0])


def test_parts_refine_each_other():
    first, second = new_axis(9), new_axis(9)
    assert cut_at(first, [3]) and cut_at(second, [5, 7])
    unify(first, second)
    assert [size_of(part) for part in flat_parts(first)] == [3, 2, 2, 2] and flat_parts(first) == flat_parts(second)


def test_a_cut_that_is_not_possible_fixes_the_whole_axis():
    heads, inside = view([new_axis(10)], [10], [2, 5])
    axis = concat([(*heads, *inside), new_axis(4)])
    assert len(leaves(axis)) == 3
    first = narrow([axis], 0, 0, 7)[0]  # seven of ten elements are no number of whole heads
    assert not leaves(axis) and not leaves(first) and size_of(first) == 7


def test_narrowing_takes_what_depends_along():
    axes = settle(view([new_axis(20)], [20], [4, 5]))
    left, right = narrow(axes, 0, 0, 1), narrow(axes, 0, 1, 4)
    assert sizes(left[0]) == [] and sizes(right[0]) == [3]
    assert resolve(left[1]) != resolve(right[1])
    assert parents_of(resolve(right[1])[0]) == resolve(right[0])


def test_a_stack_keeps_different_tensors_apart():
    a, b = new_axis(4), new_axis(4)
    over, inner = stack([[a], [b], [a]], 0)
    assert size_of(over) == 3 and select([over, inner], 0, 1) == [resolve(b)]
    assert select([over, inner], 0, 2) == [resolve(a)]


def test_fixed_atoms_fix_what_is_unified_with_them():
    product, fixed = new_axis(3) + new_axis(4), new_axis(12, fixed=True)
    unify(product, fixed)
    assert not leaves(product)
    joined = concat([new_axis(3), new_axis(2, fixed=True)])
    assert [sizes(part) for part in flat_parts(joined)] == [[3], [2]] and len(leaves(joined)) == 1


def test_a_cycle_of_dependence_is_cut():
    outer = new_axis(4)
    inner = new_axis(4, resolve(outer))
    unify(outer, inner)
    assert resolve(outer) == resolve(inner) and parents_of(resolve(outer)[0]) == ()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_cutting_ends_one_dependence_of_two(order):
    parents = [new_axis(2)[0], new_axis(3)[0]]
    (atom,) = new_axis(5, parents)
    cut(atom, parents[order[0]])
    assert parents_of(atom) == (parents[order[1]],)
