"""The networks of the pipeline of posteriors: the symmetry that matching needs is found."""

import pytest
import torch
from torch.func import functional_call

from pipelines.posterior_networks import NetworkConfig, classifier, siren
from wsrl.symmetry.spec.spec import PermutationSpec


@pytest.mark.parametrize(
    ("kind", "normalisation", "num_permutations"),
    [("mlp", "frn", 2), ("cnn", "frn", 2), ("resnet20", "frn", 12), ("resnet20", "group", 24)],
)
def test_permuted_classifiers_compute_the_same(kind, normalisation, num_permutations):
    config = NetworkConfig(kind=kind, width=8, normalisation=normalisation)
    module, generator = classifier(config, (1, 8, 8), 3, seed=0), torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 1, 8, 8, generator=generator)
    spec = PermutationSpec.from_module(module, inputs)
    assert (
        len(spec.permutations) == num_permutations
    )  # of each hidden layer, or stage and block; of groups and inside them
    weights = {
        name: each + 0.1 * torch.randn(each.shape, generator=generator) for name, each in module.named_parameters()
    }
    moved = spec.apply(weights, spec.random_permutation(generator))
    torch.testing.assert_close(functional_call(module, moved, (inputs,)), functional_call(module, weights, (inputs,)))
    first = next(name for name, axes in spec.axes.items() if any(axes))
    wrong = {**weights, first: weights[first].roll(1, 0)}  # as a permutation that forgets all other tensors
    assert not torch.allclose(
        functional_call(module, wrong, (inputs,)), functional_call(module, weights, (inputs,)), atol=1e-3
    )


def test_starts_differ_by_their_seed_alone():
    config = NetworkConfig(kind="siren", width=8, depth=2)
    first, again, other = (siren(config, 1, seed) for seed in (0, 0, 1))
    coords = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first(coords), again(coords)) and not torch.allclose(first(coords), other(coords))
