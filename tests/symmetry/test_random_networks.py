"""Networks that nobody chose: the inferred symmetry is proved, and is as large as the construction says."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import BLOCKS, CONCATENATED, GROUPED, NUM_STEPS, READOUTS, build
from symmetry_networks import noise

from wsrl.symmetry.spec.spec import PermutationSpec

WIDTHS = st.sampled_from([4, 8])


def block_lists(extra: dict):
    return st.lists(st.tuples(st.sampled_from([*BLOCKS, *extra]), WIDTHS), min_size=1, max_size=5)


ARCHITECTURES = st.tuples(st.one_of(block_lists(GROUPED), block_lists(CONCATENATED)), st.sampled_from([*READOUTS]))


def check(architecture) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, least = build(*architecture)
    inputs = noise(2, 3, NUM_STEPS)
    spec = PermutationSpec.from_module(net, inputs)
    assert len(spec.permutations) >= least, spec
    report = spec.verify(net, inputs, trials=2, controls=4)
    assert report.largest_error <= 1e-10
    state = dict(net.state_dict())
    joined = spec.join(spec.split(state))
    assert all(torch.equal(joined[name], state[name]) for name in state)


@pytest.mark.parametrize("name", [*BLOCKS, *GROUPED, *CONCATENATED])
def test_each_block(name):
    check(([(name, 8), ("conv", 4)], "flatten"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_random_architectures():
    seen = set()

    @settings(max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(ARCHITECTURES)
    def run(architecture):
        key = (tuple(architecture[0]), architecture[1])
        if key not in seen:
            check(architecture)
            seen.add(key)

    run()
    assert len(seen) >= 200
