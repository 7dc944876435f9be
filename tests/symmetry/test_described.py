"""What cannot be traced is named with what to do, and may be described by hand."""

import pytest
import torch
from symmetry_networks import Computed, inferred_spec, mlp, noise
from torch import nn

from wsrl.errors import UserError
from wsrl.symmetry.inference.described import ModuleAxes
from wsrl.symmetry.spec.axes import Concat, Product
from wsrl.symmetry.spec.spec import PermutationSpec


class Distances(nn.Module):
    """Distances to learned centres, by an operation without a rule."""

    def __init__(self, num: int, features: int):
        super().__init__()
        self.centres = nn.Parameter(noise(num, features))

    def forward(self, x):
        return torch.cdist(x, self.centres)


def with_distances() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Sequential(Distances(4, 5)), nn.Linear(4, 2))


def test_an_operation_without_a_rule_is_named_with_its_module_and_the_way_out():
    with pytest.raises(UserError) as error:
        PermutationSpec.from_module(with_distances(), noise(6, 3))
    text = str(error.value)
    assert "cdist" in text and "'2.0'" in text and 'described={"2.0": ModuleAxes(tensors={' in text and "fixed=" in text


def test_a_part_described_by_hand():
    part = ModuleAxes(tensors={"centres": ("num", "in")}, inputs=((None, "in"),), outputs=((None, "num"),))
    net = with_distances()
    spec = inferred_spec(net, noise(6, 3), described={"2.0": part})
    assert spec.axes["2.0.centres"] == ("2.0", "0") and spec.axes["3.weight"] == (None, "2.0")
    careful = inferred_spec(
        net, noise(6, 3), described={"2.0": ModuleAxes(inputs=((None, None),), outputs=((None, None),))}
    )
    assert careful.permutations == ()
    assert "forward" not in vars(net[2][0])


def test_composite_axes_described_by_hand():
    net = Computed(
        lambda self, x: self.out(self.mid(torch.cat([self.a(x), self.b(x)], -1))),
        a=nn.Linear(3, 4), b=nn.Linear(3, 4), mid=nn.Linear(8, 8), out=nn.Linear(8, 2),
    )  # fmt: skip
    both = Concat(("p", "p"))
    part = ModuleAxes(
        {"weight": (Product((2, "p")), both), "bias": (Product((2, "p")),)},
        ((None, both),),
        ((None, Product((2, "p"))),),
    )
    spec = PermutationSpec.from_module(net, noise(2, 3), described={"mid": part})
    assert spec.axes["a.weight"] == spec.axes["b.weight"] == ("a", None)
    assert spec.axes["out.weight"] == (None, Product((2, "a")))


def test_wrong_descriptions_are_refused():
    net = with_distances()
    for described, text in (
        ({"7": ModuleAxes()}, "described names '7'"),
        ({"2.0": ModuleAxes({"weights": ("a",)})}, "names the tensor 'weights'.*centres"),
        ({"2.0": ModuleAxes()}, r"describes 0 inputs with \[\] axes.*1 with \[2\] axes"),
        ({"2.0": ModuleAxes({"centres": ("c", "c")}, ((None, "c"),), ((None, "c"),))}, "says c of an axis of"),
    ):
        with pytest.raises(UserError, match=text):
            PermutationSpec.from_module(net, noise(6, 3), described=described)


def test_tensors_held_fixed():
    net = mlp(2, 5, 6, 3)
    spec = inferred_spec(net, noise(4, 2), fixed=["0.bias"])
    assert spec.permutations == ("2",) and spec.axes["0.weight"] == (None, None)
    assert inferred_spec(net, noise(4, 2), fixed="4").permutations == ("0",)
    with pytest.raises(UserError, match="fixed names '9', which is no tensor"):
        PermutationSpec.from_module(net, noise(4, 2), fixed=["9"])


def test_the_module_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    PermutationSpec.from_module(net, (noise(4, 2),))
    assert net.training and net[1].training and not net[1]._forward_hooks
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_inputs_by_position_and_by_name():
    net = Computed(lambda self, x: self.a(x), a=mlp(2, 4, 1))
    specs = [
        PermutationSpec.from_module(net.a, inputs) for inputs in (noise(3, 2), (noise(3, 2),), {"input": noise(3, 2)})
    ]
    assert specs[0] == specs[1] == specs[2]


def test_outputs_in_structures_are_fixed():
    net = Computed(
        lambda self, x: {"hidden": [self.a(x)], "out": self.b(self.a(x))}, a=nn.Linear(2, 4), b=nn.Linear(4, 1)
    )
    assert PermutationSpec.from_module(net, noise(3, 2)).permutations == ()


@pytest.mark.parametrize("dims", [slice(0, 2), slice(1, 3)])
def test_weights_that_are_read_outside_of_the_trace_are_fixed(dims):
    layers = {"a": nn.Linear(2, 4), "b": nn.Linear(4, 2)}
    net = Computed(lambda self, x: self.b(self.a(x)) + self.a.bias.data[dims], **layers)
    spec = PermutationSpec.from_module(net, noise(3, 2))
    assert spec.verify(net, noise(3, 2)).largest_error <= 1e-10
    assert spec.axes["a.bias"] != ("a",)
