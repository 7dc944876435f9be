"""Specs: what they refuse, and permutations as a group that acts on dictionaries of weights."""

from types import SimpleNamespace

import pytest
import torch
from symmetry_networks import Computed, composite_spec, noise
from torch import nn

from wsrl.errors import UserError
from wsrl.symmetry.spec.axes import Concat, Product
from wsrl.symmetry.spec.spec import PermutationSpec

SPEC = composite_spec(4, 2, 3)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


def weights(*lead: int) -> dict[str, torch.Tensor]:
    return {name: noise(*lead, *shape) for name, shape in SPEC.shapes.items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_apply_follows_its_definition(generator):
    p = SPEC.random_permutation(generator)
    x, y = weights(), SPEC.apply(weights(), p)
    a, h, c, d = (p[name] for name in "ahcd")
    assert c.shape == (2, 3) and d.shape == (2, 5)
    for i in range(4):
        for j in range(4):
            assert y["square"][i, j] == x["square"][a[i], a[j]]
        for k in range(3):
            assert torch.equal(y["flat"][:, 3 * i + k], x["flat"][:, 3 * a[i] + k])
    for i in range(2):
        for j in range(3):
            for k in range(5):
                assert torch.equal(y["apart"][i, j, k], x["apart"][h[i], c[i, j], d[i, k], c[i]])
                assert torch.equal(y["values"][:, 5 * i + k], x["values"][a][:, 5 * h[i] + d[i, k]])
            assert torch.equal(y["heads"][3 * i + j, 4:], x["heads"][3 * h[i] + c[i, j], 4:])
    assert torch.equal(y["heads"][6:8, :4], x["heads"][6:8][:, a])


def test_group_laws(generator):
    p, q, r = (SPEC.random_permutation(generator) for _ in range(3))
    x = weights()
    assert same(SPEC.apply(x, SPEC.compose(p, q)), SPEC.apply(SPEC.apply(x, q), p))
    assert same(SPEC.compose(SPEC.compose(p, q), r), SPEC.compose(p, SPEC.compose(q, r)))
    assert same(SPEC.apply(SPEC.apply(x, p), SPEC.invert(p)), x)
    assert same(SPEC.apply(SPEC.apply(x, SPEC.invert(p)), p), x)
    still = {name: torch.arange(SPEC.sizes[name]).expand(SPEC.table_shape(name)) for name in SPEC.sizes}
    assert same(SPEC.compose(p, SPEC.invert(p)), still) and same(SPEC.apply(x, still), x)
    assert not same(SPEC.apply(x, p), x)


def test_batched_permutations_act_item_by_item(generator):
    p, q = SPEC.random_permutation(generator, 3), SPEC.random_permutation(generator, 3)
    x = weights(3)
    y, both, undone = SPEC.apply(x, p), SPEC.compose(p, q), SPEC.invert(p)
    for k in range(3):
        item, own = {n: t[k] for n, t in x.items()}, {n: t[k] for n, t in p.items()}
        assert same({n: t[k] for n, t in y.items()}, SPEC.apply(item, own))
        assert same({n: t[k] for n, t in both.items()}, SPEC.compose(own, {n: t[k] for n, t in q.items()}))
        assert same({n: t[k] for n, t in undone.items()}, SPEC.invert(own))
    single = {n: t[0] for n, t in p.items()}
    assert same(
        {n: t[2] for n, t in SPEC.apply(x, single).items()}, SPEC.apply({n: t[2] for n, t in x.items()}, single)
    )
    spread = SPEC.apply(weights(), p)
    assert torch.equal(spread["square"][1], SPEC.apply(weights(), {n: t[1] for n, t in p.items()})["square"])


def test_trailing_channels_move_with_their_entries(generator):
    p = SPEC.random_permutation(generator, 2)
    x = {name: noise(2, *shape, 3) for name, shape in SPEC.shapes.items()}
    y = SPEC.apply(x, p, leading=1)
    for channel in range(3):
        part = SPEC.apply({n: t[..., channel] for n, t in x.items()}, p)
        assert same({n: t[..., channel] for n, t in y.items()}, part)


def test_augmented_items_have_permutations_of_their_own(generator):
    one = {name: tensor.expand(5, *tensor.shape) for name, tensor in weights().items()}
    moved = SPEC.augment(one, generator)
    assert all(not torch.equal(moved["square"][0], moved["square"][k]) for k in range(1, 5))
    for name in one:
        assert torch.equal(moved[name].reshape(5, -1).sort(1)[0], one[name].reshape(5, -1).sort(1)[0])
    assert same(moved, SPEC.augment(one, torch.Generator().manual_seed(7)))


@pytest.mark.parametrize(("lead", "trail"), [((), ()), ((3,), ()), ((2, 3), (4,))])
def test_split_and_join_are_inverse(lead, trail):
    x = {name: noise(*lead, *shape, *trail) for name, shape in SPEC.shapes.items()}
    parts = SPEC.split(x, leading=len(lead))
    plain = SPEC.plain
    assert set(parts) == set(plain.axes)
    for name, part in parts.items():
        assert part.shape == (*lead, *plain.shapes[name], *trail)
    assert same(SPEC.join(parts, leading=len(lead)), x)


def test_parts_are_named_by_their_ranges():
    assert SPEC.plain.axes["heads[0:6, 4:14]"] == ("h", "c", None) and SPEC.plain.axes["heads[8:12, 0:4]"] == ("a", "a")
    names = [name for name in SPEC.plain.axes if name.startswith("heads")]
    assert names[0] == "heads[0:6, 0:4]" and names[-1] == "heads[8:12, 4:14]" and len(names) == 6
    assert SPEC.plain.axes["flat"] == (None, "a", None) and SPEC.plain.shapes["flat"] == (6, 4, 3)


def test_moving_the_parts_is_moving_the_whole(generator):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 2))
    spec = PermutationSpec.from_module(net, noise(1, 3, 5, 5))
    state = dict(net.state_dict())
    p = spec.random_permutation(generator)
    plain = PermutationSpec(spec.plain.axes, spec.sizes, spec.plain.within, spec.plain.shapes)
    assert same(spec.split(spec.apply(state, p)), plain.apply(spec.split(state), p))


def test_json_and_text():
    assert PermutationSpec.from_json(SPEC.to_json()) == SPEC
    text = str(SPEC)
    assert "flat (6, 12) (., a x 3)" in text and "c: 3 within h" in text
    assert len(text.splitlines()) == len(SPEC.axes) + len(SPEC.sizes)


def test_a_layout_is_a_spec():
    tensors = [
        SimpleNamespace(name="w", shape=(4, 2), axes=("n", None)),
        SimpleNamespace(name="v", shape=(1, 4), axes=(None, "n")),
    ]
    spec = PermutationSpec.from_layout(tensors)
    assert spec.axes == {"w": ("n", None), "v": (None, "n")} and spec.sizes == {"n": 4}
    assert spec.shapes == {"w": (4, 2), "v": (1, 4)}


def test_shapes_may_come_from_weights(generator):
    spec = PermutationSpec({"w": ("n", None)}, {"n": 4})
    p = spec.random_permutation(generator)
    assert torch.equal(spec.apply({"w": noise(4, 2)}, p)["w"], noise(4, 2)[p["n"]])
    with pytest.raises(UserError, match=r"lengths of the fixed axes of w are unknown.*with_shapes"):
        spec.split({"w": noise(4, 2)})
    assert spec.with_shapes({"w": noise(4, 2)}).plain.shapes == {"w": (4, 2)}
    assert PermutationSpec({"w": ("n", 2)}, {"n": 4}).plain.shapes == {"w": (4, 2)}


@pytest.mark.parametrize(
    ("axes", "sizes", "within", "shapes", "text"),
    [
        ({"w": ("n",)}, {}, {}, {}, "'n', which has no size"),
        ({"w": ("n",)}, {"n": 3}, {}, {"w": (4,)}, r"w of shape \(4,\) is described as \(n\)"),
        ({"w": (Product(("n", None)),)}, {"n": 3}, {}, {}, "axis 0 of w holds None"),
        ({"w": (Concat(()),)}, {}, {}, {}, "made of no parts"),
        ({"w": ("c",)}, {"c": 3, "h": 2}, {"c": ("h",)}, {}, "carries c, which acts within h, but no axis of h"),
        ({"w": (Concat((Product(("h", "c")), 1)), "h")}, {"c": 3, "h": 2}, {"c": ("h",)}, {}, "h on two axes"),
        ({"w": ("h", "h", "c")}, {"c": 3, "h": 2}, {"c": ("h",)}, {}, "h on two axes"),
        ({"w": ("c",)}, {"c": 3}, {"c": ("h",)}, {}, "'h', which has no size"),
        ({"w": ("c",)}, {"c": 3}, {"c": ("c",)}, {}, "c acts within itself"),
        ({"w": ("g", "h", "c")}, {"g": 2, "h": 2, "c": 2}, {"c": ("h",), "h": ("g",)}, {}, "and these within others"),
    ],
)
def test_wrong_specs_are_refused(axes, sizes, within, shapes, text):
    with pytest.raises(UserError, match=text):
        PermutationSpec(axes, sizes, within, shapes)


def test_wrong_weights_and_permutations_are_refused(generator):
    p = SPEC.random_permutation(generator)
    with pytest.raises(UserError, match="other is no tensor of the spec"):
        SPEC.apply({"other": noise(2)}, p)
    with pytest.raises(UserError, match=r"plain has shape \(5, 2\).*\(4, 2\)"):
        SPEC.apply({"plain": noise(5, 2)}, p)
    with pytest.raises(UserError, match="x is no permutation"):
        SPEC.apply(weights(), {"x": torch.arange(3)})
    with pytest.raises(UserError, match="index of c has shape"):
        SPEC.apply(weights(), {"c": torch.arange(3)})
    with pytest.raises(UserError, match="some permutations have a leading axis"):
        SPEC.apply(weights(2), {"a": p["a"].expand(2, 4), "h": p["h"]})
    parts = SPEC.split(weights())
    del parts["heads[0:6, 0:4]"]
    with pytest.raises(UserError, match="heads cannot be joined"):
        SPEC.join(parts)


def test_untouched_tensors_are_handed_through(generator):
    net = Computed(lambda self, x: self.a(x), a=nn.Linear(2, 2))
    spec = PermutationSpec.from_module(net, noise(1, 2))
    state = dict(net.state_dict())
    assert spec.apply(state, spec.random_permutation(generator))["a.weight"] is state["a.weight"]
