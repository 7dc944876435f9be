"""``wsrl align`` of a store: the same fields under the same names in the form nearest to a template."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from wsrl.cli.main import main
from wsrl.errors import UserError
from wsrl.signals.signal import grid_coords
from wsrl.store import WeightStore
from wsrl.store.aligned import TEMPLATE, AlignConfig, align_fields, depth_factors
from wsrl.store.verifying import verify
from wsrl.store.writer import ShardWriter

COLUMNS = ("id", "label", "split", "seed", "status", "signal_sha256", "index")


def align(store, out, *more, template="mean"):
    return main(["align", str(store), "--template", template, "--out", str(out), *map(str, more)])


def values(store, rows):
    """Values in float64 of some fields."""
    coords = grid_coords((9, 9)).double()
    weights = [store[row] for row in rows]
    stacked = {name: torch.stack([w[name] for w in weights]).double() for name in weights[0]}
    representation = store.representation
    if representation.base is not None:
        representation.base.double()
    return representation.evaluate(stacked, coords).detach()


def assert_same_fields(first, second, moved=True):
    """Two stores hold the same functions, with the same of everything else but the weights."""
    assert verify(second).ok
    with WeightStore.open(first) as one, WeightStore.open(second) as other:
        assert one.ids == other.ids and one.failures == other.failures and one.label_names == other.label_names
        for row in range(len(one)):
            mine, theirs = one.record(row), other.record(row)
            assert all(mine[name] == theirs[name] for name in COLUMNS)
            assert mine["metrics"] == pytest.approx(theirs["metrics"], rel=0, abs=0, nan_ok=True)
        for key in ("representation", "layout", "base_sha256", "source"):
            assert one.manifest[key] == other.manifest[key]
        rows = range(0, len(one), 7)
        assert (values(one, rows) - values(other, rows)).abs().max() < 1e-6
        same = all(torch.equal(one[row][name], other[row][name]) for row in rows for name in one[row])
        assert same is not moved  # fields of one start are often where they belong


@pytest.fixture(scope="module")
def aligned(digits_store, tmp_path_factory):
    out = tmp_path_factory.mktemp("aligned") / "store"
    assert align(digits_store, out, "--limit", 20) == 0
    return out


def spread(path):
    """Mean variance of the weights over the fields of a store."""
    with WeightStore.open(path) as store:
        (batch,) = store.batches(len(store))
        return float(store.layout.flatten(batch.weights).var(0).mean())


def scrambled(digits_store, out):
    """The store with every field's neurons in another order."""
    from dataclasses import replace

    from wsrl.store.directory import create_or_resume, finalize
    from wsrl.store.rewriting import fields_of_shard
    from wsrl.symmetry.fields.signed import SignedSymmetry

    with WeightStore.open(digits_store) as store:
        keys = ("representation", "base_sha256", "source", "fit", "num_signals", "num_shards", "label_names")
        create_or_resume(out, layout=store.layout, **{key: store.manifest[key] for key in keys})
        symmetry = SignedSymmetry.of(store.representation, phases=False)
        with ShardWriter(out, 0) as writer:
            (rows,) = fields_of_shard(store, 0)
            weights = {spec.name: torch.stack([row.weights[spec.name] for row in rows]) for spec in store.layout}
            moved = symmetry.apply(weights, symmetry.random(len(rows), torch.Generator().manual_seed(0)))
            moved = [{name: tensor[i] for name, tensor in moved.items()} for i in range(len(rows))]
            writer.write_segment([replace(row, weights=weights) for row, weights in zip(rows, moved)])
            writer.finish()
        finalize(out)
    return out


def test_a_store_comes_out_aligned(digits_store, aligned):
    assert_same_fields(digits_store, aligned)
    with WeightStore.open(aligned) as store:
        told = store.manifest["fit"]["aligned"]
        assert (told["template"], told["num_fields"]) == ("mean", 20)
        assert store.manifest["command"].startswith(f"wsrl align {digits_store} --template mean")
        card = (aligned / "README.md").read_text()
        assert '"aligned"' in card and "wsrl align" in card
        assert load_file(aligned / TEMPLATE).keys() == {spec.name for spec in store.layout}


def test_scrambled_fields_fall_into_place(digits_store, tmp_path):
    mixed = scrambled(digits_store, tmp_path / "mixed")
    assert align(mixed, tmp_path / "store", template="digits/00000") == 0
    assert_same_fields(mixed, tmp_path / "store")
    assert spread(tmp_path / "store") < 0.5 * spread(mixed)
    with WeightStore.open(tmp_path / "store") as store, WeightStore.open(mixed) as before:
        template, found = before["digits/00000"], store["digits/00000"]
        assert all(torch.equal(template[name], found[name]) for name in template)


def test_a_finished_alignment_is_left_alone_and_another_refused(digits_store, aligned, refused, tmp_path):
    stamp = (aligned / "manifest.json").stat().st_mtime_ns
    assert align(digits_store, aligned, "--limit", 20) == 0
    assert (aligned / "manifest.json").stat().st_mtime_ns == stamp
    common = ("align", digits_store, "--out", aligned, "--template")
    assert "holds another build" in refused(*common, "mean", "--limit", "21")
    assert "holds another build" in refused(*common, "digits/00000")
    assert "is the store itself" in refused("align", digits_store, "--out", digits_store, "--template", "mean")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    assert "not ours" in refused("align", digits_store, "--out", tmp_path / "other", "--template", "mean")


def test_a_template_file_aligns_other_stores_alike(aligned, digits_store, tmp_path):
    assert align(digits_store, tmp_path / "again", template=str(aligned / TEMPLATE)) == 0
    with WeightStore.open(aligned) as one, WeightStore.open(tmp_path / "again") as other:
        assert all(torch.equal(one[row][name], other[row][name]) for row in (0, 50) for name in one[row])


def test_an_interrupted_alignment_goes_on(build, tmp_path, monkeypatch):
    assert build(tmp_path / "store", "--representation", "mlora", "--shards", "2") == 0
    assert align(tmp_path / "store", tmp_path / "whole") == 0
    finish = ShardWriter.finish

    def stopped(writer):
        if writer.shard == 1:
            raise KeyboardInterrupt
        finish(writer)

    monkeypatch.setattr(ShardWriter, "finish", stopped)
    config = AlignConfig(template="mean")
    with pytest.raises(KeyboardInterrupt):
        align_fields(tmp_path / "store", tmp_path / "half", config)
    monkeypatch.undo()
    assert not verify(tmp_path / "half").ok
    done = align_fields(tmp_path / "store", tmp_path / "half", config)
    assert done.num_fields == 0 and np.isnan(done.before)
    assert_same_fields(tmp_path / "store", tmp_path / "half", moved=False)
    with WeightStore.open(tmp_path / "whole") as one, WeightStore.open(tmp_path / "half") as other:
        assert all(torch.equal(one[row][name], other[row][name]) for row in range(len(one)) for name in one[row])


def test_failures_and_the_base_field_come_along(build, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(noise).save(pictures / f"{i}.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    assert build(tmp_path / "store", "--representation", "lora", "--source", "{}", data=pictures) == 1
    assert align(tmp_path / "store", tmp_path / "out") == 0
    assert_same_fields(tmp_path / "store", tmp_path / "out", moved=False)
    with WeightStore.open(tmp_path / "out") as store:
        assert len(store.failures) == 1 and store.base.sha256() == store.manifest["base_sha256"]


@pytest.mark.parametrize(
    "more, wrong",
    [
        (("--template", "digits/none"), "no field 'digits/none'"),
        (("--template", "missing.safetensors"), "no template missing.safetensors"),
        (("--template", "mean", "--method", "activations"), "--method is 'activations'"),
        ((), "no template is given"),
    ],
)
def test_wrong_options_write_nothing(digits_store, tmp_path, refused, more, wrong):
    assert wrong in refused("align", digits_store, "--out", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_fields_with_masks_are_canonical_already(build, tmp_path, refused):
    assert build(tmp_path / "store", "--representation", "mlora_asym") == 0
    message = refused("align", tmp_path / "store", "--out", tmp_path / "out", "--template", "mean")
    assert "no permutation symmetry" in message and "mlora_asym" in message
    assert not (tmp_path / "out").exists()


def test_first_layers_come_first(digits_store):
    with WeightStore.open(digits_store) as store:
        found = depth_factors(store.representation, 10.0)
    assert found == {spec.name: 1.0 for spec in store.layout}  # one hidden layer
    with pytest.raises(UserError, match="first_layers is 0"):
        AlignConfig(first_layers=0)


def test_deeper_layers_count_less():
    from wsrl.fields import FieldConfig, Representation, RepresentationConfig

    field = FieldConfig(width=4, depth=3, encoding="identity", activation="sine")
    representation = Representation.build(RepresentationConfig(kind="mlp", field=field), in_features=2, out_features=1)
    found = depth_factors(representation, 10.0)
    assert [found[f"layers.{i}.weight"] for i in range(4)] == [100.0, 10.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", ["lora", "mlora_asym"])
def test_factors_come_out_in_canonical_gauge(build, tmp_path, refused, capsys, kind):
    assert build(tmp_path / "store", "--representation", kind) == 0
    capsys.readouterr()
    assert main(["align", str(tmp_path / "store"), "--gauge", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "20 fields brought into canonical gauge" in printed and "sum of squares" in printed
    assert_same_fields(tmp_path / "store", tmp_path / "out")
    with WeightStore.open(tmp_path / "store") as before, WeightStore.open(tmp_path / "out") as after:
        assert after.manifest["fit"]["aligned"]["gauge"] == "canonical"
        assert after.manifest["command"] == f"wsrl align {tmp_path / 'store'} --gauge --out {tmp_path / 'out'}"
        assert '"gauge": "canonical"' in (tmp_path / "out" / "README.md").read_text()
        for row in range(len(before)):
            expected = before.representation.canonical(before[row])
            assert all(torch.equal(after[row][name], tensor) for name, tensor in expected.items())
    # again: left alone; a second form of it is the same, bit for bit
    stamp = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert main(["align", str(tmp_path / "store"), "--gauge", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == stamp
    assert main(["align", str(tmp_path / "out"), "--gauge", "--out", str(tmp_path / "again")]) == 0
    assert_same_fields(tmp_path / "out", tmp_path / "again", moved=False)
    assert "holds another build" in refused("align", tmp_path / "again", "--gauge", "--out", tmp_path / "out")


@pytest.mark.parametrize(
    "more, wrong",
    [
        (("--gauge",), "without factors: they have no gauge"),
        (("--gauge", "--template", "mean"), "--gauge is given with --template"),
        (("--gauge", "--method", "activations"), "--gauge is given with --template or --method"),
    ],
)
def test_a_gauge_that_is_not_there_is_refused(digits_store, tmp_path, refused, more, wrong):
    assert wrong in refused("align", digits_store, "--out", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()
