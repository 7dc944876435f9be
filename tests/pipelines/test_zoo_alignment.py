"""The experiment on a canonical zoo as a whole, on a few small fields of digits."""

import pytest

from pipelines.zoo_alignment import Reader, ZooConfig, run
from wsrl.fields import FieldConfig, RepresentationConfig
from wsrl.fitting.engine import FitConfig
from wsrl.store.aligned import AlignConfig


@pytest.mark.slow
def test_whole_experiment_on_a_few_digits(tmp_path):
    field = FieldConfig(width=6, depth=2, encoding="identity", activation="sine", omega=4.0)
    tiny = {"data.num_workers": 0, "data.batch_size": 16, "trainer.max_epochs": 1, "model.encoder": "mlp"}
    config = ZooConfig(
        name="tiny",
        data="digits",
        source={"limit": {"train": 60, "test": 20}},
        representation=RepresentationConfig(kind="mlp", start="random", field=field),
        fit=FitConfig(steps=40, learning_rate=0.05),
        alignments={"aligned": AlignConfig(num_fields=30, rounds=2), "unsigned": AlignConfig(signs=False)},
        readers={"flat_mlp": Reader(options=tiny, forms=("unaligned", "aligned"), seeds=2)},
        neighbours=(1, 3),
        figure=str(tmp_path / "zoo.png"),
        out=str(tmp_path / "zoo"),
    )
    results = run(config)
    assert (results["run.num_train"], results["run.num_test"]) == (60, 20)
    for name in ("aligned", "unsigned"):
        assert results[f"{name}.distance_after"] < results[f"{name}.distance_before"]
        assert results[f"{name}.largest_change"] < 1e-6
    for form in ("unaligned", "aligned"):
        assert 0 <= results[f"flat_mlp.{form}"] <= 1 and results[f"flat_mlp.{form}_seeds"] == 2
        assert 0 <= results[f"retrieval.{form}.precision_at_3"] <= 1
    assert "flat_mlp.unsigned" not in results
    assert results["fields_per_s"] > 0 and results["fields_per_s_wall"] > 0
    assert (tmp_path / "zoo.png").stat().st_size > 10_000
    assert run(config) == results  # all parts are kept, the times too
