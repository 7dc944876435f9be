"""Defaults: sizes grow with the grid and the channels, and the kinds have about as many parameters as each other."""

from dataclasses import replace
from itertools import pairwise

import pytest

from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.representation import KINDS, Representation
from wsrl.fitting.build import build_store
from wsrl.fitting.defaults import SCATTERED, SIZES, SMALL, default_field, default_fit, default_representation, size_for
from wsrl.signals import open_source
from wsrl.signals.form import SignalForm
from wsrl.training.base import default_base

SIDES = (8, 28, 32, 64, 100, 128, 256, 1000)


def form_of(side: int, channels: int = 3) -> SignalForm:
    return SignalForm(in_features=2, out_features=channels, grid=(side, side - 1))


SHAPE = SignalForm(in_features=3, out_features=1, quantity="sdf", value_range=(-1.0, 1.0))


def parameters(kind: str, form: SignalForm) -> int:
    base = BaseField(BaseFieldConfig(field=default_field(form), latent_size=4), form.in_features, form.out_features)
    config = default_representation(kind, form)
    return Representation.build(config, base if config.is_adapter else None, **form.sizes).layout.num_trainable


def test_every_grid_has_the_size_of_its_longer_side():
    assert [size.side for size in SIZES] == sorted({size.side for size in SIZES}) and SIZES[0] is SMALL
    assert size_for((12, 5)) is SMALL and size_for((13, 5)) is SIZES[1] and size_for(None) is SCATTERED
    assert size_for((5000, 3)) is SIZES[-1]


@pytest.mark.parametrize("channels", [1, 3])
def test_finer_grids_and_more_channels_get_no_fewer_parameters(channels):
    counts = [parameters("mlora_asym", form_of(side, channels)) for side in SIDES]
    assert all(fewer <= more for fewer, more in pairwise(counts)) and counts[-1] > 2.5 * counts[1]
    if channels == 3:
        assert all(parameters("mlora_asym", form_of(side, 1)) <= count for side, count in zip(SIDES, counts))


@pytest.mark.parametrize("form", [form_of(28, 1), form_of(64), form_of(256), SHAPE], ids=str)
def test_kinds_have_about_as_many_parameters(form):
    counts = {kind: parameters(kind, form) for kind in KINDS}
    assert max(counts.values()) < 1.35 * min(counts.values()), counts


def test_networks_of_fashion_mnist_are_those_of_the_records():
    """The committed comparisons of kinds were made with width 26 beside rank 4 on width 64."""
    config = default_representation("mlp", form_of(28, 1))
    assert (config.field.width, config.rank) == (26, 4) and default_field(form_of(28, 1)).width == 64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [form_of(8, 1), form_of(128), SHAPE], ids=str)
def test_a_fit_suits_its_points(kind, form):
    fit = default_fit(kind, form)
    assert (fit.points_per_step is None) == (form.grid is not None)
    assert fit.interleave == 1 or form.grid is not None


def test_a_card_says_which_sizes_are_the_defaults_and_which_were_asked_for(tmp_path):
    source = open_source("digits", limit=4)
    base = BaseField(BaseFieldConfig(field=default_field(source.form), latent_size=4), 2, 1)
    config = replace(default_representation("mlora", source.form), rank=2)
    fit = replace(default_fit("mlora", source.form), steps=3)
    store = build_store(source, config, fit, base=base, out=tmp_path / "store")
    card = " ".join((store.directory / "README.md").read_text().split())
    assert "rank 2 (asked for; the default is 4), width of the base field 32 (the default)" in card
    assert "steps 3 (asked for; the default is 60)" in card
    assert "grids of up to 12 points a side and one channel" in card


@pytest.mark.parametrize("side", [8, 28, 32, 64, 100, 128, 256])
def test_stages_of_a_base_field_cost_about_as_much_and_end_at_the_full_grid(side):
    stages = default_base(form_of(side), 10_000).stages
    points = [stage.batch_size * (side * stage.resolution) ** 2 for stage in stages]
    assert len(stages) >= 2 and stages[-1].resolution == 1
    assert max(points) <= 6 * min(points)
