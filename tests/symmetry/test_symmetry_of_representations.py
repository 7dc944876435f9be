"""The symmetry of the six representations, inferred from how they are evaluated, is what their layouts say."""

import pytest
import torch

from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import KINDS, Representation, RepresentationConfig
from wsrl.symmetry.spec.spec import PermutationSpec

FIELDS = [
    FieldConfig(width=8, depth=3, encoding="identity", activation="sine"),
    FieldConfig(width=6, depth=3, num_frequencies=3, activation="silu", residual=True),
    FieldConfig(width=6, depth=1, num_frequencies=3, activation="leaky_relu", residual=True),
]


def representation(kind: str, field: FieldConfig) -> Representation:
    base = BaseField(BaseFieldConfig(field=field, latent_size=2, mapping_width=4, mapping_depth=1), 2, 3)
    config = RepresentationConfig(kind=kind, rank=3, field=field)
    built = Representation.build(config, base.double(), in_features=2, out_features=3)
    built.encoding.double()
    return built


def renamed(spec: PermutationSpec) -> dict:
    """Axes with permutations numbered in the order in which they appear."""
    indices: dict[str, int] = {}
    return {
        name: tuple(None if axis is None else indices.setdefault(axis, len(indices)) for axis in axes)
        for name, axes in spec.axes.items()
    }


@pytest.mark.parametrize("field", FIELDS, ids=["siren", "residual", "shallow"])
@pytest.mark.parametrize("kind", KINDS)
def test_layout_and_inference_agree_and_are_proved(kind, field):
    made = representation(kind, field)
    weights = {name: tensor.double() for name, tensor in made.initial(num=1).items()}
    coords = torch.linspace(-1, 1, 14, dtype=torch.float64).view(7, 2)
    masks = {tensor.name: tensor.trainable() for tensor in made.layout.tensors}
    inferred = PermutationSpec.from_function(made.evaluate, weights, coords, masks=masks)
    layout = PermutationSpec.from_layout(made.layout)
    assert renamed(inferred) == renamed(layout)
    assert inferred.shapes == layout.shapes
    report = layout.verify(made.evaluate, coords, weights=weights)
    assert report.largest_error <= 1e-10 and set(report.ties_seen) == set(layout.permutations)
    assert (not layout.permutations) == made.config.is_masked


def test_two_networks_at_once_and_encoded_points():
    made = representation("mlp", FIELDS[0])
    weights = {name: tensor.double() for name, tensor in made.initial(num=2).items()}
    coords = torch.linspace(-1, 1, 28, dtype=torch.float64).view(2, 7, 2)
    spec = PermutationSpec.from_function(made.evaluate, weights, coords)
    assert renamed(spec) == renamed(PermutationSpec.from_layout(made.layout))


def test_a_mask_that_is_alike_along_an_axis_breaks_nothing():
    made = representation("mlp", FIELDS[0])
    weights = {name: tensor.double() for name, tensor in made.initial(num=1).items()}
    coords = torch.zeros(3, 2, dtype=torch.float64)
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[2] = False  # one row is frozen: neurons of layer 1 differ, those of layer 0 do not
    spec = PermutationSpec.from_function(made.evaluate, weights, coords, masks={"layers.1.weight": mask})
    assert spec.permutations == ("layers.0", "layers.2") and spec.axes["layers.1.weight"] == (None, "layers.0")
