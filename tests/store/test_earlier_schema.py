"""Stores and models that were written before they said the form of their signals still open."""

import json
from pathlib import Path

import pytest
import torch

from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.signals.form import SignalForm
from wsrl.store import WeightStore

FIXTURES = Path(__file__).parent / "fixtures"
FORMS = {
    "pictures": SignalForm(in_features=2, out_features=1, grid=(8, 8)),
    "shapes": SignalForm(in_features=3, out_features=1, quantity="sdf", value_range=(-0.1, 0.1)),
}
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())


def some_points(features):
    return torch.linspace(-0.9, 0.9, 4 * features).reshape(4, features)


@pytest.mark.parametrize("name", ["pictures", "shapes"])
def test_fields_are_read_and_rendered(name):
    store = WeightStore.open(FIXTURES / name)
    assert store.form == FORMS[name]
    field = store.field(0)
    values = field(some_points(field.representation.in_features)).flatten()
    torch.testing.assert_close(values, torch.tensor(EXPECTED[name]["values"]), atol=1e-5, rtol=1e-5)
    assert sum(len(batch) for batch in store.batches(4)) == len(store) > 0
    if name == "shapes":
        assert len(field.mesh(16).faces) > 0
    else:
        assert field.image(16).size == (16, 16)


@pytest.mark.parametrize("name", ["pictures", "shapes"])
def test_a_diffusion_model_samples(name):
    pipeline = WeightDiffusionPipeline.from_pretrained(FIXTURES / f"{name}-model")
    samples = pipeline(2, generator=torch.Generator().manual_seed(0), num_inference_steps=5)
    field = samples.fields[0]
    values = field(some_points(field.representation.in_features)).flatten()
    torch.testing.assert_close(values, torch.tensor(EXPECTED[name]["sampled"]), atol=1e-4, rtol=1e-4)
    assert len(samples.images) == EXPECTED[name]["images"]
    assert field.form.is_shape == (name == "shapes")
    assert pipeline.decoder.form.grid == (None if name == "shapes" else (8, 8))
