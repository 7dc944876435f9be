"""The space of weights: what it standardises, and the exact way back."""

import pytest
import torch
from diffusion_fields import adapter_representation, random_fields, standalone_representation, statistics_of

from wsrl.diffusion.space import WeightSpace
from wsrl.errors import UserError


@pytest.mark.parametrize("make", [adapter_representation, standalone_representation])
@pytest.mark.parametrize("scale", ["entry", "pooled"])
def test_there_and_back(make, scale, tmp_path):
    representation = make()
    space, fields = WeightSpace.of(statistics_of(representation), scale), random_fields(representation, 5)
    vector = space.encode(fields)
    assert vector.shape == (5, space.vector_size)
    again = space.decode(vector)
    for spec in representation.layout:
        torch.testing.assert_close(again[spec.name], fields[spec.name], atol=1e-5, rtol=1e-5)
        frozen = ~spec.trainable()
        assert torch.equal(again[spec.name][:, frozen], fields[spec.name][:, frozen])
    space.save_pretrained(tmp_path)
    assert torch.equal(WeightSpace.from_pretrained(tmp_path).encode(fields), vector)


def test_entries_are_standardised_one_by_one_or_together():
    representation = adapter_representation()
    fields = random_fields(representation, 64)
    by_entry, pooled = (WeightSpace.of(statistics_of(representation), scale) for scale in ("entry", "pooled"))
    entries = by_entry.encode(fields)
    torch.testing.assert_close(entries.mean(0), torch.zeros(by_entry.vector_size), atol=1e-4, rtol=0)
    together = pooled.encode(fields)
    assert float(together.mean()) == pytest.approx(0, abs=1e-4)
    assert float(together.square().mean()) == pytest.approx(1, abs=1e-2)
    assert together.std(0).max() > 2 * together.std(0).min()


def test_an_unknown_scale_is_refused():
    with pytest.raises(UserError, match="scale is 'all'"):
        WeightSpace.of(statistics_of(adapter_representation()), "all")
