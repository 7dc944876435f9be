"""Fields of a store fitted again are the same fields; another setting, signal or source is noticed."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from wsrl.cli.verify import main
from wsrl.errors import UserError
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.fitting.refit import RefitOutcome, _within_drift, refit_fields, stored_fit
from wsrl.signals import open_source
from wsrl.store import WeightStore
from wsrl.store.writer import ShardWriter, create_or_resume, finalize

CONFIG = FitConfig(steps=20, learning_rate=0.02, batch_size=5)
FIELD = FieldConfig(width=8, depth=1, encoding="identity", activation="sine", omega=5.0)


def build(directory, source, config=CONFIG, recorded=None, start="shared"):
    """A small store; ``recorded`` is the fit configuration of the manifest where it is not that of the fields."""
    kind = RepresentationConfig(kind="mlp", field=FIELD, start=start)
    representation = Representation.build(kind, **source.form.sizes)
    settings = {key: value for key, value in asdict(recorded or config).items() if key != "batch_size"}
    create_or_resume(
        directory,
        layout=representation.layout,
        representation=representation.to_dict(),
        base_sha256=None,
        source=source.description,
        fit=settings,
        num_signals=len(source),
        num_shards=2,
        label_names=source.label_names,
    )
    for shard in range(2):
        with ShardWriter(directory, shard) as writer:
            writer.write_segment(list(fit(representation, read_signals(source, writer.indices), config)))
            writer.finish()
    finalize(directory)
    return directory


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return build(tmp_path_factory.mktemp("refit") / "store", open_source("digits", limit=12), start="random")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of six grey pictures and a store of them."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "data").mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 255, (4, 4), dtype=np.uint8)
        Image.fromarray(noise).save(root / "data" / f"{number}.png")
    return root / "data", build(root / "store", open_source(root / "data", size=8, mode="L"))


def test_fields_fitted_again_are_the_same(digits):
    with WeightStore.open(digits) as store:
        outcomes = list(refit_fields(store, 4))
        assert len({outcome.id for outcome in outcomes}) == 4
        for outcome in outcomes:
            assert outcome.same, str(outcome)
            assert outcome.max_difference < 1e-3 and outcome.cosine > 0.999999
            assert outcome.id in str(outcome) and ": same" in str(outcome)
        assert [str(outcome) for outcome in refit_fields(store, 4)] == [str(outcome) for outcome in outcomes]
        assert {outcome.id for outcome in refit_fields(store, 4, seed=1)} != {outcome.id for outcome in outcomes}
        assert len(list(refit_fields(store, 1000))) == len(store)


def test_equal_batches_give_equal_bits(tmp_path):
    source = open_source("digits", limit={"test": 2})
    with WeightStore.open(build(tmp_path / "store", source)) as store:
        # Two shards of one field each, and a batch of two: only a batch of its own repeats every bit.
        outcomes = [outcome for seed in range(2) for outcome in refit_fields(store, 1, seed=seed)]
    assert all(outcome.identical and outcome.max_difference == 0 for outcome in outcomes)
    assert all("bit for bit" in str(outcome) for outcome in outcomes)


@pytest.mark.parametrize("change", [{"steps": 10}, {"learning_rate": 0.05}, {"seed": 1}])
def test_other_settings_give_other_fields(tmp_path, change):
    """The negative control: a manifest that does not tell how the fields were made."""
    source = open_source("digits", limit={"test": 2})
    directory = build(tmp_path / "store", source, recorded=replace(CONFIG, **change), start="random")
    with WeightStore.open(directory) as store:
        for outcome in refit_fields(store, 2):
            assert not outcome.same and not outcome.identical
            assert "DIFFERENT" in str(outcome)


def test_stored_configuration_is_used(digits):
    with WeightStore.open(digits) as store:
        assert replace(stored_fit(store), batch_size=5) == CONFIG
        store.manifest["fit"]["momentum"] = 0.9
        with pytest.raises(UserError, match=r"not one of this engine \(.*momentum"):
            list(refit_fields(store, 1))


def test_source_of_other_signals_is_refused(digits):
    with WeightStore.open(digits) as store:
        for source in (open_source("digits", limit=3), open_source("digits", limit={"test": 24})):
            with pytest.raises(UserError, match=r"the source digits has no signal 'digits/\d+' at place"):
                list(refit_fields(store, 12, source=source))


def test_changed_signal_is_noticed(pictures, tmp_path):
    data, directory = pictures
    changed = tmp_path / "data"
    changed.mkdir()
    for path in data.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(changed / "2.png")
    (changed / "4.png").write_bytes(b"no picture")
    with WeightStore.open(directory) as store:
        outcomes = {
            outcome.id: outcome for outcome in refit_fields(store, 6, source=open_source(changed, size=8, mode="L"))
        }
    assert {name for name, outcome in outcomes.items() if outcome.same} == {"0.png", "1.png", "3.png", "5.png"}
    assert "hash differs" in str(outcomes["2.png"]) and outcomes["4.png"].reason


def test_command_on_a_named_source(digits, capsys):
    assert main([str(digits), "--refit", "2"]) == 0
    assert capsys.readouterr().out.count(": same") == 2


def test_command_on_a_folder_needs_the_data(pictures, capsys):
    data, directory = pictures
    with pytest.raises(UserError, match=r"built from 'data', which is no named source.*give it with --data"):
        main([str(directory), "--refit", "2"])
    capsys.readouterr()
    assert main([str(directory), "--refit", "2", "--data", str(data)]) == 0
    assert capsys.readouterr().out.count(": same") == 2


def test_command_ends_with_1_where_a_field_differs(tmp_path, capsys):
    recorded = replace(CONFIG, steps=5)
    directory = build(tmp_path / "store", open_source("digits", limit={"test": 2}), recorded=recorded)
    assert json.loads((directory / "manifest.json").read_text())["fit"]["steps"] == 5
    assert main([str(directory), "--refit", "1"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def outcome(cosine, decibels):
    same = cosine >= 0.999 and abs(decibels) <= 0.5
    return RefitOutcome(id="x", same=same, cosine=cosine, psnr_difference=decibels)


def test_fields_as_far_apart_as_rounding_moves_them_are_the_same():
    drift = [outcome(0.99, 0.1), outcome(0.98, -0.2), outcome(0.95, 0.8)]
    judged = _within_drift([outcome(0.97, 0.3), outcome(0.96, -0.1), outcome(0.9999, 0.0)], drift)
    assert [each.same for each in judged] == [True] * 3 and [each.drifted for each in judged] == [True, True, False]
    assert "as far as rounding moves it" in str(judged[0])


def test_one_field_further_than_rounding_moves_any_is_another():
    drift = [outcome(0.99, 0.1), outcome(0.98, -0.2), outcome(0.95, 0.8)]
    judged = _within_drift([outcome(0.97, 0.3), outcome(0.98, -0.1), outcome(0.8, 0.0), outcome(0.99, 2.0)], drift)
    assert [each.same for each in judged] == [True, True, False, False]


def test_fields_that_all_moved_further_than_rounding_are_others():
    drift = [outcome(0.99, 0.1), outcome(0.99, -0.2), outcome(0.8, 0.8)]
    assert not any(each.same for each in _within_drift([outcome(0.83, 0.3)] * 3, drift))
    assert not any(each.same for each in _within_drift([outcome(0.998, 1.0)] * 3, drift))


def test_a_fit_that_magnifies_rounding_is_verified(tmp_path):
    """At this rate the disturbed signals end in other weights, and fields of another rate are further away still."""
    source, wild = open_source("digits", limit=6), replace(CONFIG, steps=120, learning_rate=0.3)
    with WeightStore.open(build(tmp_path / "store", source, wild, start="random")) as store:
        assert all(each.same for each in refit_fields(store, 12))
    with WeightStore.open(build(tmp_path / "other", source, wild, replace(wild, learning_rate=0.2), "random")) as store:
        assert not any(each.same for each in refit_fields(store, 12))
