"""Asymmetric masks: what they keep free, how many they freeze, and that they are the generator's alone."""

import subprocess
import sys

import pytest
import torch

from wsrl.adapters.masks import asymmetric_mask
from wsrl.errors import UserError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rank,num_in", [(1, 7), (2, 64), (4, 2), (4, 16), (8, 8), (3, 1)])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.99])
def test_every_row_and_column_keeps_a_free_entry(rank, num_in, fraction):
    mask = asymmetric_mask(rank, num_in, fraction, seeded())
    assert mask.shape == (rank, num_in) and mask.dtype == torch.bool
    assert mask.any(0).all() and mask.any(1).all()
    most = rank * num_in - max(rank, num_in)
    assert int((~mask).sum()) == min(round(fraction * rank * num_in), most)


def test_rank_one_freezes_nothing():
    assert asymmetric_mask(1, 9, 0.9, seeded()).all()


def test_the_generator_decides():
    first, again, other = (asymmetric_mask(4, 32, 0.5, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_rank_components_differ():
    mask = asymmetric_mask(4, 32, 0.5, seeded())
    assert len({tuple(row.tolist()) for row in mask}) == 4


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0])
def test_impossible_fraction_is_refused(fraction):
    with pytest.raises(UserError, match=r"mask_fraction is .* Allowed: 0 up to, not including, 1"):
        asymmetric_mask(2, 4, fraction, seeded())


def test_light_modules_do_not_import_peft():
    code = "import sys, wsrl.adapters.masks, wsrl.adapters.scaling; sys.exit('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
