"""Losses and gradients: the kernel against autograd and float64, its independence, and what decides between the two."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts

from wsrl.errors import UserError
from wsrl.fields.foreign import Convention, ForeignRepresentation
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fitting import native
from wsrl.fitting.gradient import AutogradGradient, KernelGradient, choose_method, make_gradient
from wsrl.fitting.loss import LOSSES, PointLoss

# Float32 sums of some hundred terms; the kernel's sines differ from the library's in the last bit.
RELATIVE = 2e-5

needs_kernel = pytest.mark.skipif(bool(native.load()[1]), reason=f"no kernel here: {native.load()[1]}")

NETWORKS = {
    "leaky": FieldConfig(width=20, depth=3, num_frequencies=9),
    "wide": FieldConfig(width=70, depth=2, num_frequencies=3),
    "silu": FieldConfig(width=16, depth=4, num_frequencies=5, activation="silu", residual=True),
    "siren": FieldConfig(width=33, depth=2, encoding="identity", activation="sine", omega=30.0),
    "shallow": FieldConfig(width=7, depth=1, num_frequencies=2),
}


def standalone(name: str, in_features: int = 2, out_features: int = 1) -> Representation:
    config = RepresentationConfig(kind="mlp", field=NETWORKS[name])
    return Representation.build(config, in_features=in_features, out_features=out_features)


def random_case(representation: Representation, num: int = 3, points: int = 45, seed: int = 0, own: bool = False):
    """Numbers, encoded points and targets."""
    generator = torch.Generator().manual_seed(seed)
    numbers = representation.layout.flatten(representation.initial(generator, num))
    numbers = numbers + 0.1 * torch.randn(numbers.shape, generator=generator)
    shape = (num, points) if own else (points,)
    coords = torch.rand(*shape, representation.in_features, generator=generator) * 2 - 1
    targets = torch.rand(num, points, representation.out_features, generator=generator)
    return numbers, representation.encoding(coords), targets


def assert_agree(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= RELATIVE * b.norm()


def by_both(representation, numbers, features, targets):
    for gradient in (KernelGradient(representation), AutogradGradient(representation)):
        yield gradient(numbers, gradient.prepare(features), targets)


@needs_kernel
@pytest.mark.parametrize("channels", [1, 3, 11])
@pytest.mark.parametrize("name", NETWORKS)
def test_kernel_agrees_with_autograd_for_every_network(name, channels):
    representation = standalone(name, out_features=channels)
    assert_agree(*by_both(representation, *random_case(representation)))


@needs_kernel
@pytest.mark.parametrize(("kind", "form"), contracts.CASES)
def test_kernel_agrees_with_autograd_for_every_kind(kind, form):
    representation = contracts.tiny_representation(kind, form, 3, 2)
    assert_agree(*by_both(representation, *random_case(representation)))


@needs_kernel
@pytest.mark.parametrize("points", [1, 5, 6, 7, 263, 264, 265, 1000])
def test_number_of_points_does_not_matter(points):
    representation = standalone("leaky")
    assert_agree(*by_both(representation, *random_case(representation, points=points)))


@needs_kernel
def test_fields_with_points_of_their_own():
    representation = contracts.tiny_representation("mlora", in_features=3)
    assert_agree(*by_both(representation, *random_case(representation, own=True)))


@needs_kernel
@pytest.mark.parametrize("own", [False, True])
def test_drawn_points_are_the_same_as_those_points_alone(own):
    representation = contracts.tiny_representation("mlora_asym", in_features=3)
    numbers, features, targets = random_case(representation, own=own)
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randint(0, 45, (3, 17), generator=generator)  # some of them more than once
    weights = torch.rand(3, 17, generator=generator)
    features_of = [(features[n] if own else features)[:, drawn[n]] for n in range(3)]
    expected = AutogradGradient(representation)(
        numbers, torch.stack(features_of), torch.stack([targets[n, drawn[n]] for n in range(3)]), weights
    )
    for gradient in (KernelGradient(representation), AutogradGradient(representation)):
        assert_agree(gradient(numbers, gradient.prepare(features), targets, weights, drawn.int()), expected)


@needs_kernel
@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_those_of_the_representation(name):
    representation = standalone(name, out_features=2)
    numbers, features, _ = random_case(representation)
    gradient = KernelGradient(representation)
    found = gradient.values(numbers, gradient.prepare(features))
    expected = representation.evaluate_encoded(representation.layout.unflatten(numbers), features).mT
    torch.testing.assert_close(found, expected, rtol=0, atol=contracts.ROUNDING)


@needs_kernel
def test_gradient_is_that_of_the_loss_by_finite_differences():
    """An independent check: neither autograd nor the kernel's own derivatives."""
    representation = contracts.tiny_representation("mlora_asym")
    numbers, features, targets = random_case(representation, num=1)
    kernel = KernelGradient(representation)
    losses, gradients = kernel(numbers, kernel.prepare(features), targets)
    exact = contracts.in_double(representation)
    features = features.double()

    def loss(point):
        values = exact.evaluate_encoded(exact.layout.unflatten(point), features).mT
        return (values - targets.double()).square().mean()

    assert float(loss(numbers.double())) == pytest.approx(float(losses[0]), rel=1e-5)
    for entry in torch.randperm(numbers.shape[1], generator=torch.Generator().manual_seed(0))[:25].tolist():
        step = torch.zeros_like(numbers, dtype=torch.float64)
        step[0, entry] = 1e-5
        slope = (loss(numbers.double() + step) - loss(numbers.double() - step)) / 2e-5
        assert float(slope) == pytest.approx(float(gradients[0, entry]), rel=1e-3, abs=1e-7)


@needs_kernel
def test_no_bit_depends_on_the_neighbours_or_the_threads():
    representation = standalone("siren")
    numbers, features, targets = random_case(representation, num=7)
    gradient = KernelGradient(representation)
    points = gradient.prepare(features)
    losses, gradients = gradient(numbers, points, targets)
    before = torch.get_num_threads()
    for slot, threads in ((0, 1), (3, 2), (6, 3)):
        torch.set_num_threads(threads)
        loss, alone = gradient(numbers[slot : slot + 1], points, targets[slot : slot + 1])
        assert torch.equal(alone[0], gradients[slot]) and torch.equal(loss[0], losses[slot])
    torch.set_num_threads(before)
    assert not torch.equal(gradients[0], gradients[1])


@needs_kernel
def test_networks_of_other_shapes_do_not_disturb_each_other():
    """The kernel keeps its memory from call to call; a larger network between two calls must leave nothing behind."""
    small, large = standalone("shallow"), standalone("wide")
    case = random_case(small)
    first, _ = by_both(small, *case)
    KernelGradient(large)(
        random_case(large)[0], KernelGradient(large).prepare(random_case(large)[1]), random_case(large)[2]
    )
    again, _ = by_both(small, *case)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("gradient", [AutogradGradient, pytest.param(KernelGradient, marks=needs_kernel)])
def test_a_field_that_is_not_finite_leaves_the_others_alone(gradient):
    representation = standalone("leaky")
    numbers, features, targets = random_case(representation)
    made = gradient(representation)
    points = made.prepare(features)
    losses, gradients = made(numbers, points, targets)
    broken = numbers.clone()
    broken[1] = torch.inf
    found, changed = made(broken, points, targets)
    assert not found[1].isfinite()
    for slot in (0, 2):
        torch.testing.assert_close(found[slot], losses[slot])
        torch.testing.assert_close(changed[slot], gradients[slot])


def test_bfloat16_products_keep_float32_numbers():
    representation = contracts.tiny_representation("mlora_asym")
    numbers, features, targets = random_case(representation)
    exact = AutogradGradient(representation)(numbers, features, targets)
    rough = AutogradGradient(representation, "bfloat16")(numbers, features, targets)
    assert all(tensor.dtype == torch.float32 for tensor in rough)
    assert torch.nn.functional.cosine_similarity(rough[1], exact[1]).min() > 0.99
    assert not torch.equal(rough[1], exact[1])


def test_tf32_is_set_for_the_products_alone():
    representation = contracts.tiny_representation("mlora_asym")
    before = torch.get_float32_matmul_precision()
    AutogradGradient(representation, "tf32")(*random_case(representation))
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("kind", ["mlp", "lora", "mlora_asym"])
def test_meta_tensors_pass_so_nothing_waits_for_values(kind):
    """What a GPU would compute, without one: a step that read a value back would fail on meta tensors."""
    representation = contracts.tiny_representation(kind)
    numbers, features, targets = (tensor.to("meta") for tensor in random_case(representation))
    losses, gradients = make_gradient(representation.to("meta"), "meta")(numbers, features, targets)
    assert losses.device.type == gradients.device.type == "meta" and gradients.shape == numbers.shape


def test_choice_of_the_method():
    assert choose_method("autograd", "cpu") == "autograd"
    assert choose_method("auto", "meta") == "autograd"
    assert choose_method("auto", "cpu", "bfloat16") == "autograd"
    with pytest.raises(UserError, match="the kernel is for float32 on CPUs"):
        choose_method("kernel", "cuda")


def test_a_network_of_other_conventions_goes_by_autograd():
    field = FieldConfig(width=6, depth=2, encoding="identity", activation="sine", omega=30.0)
    config = RepresentationConfig(kind="mlp", field=field)
    foreign = ForeignRepresentation(config, Convention(omega_hidden=30.0), in_features=2, out_features=1)
    assert isinstance(make_gradient(foreign, "cpu"), AutogradGradient)


def test_without_a_compiler_autograd_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    native.load.cache_clear()
    try:
        assert choose_method("auto", "cpu") == "autograd"
        with pytest.raises(UserError, match=r"no C\+\+ compiler"):
            choose_method("kernel", "cpu")
    finally:
        native.load.cache_clear()


@needs_kernel
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_loss_with_weights_by_both_ways_and_by_hand(kind, weighted):
    loss = PointLoss(kind=kind, low=-0.2, high=0.2)
    representation = standalone("leaky", in_features=3)
    numbers, features, targets = random_case(representation, own=True)
    targets = targets.round() if kind == "logistic" else (targets * 2 - 1).clamp(-0.2, 0.2)
    weights = torch.rand(targets.shape[:2], generator=torch.Generator().manual_seed(1)) + 0.5 if weighted else None
    leaf = numbers.clone().requires_grad_()
    tensors = representation.layout.unflatten(leaf)
    each = loss(representation.evaluate_encoded(tensors, features).mT, targets)
    losses = (each if weights is None else each * weights[..., None]).mean((1, 2))
    expected = (losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0])
    for gradient in (KernelGradient(representation, loss), AutogradGradient(representation, loss=loss)):
        assert_agree(gradient(numbers, gradient.prepare(features), targets, weights), expected)
