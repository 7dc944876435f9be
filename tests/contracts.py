"""What every representation must do; run for each kind and form by ``tests/fields/test_representations.py``.

Letters: N fields, P points, D coordinates, C channels, W numbers of a field.
"""

import copy
import json

import torch

from wsrl.fields.layout import Layout
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.open import open_representation
from wsrl.fields.representation import KINDS, Representation, RepresentationConfig
from wsrl.fitting.engine import FitConfig, optimise

# Float32 rounds values of order 1 at 1e-7; a batched product may sum in another order, and four layers (a sine with a
# factor of 5 among them) magnify that some tens of times.
ROUNDING = 1e-5

SMALL = FieldConfig(width=8, depth=3, num_frequencies=6, activation="silu", residual=True)
STANDALONE = FieldConfig(width=8, depth=2, encoding="identity", activation="sine", omega=5.0)
FORMS = {"mlora": ("exp", "one_plus", "product"), "mlora_asym": ("exp", "one_plus", "product")}
CASES = [(kind, form) for kind in KINDS for form in FORMS.get(kind, ("exp",))]
DIMENSIONS = [(2, 1), (1, 1), (3, 3)]


def tiny_base(in_features: int = 2, out_features: int = 1) -> BaseField:
    """A base field whose biases and mean modulation are not zero, so that forgetting them would show."""
    config = BaseFieldConfig(field=SMALL, latent_size=4, mapping_width=8, mapping_depth=1)
    base = BaseField(config, in_features, out_features, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for layer in base.trunk.layers:
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))
    base.fold_mean_modulation(torch.randn(5, 4, generator=generator))
    return base.eval().requires_grad_(False)


def tiny_representation(
    kind: str, form: str = "exp", in_features: int = 2, out_features: int = 1, **changes
) -> Representation:
    """A small representation of a kind; adapters get :func:`tiny_base`."""
    given = {"kind": kind, "form": form, "rank": 2, "field": STANDALONE} | changes
    config = RepresentationConfig(**given)
    base = tiny_base(in_features, out_features) if config.is_adapter else None
    return Representation.build(config, base, in_features=in_features, out_features=out_features)


def points(num: int = 17, in_features: int = 2) -> torch.Tensor:
    """Points ``(P, D)`` in [-1, 1]^D."""
    return torch.rand(num, in_features, generator=torch.Generator().manual_seed(6)) * 2 - 1


def random_weights(representation: Representation, num: int = 3) -> dict[str, torch.Tensor]:
    """Weights ``(N, *shape)`` away from the start, in which every factor acts."""
    generator = torch.Generator().manual_seed(7)
    start = representation.initial(generator, num)
    return {name: value + 0.2 * torch.randn(value.shape, generator=generator) for name, value in start.items()}


def in_double(representation: Representation) -> Representation:
    """The same representation with base field and encoding in float64."""
    representation = open_representation(representation.to_dict(), copy.deepcopy(representation.base))
    representation.encoding.double()
    if representation.base is not None:
        representation.base.double()
    return representation


def fitted(representation: Representation, steps: int = 6, num: int = 3) -> tuple[dict, dict]:
    """Starts ``(N, *shape)`` and weights after a few steps of the engine towards random values."""
    coords = points(in_features=representation.in_features)
    shape = (num, len(coords), representation.out_features)
    target = torch.rand(shape, generator=torch.Generator().manual_seed(8))
    starts = {k: v.expand(num, *v.shape).clone() for k, v in representation.initial().items()}
    config = FitConfig(steps=steps, learning_rate=0.05)
    return starts, optimise(representation, starts, coords, target, config)


def check_flatten_is_exact(representation: Representation) -> None:
    weights, layout = random_weights(representation), representation.layout
    assert [spec.name for spec in layout] == list(weights)
    flat = layout.flatten(weights)
    assert flat.shape == (3, layout.num_weights)
    assert all(torch.equal(value, weights[name]) for name, value in layout.unflatten(flat).items())
    one = {name: value[1] for name, value in weights.items()}
    assert torch.equal(layout.flatten(one), flat[1])
    assert all(torch.equal(value, one[name]) for name, value in layout.unflatten(flat[1]).items())


def check_json_round_trip(representation: Representation) -> None:
    layout = Layout.from_json(json.loads(json.dumps(representation.layout.to_json())))
    assert layout == representation.layout
    data = json.loads(json.dumps(representation.to_dict()))
    again = open_representation(data, representation.base)
    assert again.config == representation.config and again.layout == representation.layout
    weights, coords = random_weights(representation), points(in_features=representation.in_features)
    assert torch.equal(again.evaluate(weights, coords), representation.evaluate(weights, coords))
    start = representation.initial()
    assert all(torch.equal(value, start[name]) for name, value in again.initial().items())


def check_starts_at_base(representation: Representation) -> None:
    coords = points(in_features=representation.in_features)
    start = {name: value[None] for name, value in representation.initial().items()}
    expected = representation.base.trunk(coords)
    torch.testing.assert_close(representation.evaluate(start, coords)[0], expected, rtol=0, atol=ROUNDING)
    _, weights = fitted(representation)
    assert (representation.evaluate(weights, coords) - expected).abs().max() > 0.01


def check_frozen_entries(representation: Representation) -> None:
    layout = representation.layout
    starts, weights = fitted(representation)
    free = layout.trainable()
    before, after = layout.flatten(starts), layout.flatten(weights)
    assert torch.equal(before[:, ~free], after[:, ~free])
    moved = (before != after).any(0)
    assert (moved[free]).float().mean() > 0.9, "the free entries are trained"
    assert layout.num_trainable == int(free.sum()) == layout.num_weights - int((~free).sum())
    assert ((~free).any() == representation.config.is_masked).all()
    assert torch.equal(
        layout.flatten(representation.initial(torch.Generator().manual_seed(99)))[~free], before[0, ~free]
    )


def check_every_column_is_free_somewhere(representation: Representation) -> None:
    for spec in representation.layout:
        if spec.frozen is not None:
            assert spec.trainable().any(0).all(), spec.name


def check_batch_equals_single(representation: Representation) -> None:
    weights = random_weights(representation, 4)
    shared = points(in_features=representation.in_features)
    own = torch.stack([shared.roll(i, 0) for i in range(4)])
    together, apart = representation.evaluate(weights, shared), representation.evaluate(weights, own)
    repeated = representation.evaluate(weights, shared.expand(4, -1, -1))
    assert together.shape == (4, len(shared), representation.out_features)
    torch.testing.assert_close(repeated, together, rtol=ROUNDING, atol=ROUNDING)
    for i in range(4):
        alone = {name: value[i : i + 1] for name, value in weights.items()}
        for batched, coords in ((together, shared), (apart, own[i])):
            expected = representation.evaluate(alone, coords)[0]
            torch.testing.assert_close(batched[i], expected, rtol=ROUNDING, atol=ROUNDING)
    assert not torch.allclose(together[0], together[1], atol=1e-3), "fields must differ for this to mean anything"


def check_gradients(representation: Representation) -> None:
    representation = in_double(representation)
    weights = {name: value.double() for name, value in random_weights(representation, 2).items()}
    coords = points(3, representation.in_features).double()
    flat = representation.layout.flatten(weights).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda flat: representation.evaluate(representation.layout.unflatten(flat), coords), (flat,), fast_mode=True
    )


def check_starts(representation: Representation) -> None:
    layout, free = representation.layout, representation.layout.trainable()
    first, second = layout.flatten(representation.initial()), layout.flatten(representation.initial())
    assert torch.equal(first, second), "the shared start is one start"

    def drawn(seed: int) -> torch.Tensor:
        return layout.flatten(representation.initial(torch.Generator().manual_seed(seed), 2))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2)) and not torch.equal(*drawn(1))
    assert torch.equal(drawn(1)[:, ~free], first[~free].expand(2, -1)), "frozen entries are the same in every start"
