"""Orders of layers are found where names or sizes force them, in time, and are unclear elsewhere."""

import pytest

from wsrl.symmetry.matching.layer_order import layer_orders, possible_orders, precedes_by_number


def anything(before, name, index) -> bool:
    return True


@pytest.mark.parametrize(
    ("first", "second", "before"),
    [
        ("net.2.linear", "net.10", True),
        ("net.10", "net.2.linear", False),
        ("fc9", "fc10", True),
        ("block1.conv2", "block2.conv1", True),
        ("a", "b", False),
        ("a1", "b2", False),
        ("l.0.in", "l.0.out", False),
        ("fc", "fc1", False),
        ("fc01", "fc1", False),
    ],
)
def test_precedes_by_number_it_behind_what_is_alike(first, second, before):
    assert precedes_by_number(first, second) == before
    assert not (before and precedes_by_number(second, first))


def test_many_numbered_layers_are_ordered_soon():
    names = [f"layers.{k}" for k in range(300)]
    assert layer_orders(sorted(names), anything) == [names]


def test_many_words_are_unclear_soon():
    names = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    assert len(layer_orders(names, anything)) == 2
    assert layer_orders(names, lambda before, name, index: index < 99) == []
    assert possible_orders(names, lambda before, name, index: index < 99, precedes_by_number) == []


def test_sizes_decide_against_numbers():
    sizes = {"up3": (8, 2), "up2": (4, 8), "up1": (1, 4)}

    def fits(before, name, index):
        return before is None or sizes[before][0] == sizes[name][1]

    assert layer_orders(["up1", "up2", "up3"], fits) == [["up3", "up2", "up1"]]
