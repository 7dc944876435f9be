"""The UNF encoder in the canonical form of sine networks: what leaves a field as it is leaves its embedding so."""

import math

import pytest
import torch

from wsrl.encoders.normalisation import WeightStatistics
from wsrl.encoders.registry import build_encoder
from wsrl.fields import FieldConfig, Representation, RepresentationConfig
from wsrl.symmetry import PermutationSpec

OPTIONS = {"channels": 16, "depth": 2, "num_frequencies": 3, "sine_omegas": [10.0, 1.0]}


@pytest.fixture(scope="module")
def layout():
    field = FieldConfig(width=8, depth=2, encoding="identity", activation="sine", omega=10.0)
    return Representation.build(RepresentationConfig(kind="mlp", field=field), in_features=2, out_features=1)


def test_signs_phases_and_permutations_do_not_matter(layout):
    weights = layout.initial(torch.Generator().manual_seed(0), num=6)
    torch.manual_seed(0)
    encoder = build_encoder("unf", OPTIONS, WeightStatistics.from_batches(layout.layout, [weights])).eval()
    expected = encoder(weights)
    spec = PermutationSpec.from_layout(layout.layout)
    permuted = spec.apply(weights, spec.random_permutation(torch.Generator().manual_seed(1)))
    flipped = dict(weights)
    flipped["layers.0.weight"] = -flipped["layers.0.weight"]
    flipped["layers.0.bias"] = -flipped["layers.0.bias"] + 2 * math.pi / 10
    flipped["layers.1.weight"] = -flipped["layers.1.weight"]
    for other in (permuted, flipped):
        assert (encoder(other) - expected).abs().max() < 1e-4 * expected.abs().max()
    broken = {**weights, "layers.1.weight": weights["layers.1.weight"].roll(1, dims=-1)}
    assert (encoder(broken) - expected).abs().max() > 1e-2 * expected.abs().max()
