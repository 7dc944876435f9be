"""The prior of a fit: the penalty by an independent loop, widths from a first pass, and stores that carry them."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contracts
from fitting.test_engine import CONFIG, WEIGHT_TOLERANCE, assert_same_field, by_id, items, make_signal

from wsrl.errors import UserError
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import KINDS, RepresentationConfig
from wsrl.fitting.build import build_store
from wsrl.fitting.engine import FitConfig, fit
from wsrl.fitting.prior import LEAST_WIDTH, first_pass, prior_widths
from wsrl.fitting.refit import refit_fields
from wsrl.signals import open_source
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import Signal
from wsrl.store import WeightStore
from wsrl.store.schema import MANIFEST, PRIOR
from wsrl.store.verifying import verify

PRIOR_CONFIG = replace(CONFIG, prior_strength=2e-2)


def distance(representation, result) -> float:
    start = representation.layout.flatten(representation.initial())
    return float((representation.layout.flatten(result.weights) - start).norm())


def by_a_plain_loop(representation, signal, config, widths):
    """The weights after torch.optim.Adam on the mean squared error plus the penalty, both by autograd."""
    start = representation.layout.flatten(representation.initial())
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=1.0)
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = config.rate(step)
        optimizer.zero_grad()
        tensors = {name: tensor[None] for name, tensor in representation.layout.unflatten(weights).items()}
        values = representation.evaluate(tensors, signal.coords)[0]
        penalty = config.prior_strength / 2 * ((weights - start) / widths).square().sum()
        ((values - signal.values).square().mean() + penalty).backward()
        weights.grad.mul_(representation.layout.trainable())
        optimizer.step()
    return weights.detach()


@pytest.mark.parametrize("widths", ["start", "data"])
@pytest.mark.parametrize("gradient", ["kernel", "autograd"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_is_that_of_a_plain_loop(kind, gradient, widths):
    representation, signal = contracts.tiny_representation(kind), make_signal(2)
    size = representation.layout.num_weights
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(0)) + 0.5 if widths == "data" else None
    config = replace(PRIOR_CONFIG, gradient=gradient, prior_scale=widths)
    (result,) = fit(representation, [(0, signal.id, signal)], config, prior_widths=drawn)
    expected = by_a_plain_loop(representation, signal, config, torch.ones(size) if drawn is None else drawn)
    weights = representation.layout.flatten(result.weights)
    torch.testing.assert_close(weights, expected, rtol=0, atol=WEIGHT_TOLERANCE)
    (free,) = fit(representation, [(0, signal.id, signal)], replace(config, prior_strength=0.0))
    assert (weights - representation.layout.flatten(free.weights)).abs().max() > 5 * WEIGHT_TOLERANCE
    assert distance(representation, result) < distance(representation, free)


@pytest.mark.parametrize("quantity", ["sdf", "occupancy"])
def test_shapes_are_pulled_too(quantity):
    representation = contracts.tiny_representation("mlora", in_features=3)
    coords = contracts.points(40, 3)
    values = coords.norm(dim=1, keepdim=True) - 0.5
    values = values if quantity == "sdf" else (values < 0).float()
    low = -1.0 if quantity == "sdf" else 0.0
    form = SignalForm(in_features=3, out_features=1, quantity=quantity, value_range=(low, 1.0))
    signal = Signal(id="ball", coords=coords, values=values, form=form)
    free, pulled, held = (
        distance(representation, next(fit(representation, [(0, "ball", signal)], config)))
        for config in (CONFIG, replace(CONFIG, prior_strength=0.01), replace(CONFIG, prior_strength=1e4))
    )
    # Adam's steps are as large as the rate whatever the strength: a field that is held trembles about its start.
    assert held < 0.2 * free and pulled < 0.98 * free


@pytest.mark.parametrize("start", ["shared", "random"])
def test_a_field_depends_on_nobody_else(start):
    representation = contracts.tiny_representation("mlora_asym", start=start)
    expected = by_id(fit(representation, items(range(5)), PRIOR_CONFIG))
    for batch_size, indices in ((1, range(5)), (5, [4, 2, 0, 1, 3]), (2, [3, 1])):
        refits = by_id(fit(representation, items(indices), replace(PRIOR_CONFIG, batch_size=batch_size)))
        for name in refits:
            assert_same_field(refits[name], expected[name])
    again = by_id(fit(representation, items(range(5)), PRIOR_CONFIG))
    for name, result in expected.items():
        assert all(torch.equal(tensor, again[name].weights[key]) for key, tensor in result.weights.items())


def test_a_field_that_leaves_early_hands_its_start_on():
    """With a target fields leave their slots at different steps; those moved to other slots keep their own start."""
    representation = contracts.tiny_representation("mlora", start="random")
    config = replace(PRIOR_CONFIG, target_psnr=7.0, batch_size=3, steps=40, prior_strength=1e-3)
    together = by_id(fit(representation, items(range(8)), config))
    assert len({result.metrics["steps"] for result in together.values()}) > 1
    for item in items(range(8)):
        (alone,) = fit(representation, [item], config)
        assert_same_field(together[alone.id], alone)


def test_widths_by_hand():
    distances = torch.tensor([[3.0, 0.0, 1.0, 9.0], [-3.0, 0.0, -1.0, 9.0]])
    widths = prior_widths(distances, torch.tensor([True, True, True, False]))
    common = math.sqrt((9 + 0 + 1) / 3)
    assert widths.tolist() == pytest.approx([3 / common, LEAST_WIDTH, 1 / common, 1.0])
    assert prior_widths(torch.zeros(2, 3), torch.ones(3, dtype=torch.bool)).tolist() == [1.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def source():
    return open_source("digits", limit={"train": 10, "test": 2})


@pytest.fixture(scope="module")
def base():
    return BaseField(BaseFieldConfig(field=FieldConfig(width=8, depth=2, num_frequencies=4), latent_size=4), 2, 1)


PLAN = (
    RepresentationConfig(kind="mlora_asym", rank=1),
    FitConfig(steps=10, learning_rate=0.05, prior_strength=1e-3, prior_scale="data"),
)


def test_a_store_keeps_the_widths_of_its_first_pass(source, base, tmp_path):
    store = build_store(source, *PLAN, base=base, out=tmp_path / "one", num_shards=2)
    layout, widths = store.layout, store.prior_widths
    trainable = layout.trainable()
    assert float(widths[trainable].square().mean()) == pytest.approx(1, abs=0.01)
    assert widths[trainable].std() > 0.1 and bool((widths[~trainable] == 1).all())
    train = [index for index, split in enumerate(source.splits()) if split == "train"]
    assert torch.equal(widths, first_pass(source, train, store.representation, PLAN[1]))
    # Shard by shard, in either order, the fields are the same bit for bit, and so are those that are fitted again.
    for shard in (1, 0):
        build_store(source, *PLAN, base=base, out=tmp_path / "two", shard=(shard, 2))
    other = WeightStore.open(tmp_path / "two")
    assert all(torch.equal(tensor, other[id][name]) for id in store.ids for name, tensor in store[id].items())
    assert all(outcome.same for outcome in refit_fields(store, 4, source=source))
    assert '"prior_scale": "data"' in (tmp_path / "one" / "README.md").read_text()
    assert verify(tmp_path / "one").ok


def test_widths_that_were_changed_are_noticed(source, base, tmp_path):
    store = build_store(source, *PLAN, base=base, out=tmp_path / "store")
    path = store.directory / PRIOR
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (problem,) = verify(store.directory).problems
    assert problem.file == PRIOR
    with pytest.raises(UserError, match="widths of the prior"):
        refit_fields(WeightStore.open(store.directory), 1, source=source)
    path.unlink()
    build_store(source, *PLAN, base=base, out=store.directory)
    assert verify(store.directory).ok


def test_a_store_from_before_the_prior_is_continued_without_one(source, base, tmp_path):
    plan = (PLAN[0], FitConfig(steps=2))
    build_store(source, *plan, base=base, out=tmp_path / "store", shard=(0, 2))
    manifest = json.loads((tmp_path / "store" / MANIFEST).read_text())
    for key in ("prior_strength", "prior_scale"):
        del manifest["fit"][key]
    (tmp_path / "store" / MANIFEST).write_text(json.dumps(manifest))
    assert len(build_store(source, *plan, base=base, out=tmp_path / "store", num_shards=2)) == 12
    stronger = (PLAN[0], FitConfig(steps=2, prior_strength=1e-5))
    with pytest.raises(UserError, match=r"fit.prior_strength is 0.0 there, and 1e-05"):
        build_store(source, *stronger, base=base, out=tmp_path / "store", num_shards=2)


def test_no_field_of_a_first_pass_is_an_error(source, base):
    from wsrl.fields.representation import Representation

    representation = Representation.build(PLAN[0], base, **source.form.sizes)
    with pytest.raises(UserError, match="first pass"):
        # As many steps as no number of returns to the start can make up for.
        first_pass(source, [0, 1], representation, replace(PLAN[1], learning_rate=1e30, steps=10))


@pytest.mark.parametrize("change", [{"prior_strength": -1.0}, {"prior_scale": "signal"}, {"prior_strength": np.nan}])
def test_wrong_options_are_refused(change):
    with pytest.raises(UserError, match=f"fit.{next(iter(change))}"):
        FitConfig(**change)
