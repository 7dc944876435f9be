"""The sweep over settings, steps and rates: it goes on until the best rate is inside, and keeps what it found."""

import math

import pytest

from pipelines.experiment import FieldExperiment
from pipelines.sweep import SweptKind, along_rates, choose, overridden
from wsrl.errors import UserError
from wsrl.fields import RepresentationConfig
from wsrl.fitting.engine import FitConfig


def test_rates_are_extended_until_the_best_one_is_inside():
    found = along_rates([0.1, 0.2], lambda rate: -abs(math.log2(rate / 0.8)))
    assert list(found) == [0.1, 0.2, 0.4, 0.8, 1.6] and max(found, key=found.get) == 0.8
    found = along_rates([0.1, 0.2], lambda rate: -rate)
    assert list(found) == [0.0125, 0.025, 0.05, 0.1, 0.2], "no more than three times"
    assert list(along_rates([0.1, 0.2, 0.4], lambda rate: -abs(rate - 0.2))) == [0.1, 0.2, 0.4]
    assert list(along_rates([0.4], lambda rate: -abs(rate - 0.4))) == [0.2, 0.4, 0.8], "one rate has no inside"


def test_overrides_reach_into_groups():
    config = RepresentationConfig(kind="mlp_asym")
    changed = overridden(config, {"field.omega": 40.0, "frozen_scale": 10.0})
    assert (changed.field.omega, changed.frozen_scale, changed.field.width) == (40.0, 10.0, config.field.width)
    for name in ("omega", "field.omegas", "rank.x"):
        with pytest.raises(UserError, match=f"a setting overrides '{name.rpartition('.')[2]}'"):
            overridden(config, {name: 1.0})
    with pytest.raises(UserError, match="has a dot"):
        SweptKind(representation=config, learning_rates=(0.1,), settings={"omega1.5": {"field.omega": 1.5}})


def test_the_best_setting_with_its_own_rate_and_steps(tmp_path):
    """Each setting and number of steps has a best rate of its own; only the best of all is chosen, once."""
    asked = []

    def score(representation: RepresentationConfig, how: FitConfig) -> float:
        asked.append((representation.field.omega, how.steps, how.learning_rate))
        best_rate = 1.6 / representation.field.omega / (how.steps / 10)
        return representation.field.omega / how.steps - abs(math.log2(how.learning_rate / best_rate))

    config = FieldExperiment(name="x", data="digits", out=str(tmp_path))
    settings = {"slow": {"field.omega": 2.0}, "fast": {"field.omega": 8.0}}
    kind = SweptKind(representation=RepresentationConfig(kind="mlp"), learning_rates=(0.2, 0.4), settings=settings)
    choice = choose(config, "mlp", kind, FitConfig(), score, steps=(10, 20), how=["these"])
    assert (choice.best.setting, choice.best.steps, choice.best.learning_rate) == ("fast", 10, 0.2)
    assert choice.representation.field.omega == 8.0 and choice.inside
    assert (choice.fit.steps, choice.fit.learning_rate) == (10, 0.2)
    numbers = choice.numbers("mlp.by_unseen", "sweep_unseen")
    assert numbers["sweep_unseen.mlp.fast.10.0.2"] == pytest.approx(0.8)
    assert numbers["mlp.by_unseen.setting"] == "fast" and numbers["mlp.by_unseen.steps"] == 10
    # Asked again for the same it keeps what it found; for anything else it does not.
    before = len(asked)
    assert choose(config, "mlp", kind, FitConfig(), score, steps=(10, 20), how=["these"]) == choice
    assert len(asked) == before
    choose(config, "mlp", kind, FitConfig(), score, steps=(10, 20), how=["others"])
    assert len(asked) == 2 * before
