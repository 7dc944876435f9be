"""Fields aligned to a template: functions stay, disguised copies come back, and nothing gets further away."""

import pytest
import torch

from wsrl.adapters.scaling import FORMS
from wsrl.errors import UserError
from wsrl.fields import FieldConfig, Representation, RepresentationConfig
from wsrl.fields.foreign import Convention, ForeignRepresentation
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.symmetry.fields import canonical
from wsrl.symmetry.fields.canonical import Aligner, mean_template, with_least_phases
from wsrl.symmetry.fields.signed import SignedSymmetry

NUM = 6
SMALL = {"width": 8, "depth": 2, "encoding": "identity"}


def standalone(**field):
    config = RepresentationConfig(kind="mlp", start="random", field=FieldConfig(**SMALL | field))
    return Representation.build(config, in_features=2, out_features=2)


def adapter(kind, form="exp"):
    torch.manual_seed(0)
    base = BaseField(BaseFieldConfig(field=FieldConfig(width=8, depth=2, num_frequencies=4), latent_size=4), 2, 1)
    return Representation.build(RepresentationConfig(kind=kind, rank=4, form=form), base)


def imported(activation):
    config = RepresentationConfig(kind="mlp", field=FieldConfig(**SMALL, activation="sine", omega=8.0))
    return ForeignRepresentation(config, Convention(omega_hidden=4.0, activation=activation), 2, 1)


CASES = {
    "sine": lambda: standalone(activation="sine", omega=6.0),
    "sine of three layers": lambda: standalone(activation="sine", omega=6.0, depth=3),
    "residual sine": lambda: standalone(activation="sine", omega=6.0, depth=3, residual=True),
    "leaky relu": lambda: standalone(activation="leaky_relu"),
    "imported sine": lambda: imported(None),
    "imported tanh": lambda: imported("tanh"),
    "lora": lambda: adapter("lora"),
    **{f"mlora {form}": (lambda form=form: adapter("mlora", form)) for form in FORMS},
}


def drawn(representation, seed=0, num=NUM, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {t.name: torch.randn(num, *t.shape, generator=generator, dtype=dtype) * 0.4 for t in representation.layout}


def values(representation, weights):
    coords = torch.rand(30, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64) * 2 - 1
    weights = {name: tensor.double() for name, tensor in weights.items()}
    features = representation.encoding.double()(coords)
    for part in representation.parts():  # shared tensors of a base field
        for name in ("weight", "bias"):
            if isinstance(getattr(part, name), torch.Tensor):
                getattr(part, name).data = getattr(part, name).data.double()
    return representation.evaluate_encoded(weights, features).detach()


@pytest.fixture(params=CASES, scope="module")
def case(request):
    representation = CASES[request.param]()
    return representation, SignedSymmetry.of(representation)


def test_moves_change_no_function_and_others_do(case):
    representation, symmetry = case
    weights = drawn(representation)
    moves = symmetry.random(NUM, torch.Generator().manual_seed(1))
    expected = values(representation, weights)
    moved = symmetry.apply(weights, moves)
    assert torch.allclose(values(representation, moved), expected, atol=1e-10)
    tensor = next(name for name, axes in symmetry.axes.items() if any(axes))
    other = symmetry.apply(weights, symmetry.random(NUM, torch.Generator().manual_seed(8)))
    assert not torch.allclose(values(representation, moved | {tensor: other[tensor]}), expected, atol=1e-4)
    signed = representation.config.is_adapter or representation.field_config.activation != "leaky_relu"
    assert symmetry.signed == (set(symmetry.sizes) if signed else set())


def test_disguised_copies_come_back(case):
    representation, symmetry = case
    template = {name: tensor[0] for name, tensor in drawn(representation, num=1).items()}
    template = with_least_phases(symmetry, template)  # no neuron is turned to a large bias
    copies = {name: tensor.expand(NUM, *tensor.shape) for name, tensor in template.items()}
    disguised = symmetry.apply(copies, symmetry.random(NUM, torch.Generator().manual_seed(2)))
    aligner = Aligner(symmetry, template)
    assert (aligner.distance(disguised) > 1).all()
    if representation.field_config.residual:  # one permutation on both axes: a descent may end before
        assert (aligner.align(disguised).distances < 0.7 * aligner.distance(disguised)).all()
        return
    aligned = aligner(disguised)
    assert all(torch.allclose(aligned[name], copies[name], atol=1e-12) for name in template)


def test_the_distance_never_grows_and_is_that_of_the_result(case):
    representation, symmetry = case
    weights, template = drawn(representation), {k: t[0] for k, t in drawn(representation, seed=5, num=1).items()}
    importance = {next(iter(template)): 3.0}
    aligner = Aligner(symmetry, template, importance=importance)
    alignment = aligner.align(weights)
    history = torch.stack([aligner.distance(weights), *alignment.history])
    assert (history.diff(dim=0) <= 1e-9).all() and (history[-1] < history[0]).all()
    moved = symmetry.apply(weights, alignment.moves)
    assert torch.allclose(aligner.distance(moved), alignment.distances)
    by_hand = sum(importance.get(k, 1) * (t - template[k]).square().flatten(1).sum(1) for k, t in moved.items())
    assert torch.allclose(by_hand, alignment.distances)
    assert torch.allclose(values(representation, moved), values(representation, weights), atol=1e-10)
    again = aligner.align(moved)
    assert torch.allclose(again.distances, alignment.distances)


def test_float32_keeps_functions(case):
    representation, symmetry = case
    weights = drawn(representation, dtype=torch.float32)
    template = {name: tensor[0] for name, tensor in drawn(representation, seed=5, num=1).items()}
    before = values(representation, weights)
    assert (values(representation, Aligner(symmetry, template)(weights)) - before).abs().max() < 1e-6
    exact = SignedSymmetry(symmetry.axes, symmetry.sizes, symmetry.signed)  # no phases: no number is rounded
    moved = Aligner(exact, template)(weights)
    for name, tensor in weights.items():
        assert torch.equal(moved[name].abs().flatten(1).sort().values, tensor.abs().flatten(1).sort().values)


def test_fields_do_not_depend_on_their_company(case, monkeypatch):
    representation, symmetry = case
    weights, template = drawn(representation), {k: t[0] for k, t in drawn(representation, seed=5, num=1).items()}
    together = Aligner(symmetry, template).align(weights)
    monkeypatch.setattr(canonical, "PAIRS_AT_ONCE", 1)
    alone = Aligner(symmetry, template).align(weights)
    for one, other in zip(vars(together.moves).values(), vars(alone.moves).values()):
        assert one.keys() == other.keys() and all(torch.equal(one[unit], other[unit]) for unit in one)
    assert torch.allclose(together.distances, alone.distances)


def test_one_axis_is_solved_exactly():
    representation = standalone(depth=1, width=4, activation="sine", omega=6.0)
    symmetry = SignedSymmetry.of(representation, phases=False)
    weights, template = drawn(representation, num=3), {k: t[0] for k, t in drawn(representation, seed=5, num=1).items()}
    aligner = Aligner(symmetry, template)
    best = torch.full((3,), torch.inf, dtype=torch.float64)
    (unit,) = symmetry.sizes
    for order in torch.cartesian_prod(*[torch.arange(4)] * 4):
        if len(order.unique()) == 4:
            for signs in torch.cartesian_prod(*[torch.tensor([-1, 1])] * 4):
                moves = symmetry.still(3).then(unit, order.expand(3, 4), signs.expand(3, 4), torch.zeros(3, 4))
                best = torch.minimum(best, aligner.distance(symmetry.apply(weights, moves)))
    assert torch.allclose(aligner.align(weights).distances, best)


def test_signs_and_phases_bring_sines_nearer():
    representation = CASES["sine"]()
    weights, template = drawn(representation), {k: t[0] for k, t in drawn(representation, seed=5, num=1).items()}
    symmetries = (SignedSymmetry.of(representation, signs=s, phases=p) for s, p in ((0, 0), (1, 0), (1, 1)))
    distances = [float(Aligner(symmetry, template).align(weights).distances.mean()) for symmetry in symmetries]
    assert distances[0] > distances[1] > distances[2]


def test_the_mean_of_disguised_copies_is_the_field():
    representation = CASES["sine"]()
    symmetry = SignedSymmetry.of(representation)
    field = {name: tensor[0].float() for name, tensor in drawn(representation, num=1).items()}
    copies = {name: tensor.expand(NUM, *tensor.shape) for name, tensor in field.items()}
    disguised = symmetry.apply(copies, symmetry.random(NUM, torch.Generator().manual_seed(3)))
    start = {name: tensor[0] for name, tensor in disguised.items()}
    parts = [{k: t[:2] for k, t in disguised.items()}, {k: t[2:] for k, t in disguised.items()}]
    template = mean_template(symmetry, start, lambda: parts, rounds=2)
    expected = with_least_phases(symmetry, start)
    assert all(torch.allclose(template[name], expected[name], atol=1e-5) for name in start)
    assert not torch.allclose(disguised["layers.1.weight"].mean(0), start["layers.1.weight"], atol=0.1)


def test_the_usual_omega_keeps_functions_to_a_millionth():
    representation, generator = standalone(activation="sine", omega=30.0), torch.Generator().manual_seed(0)
    weights = {name: tensor / 2 for name, tensor in drawn(representation, dtype=torch.float32).items()}
    symmetry = SignedSymmetry.of(representation)
    template = with_least_phases(symmetry, {name: tensor[0] for name, tensor in weights.items()})
    alignment = Aligner(symmetry, template).align(weights)
    assert any((turns != 0).any() for turns in alignment.moves.turns.values())
    exact, moved = (values(representation, w) for w in (weights, symmetry.apply(weights, alignment.moves)))
    assert (exact - moved).abs().max() < 1e-6
    twice = symmetry.apply(weights, symmetry.random(NUM, generator, most_turns=40))  # what large biases would cost
    assert (exact - values(representation, twice)).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["mlp_asym", "lora_asym", "mlora_asym"])
def test_masks_leave_no_symmetry(kind):
    if kind == "mlp_asym":
        config = RepresentationConfig(kind=kind, field=FieldConfig(**SMALL))
        representation = Representation.build(config, in_features=2, out_features=1)
    else:
        representation = adapter(kind)
    with pytest.raises(UserError, match="no permutation symmetry"):
        SignedSymmetry.of(representation)
