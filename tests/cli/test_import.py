"""``wsrl import``: zoos of others become stores that are decoded, probed and trained on; bad files stop nothing."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from siren_zoo import Siren, mgrid, write_zoo

from wsrl.cli.main import main
from wsrl.fields.open import open_representation
from wsrl.signals.signal import grid_coords
from wsrl.store import WeightStore
from wsrl.store.verifying import verify


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """A zoo of 40 SIRENs; read it, do not write to it."""
    return write_zoo(tmp_path_factory.mktemp("zoo") / "zoo")


@pytest.fixture
def own_zoo(zoo, tmp_path):
    """A copy of the zoo's first files that a test may spoil, with its labels."""
    (tmp_path / "zoo" / "weights").mkdir(parents=True)
    for path in sorted((zoo / "weights").iterdir())[:6]:
        shutil.copy(path, tmp_path / "zoo" / "weights")
    shutil.copy(zoo / "siren.yaml", tmp_path / "zoo" / "network.yaml")
    return tmp_path / "zoo"


def import_zoo(directory, out, *more):
    return main(["import", "--state-dicts", str(directory), "--out", str(out), *map(str, more)])


def described(zoo):
    return "--network", zoo / "siren.yaml", "--labels", zoo / "split.json"


@pytest.fixture(scope="session")
def imported(zoo, tmp_path_factory):
    """The store of the zoo, in three shards; read it, do not write to it."""
    out = tmp_path_factory.mktemp("imported") / "store"
    assert import_zoo(zoo, out, *described(zoo), "--shards", "3") == 0
    return out


def test_numbers_stay_and_pictures_are_those_of_the_module(zoo, imported):
    siren = Siren()
    assert verify(imported).ok
    with WeightStore.open(imported) as store, torch.no_grad():
        assert len(store) == 40 and store.label_names == ("0", "1")
        for row in (0, 17, 39):
            state = torch.load(zoo / "weights" / f"{store.id_of(row)}.pt")
            siren.load_state_dict(state)
            stored = list(store[row].values())
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(stored, state.values()))
            expected = (siren(mgrid(8)) + 1) / 2
            assert (store.field(row)(grid_coords((8, 8))) - expected).abs().max() < 1e-5
            pixels = np.asarray(store.field(row).image(8), dtype=float)
            assert np.abs(pixels - expected.clamp(0, 1).reshape(8, 8).numpy() * 255).max() < 0.51
            # The convention matters: without it the same numbers are another picture.
            plain = store.manifest["representation"] | {"convention": None}
            ours = open_representation(plain)
            batch = {name: tensor[None] for name, tensor in store[row].items()}
            assert (ours.evaluate(batch, grid_coords((8, 8)))[0] - expected).abs().max() > 0.05


def test_labels_and_splits_are_those_of_the_file(zoo, imported):
    asked = json.loads((zoo / "split.json").read_text())
    with WeightStore.open(imported) as store:
        found = [store.record(record["id"]) for record in asked]
        assert [(r["label"], r["split"]) for r in found] == [(str(r["label"]), r["split"]) for r in asked]
        assert store.manifest["source"]["imported"] == "state_dicts" and store.manifest["source"]["grid"] == [8, 8]
        assert len(store.manifest["source"]["files_sha256"]) == 64


def test_probed_and_trained_on_by_the_commands(imported, tmp_path, capsys):
    assert main(["eval", "probe", str(imported), "--out", str(tmp_path / "metrics.json")]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["probe.num_train"] == 30 and metrics["probe.weights_accuracy"] > 0.8
    train = ["train", "classifier", "--data.store", str(imported), "--data.num_workers", "0", "--data.batch_size", "8"]
    train += ["--model.hidden", "[8]", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]
    assert main([*train, "--trainer.default_root_dir", str(tmp_path / "run")]) == 0
    assert 0 <= json.loads((tmp_path / "run" / "metrics.json").read_text())["classifier.test_accuracy"] <= 1


def test_a_decoder_carries_the_convention(imported, tmp_path):
    from wsrl.diffusion.decoder import FieldDecoder

    with WeightStore.open(imported) as store:
        FieldDecoder.from_store(store).save_pretrained(tmp_path)
        batch = {name: tensor[None] for name, tensor in store[5].items()}
        (picture,) = FieldDecoder.from_pretrained(tmp_path).images(batch)
        assert np.array_equal(np.asarray(picture), np.asarray(store.field(5).image(8)))


def test_there_is_nothing_to_refit_from(imported, refused):
    assert main(["verify", str(imported)]) == 0
    assert "nothing to refit" in refused("verify", imported, "--refit", "2")


def test_an_import_goes_on_and_gives_the_same_bytes(zoo, imported, tmp_path, monkeypatch, refused):
    out = tmp_path / "store"
    monkeypatch.setattr("wsrl.exchange.import_store.SEGMENT", 4)
    from wsrl.store.writer import ShardWriter

    write, written = ShardWriter.write_segment, []

    def interrupted(self, results):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(len(results))
        write(self, results)

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "write_segment", interrupted)
        assert import_zoo(zoo, out, *described(zoo), "--shards", "3") == 130
    assert import_zoo(zoo, out, *described(zoo), "--shards", "3") == 0
    for path in imported.glob("shard-*.h5"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    first = sorted((zoo / "weights").iterdir())[0]
    again = tmp_path / "zoo"
    shutil.copytree(zoo, again)
    torch.save({k: v + 1 for k, v in torch.load(first).items()}, again / "weights" / first.name)
    message = refused("import", "--state-dicts", again, "--out", out, *described(zoo), "--shards", "3")
    assert "files_sha256" in message


class Malicious:
    """Runs a command when it is unpickled by a loader that trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_bad_files_are_named_and_stop_nothing(own_zoo, tmp_path, capsys):
    weights, mark = own_zoo / "weights", tmp_path / "executed"
    good = torch.load(weights / "image_000000.pt")
    torch.save({**good, "x": Malicious(mark)}, weights / "code.pt")
    torch.save({**good, "x": Malicious(mark)}, weights / "code_old.pt", _use_new_zipfile_serialization=False)
    (weights / "cut.pt").write_bytes((weights / "image_000000.pt").read_bytes()[:900])
    (weights / "empty.pt").touch()
    (weights / "text.safetensors").write_text("no tensors")
    torch.save({**good, "net.0.linear.bias": torch.zeros(5)}, weights / "shape.pt")
    torch.save({k: v for k, v in good.items() if k != "net.2.bias"}, weights / "missing.pt")
    torch.save({**good, "step": torch.tensor(3)}, weights / "extra.pt")
    torch.save({**good, "net.2.bias": torch.tensor([float("nan")])}, weights / "nan.pt")
    torch.save({**good, "net.2.bias": torch.tensor([0.1], dtype=torch.float64)}, weights / "double.pt")
    torch.save([1, 2], weights / "list.pt")
    assert import_zoo(own_zoo, tmp_path / "store") == 1
    assert not mark.exists()
    with WeightStore.open(tmp_path / "store") as store:
        assert store.ids == [f"weights/image_00000{i}" for i in range(6)]
        reasons = {name.removeprefix("weights/"): reason for name, reason in store.failures}
    expected = {
        "code": "code.pt holds code: it wants posix.system, which was not run",
        "code_old": "code_old.pt holds code: it wants posix.system",
        "cut": "cut.pt is truncated or damaged",
        "empty": "empty.pt is truncated or damaged",
        "text": "text.safetensors is truncated or damaged",
        "shape": "shape.pt: layers.0.bias has the shape 5. Allowed: 16",
        "missing": "missing.pt lacks net.2.bias",
        "extra": "extra.pt has step too",
        "nan": "nan.pt: layers.2.bias holds NaN",
        "double": "double.pt: layers.2.bias holds numbers that float32 cannot hold",
        "list": "list.pt holds no state_dict but list",
    }
    assert reasons.keys() == expected.keys()
    for name, text in expected.items():
        assert text in reasons[name] and "Allowed: " in reasons[name] and "What to do: " in reasons[name]
    assert "11 signals have no field" in capsys.readouterr().out
    assert verify(tmp_path / "store").ok


def test_rounding_and_ignored_tensors_are_asked_for(own_zoo, tmp_path):
    good = torch.load(own_zoo / "weights" / "image_000000.pt")
    torch.save(
        {k: v.double() + 1e-12 for k, v in good.items()} | {"step": torch.tensor(3)}, own_zoo / "weights" / "x.pt"
    )
    network = own_zoo / "network.yaml"
    network.write_text(network.read_text() + "ignore: [step]\n")
    assert import_zoo(own_zoo, tmp_path / "store", "--rounding", "true") == 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"g_ema": state, "model": {k: v + 1 for k, v in state.items()}},
        lambda state: {f"module.{k}": v for k, v in state.items()},
        lambda state: {"trained": {f"net.{k}": v for k, v in state.items()}},
        lambda state: {k: v.double() for k, v in state.items()},
    ],
)
def test_usual_wrappers_are_looked_through(own_zoo, tmp_path, wrap):
    plain = {path.stem: torch.load(path) for path in (own_zoo / "weights").iterdir()}
    for path in (own_zoo / "weights").iterdir():
        torch.save(wrap(plain[path.stem]), path)
    assert import_zoo(own_zoo, tmp_path / "store") == 0
    with WeightStore.open(tmp_path / "store") as store:
        for name, state in plain.items():
            assert all(map(torch.equal, store[f"weights/{name}"].values(), state.values()))


def test_what_does_not_fit_is_refused_with_both_sides(own_zoo, tmp_path, refused):
    def wrong(*more):
        return refused("import", "--state-dicts", own_zoo, "--out", tmp_path / "store", *more)

    network = own_zoo / "network.yaml"
    text = network.read_text()
    network.write_text(text.replace("width: 16", "width: 17"))
    message = wrong()
    assert "net.0.linear.weight 16x2" in message and "layers.0.weight 17x2" in message
    network.write_text(text + "names: {'body.{i}.weight': 'layers.{i}.weight'}\n")
    message = wrong()
    assert "net.0.linear.weight" in message and "layers.2.bias" in message
    for change, named in (
        ("activation: sine", "activation: cosine"),
        ("kind: mlp", "kind: mlpp"),
        ("in_features: 2", "inn_features: 2"),
        ("ends: corners", "ends: edges"),
        ("range: [-1, 1]}", "range: [1, 1]}"),
        ("grid: [8, 8]", "grid: [8]"),
        ("omega: 30,", "omega: 3e1,"),
        ("width: 16", "width: wide"),
        ("signal:", "names: [a]\nsignal:"),
        ("signal:", "ignore: step\nsignal:"),
        ("kind: mlp", "kind: mlora"),
    ):
        network.write_text(text.replace(change, named))
        assert str(network) in wrong()
    network.unlink()
    assert "--network" in wrong()
    assert not (tmp_path / "store").exists()


def test_layers_named_by_words_are_not_put_in_the_order_of_the_alphabet(tmp_path, refused, capsys):
    """Reported as AvivNavon/DWSNets#2: the order was guessed, status 0, and the field was another one."""
    names, sizes = ["a_in", "b_one", "b_two", "b_three", "z_out"], [(16, 2), *[(16, 16)] * 3, (1, 16)]
    generator = torch.Generator().manual_seed(0)
    state = {
        f"{name}.{kind}": torch.randn(size if kind == "weight" else size[:1], generator=generator)
        for name, size in zip(names, sizes)
        for kind in ("weight", "bias")
    }
    text = "field: {width: 16, depth: 4, activation: relu}\nsignal: {grid: [5, 7]}\n"
    for folder in ("kept", "lost"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "network.yaml").write_text(text)
    save_file(state, tmp_path / "lost" / "f0.safetensors")
    torch.save(state, tmp_path / "kept" / "f0.pt")
    message = refused("import", "--state-dicts", tmp_path / "lost", "--out", tmp_path / "none")
    assert "more than one order" in message and "`names:`" in message and not (tmp_path / "none").exists()
    given = {f"{name}.{kind}": f"layers.{i}.{kind}" for i, name in enumerate(names) for kind in ("weight", "bias")}
    (tmp_path / "lost" / "network.yaml").write_text(f"{text}names: {json.dumps(given)}\n")
    coords = grid_coords((5, 7))
    expected = coords
    for name in names:
        expected = expected @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        expected = expected if name == names[-1] else expected.relu()
    for folder in ("lost", "kept"):
        assert import_zoo(tmp_path / folder, tmp_path / f"{folder}_store") == 0
        shown = capsys.readouterr().out
        assert ("torch keeps the order of definition" in shown) == (folder == "kept")
        with WeightStore.open(tmp_path / f"{folder}_store") as store:
            torch.testing.assert_close(store.field("f0")(coords), expected, rtol=1e-4, atol=1e-3)


def test_folders_and_labels_that_do_not_fit_are_refused(own_zoo, zoo, tmp_path, refused):
    def wrong(*more, directory=own_zoo):
        network = ("--network", zoo / "siren.yaml")
        return refused("import", "--state-dicts", directory, "--out", tmp_path / "store", *network, *more)

    (tmp_path / "none").mkdir()
    assert "holds no fields" in wrong(directory=tmp_path / "none")
    assert "there is no folder" in wrong(directory=tmp_path / "nowhere")
    assert "one of --state-dicts" in refused("import", "--out", tmp_path / "store")
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\nimage_000000,a\nimage_000077,b\n")
    assert "image_000077 (no file)" in wrong("--labels", labels)
    labels.write_text("id,label\nimage_000000,a\nimage_000000,b\n")
    assert "'image_000000' twice" in wrong("--labels", labels)
    labels.write_text("who,label\nimage_000000,a\n")
    assert "its header is who, label" in wrong("--labels", labels)
    (own_zoo / "more").mkdir()
    shutil.copy(own_zoo / "weights" / "image_000000.pt", own_zoo / "more")
    labels.write_text("id,label\nimage_000000,a\n")
    assert "image_000000 (several files)" in wrong("--labels", labels)
    shutil.copy(own_zoo / "weights" / "image_000000.pt", own_zoo / "weights" / "image_000000.pth")
    assert "both have the id 'weights/image_000000'" in wrong()
    assert not (tmp_path / "store").exists()


def test_files_without_a_label_have_none_and_others_may_be_left_out(own_zoo, tmp_path, capsys):
    labels = own_zoo / "labels.csv"
    labels.write_text("file,id,class\nweights/image_000003.pt,third,cat\nimage_000009,x,dog\n")
    assert import_zoo(own_zoo, tmp_path / "store", "--unmatched", "ignore") == 0
    assert "5 fields have no label" in capsys.readouterr().out
    with WeightStore.open(tmp_path / "store") as store:
        assert store.ids[0] == "third" and store.record("third")["label"] == "cat"
        assert store.label_names == ("cat",) and (store.labels() == -1).sum() == 5


def test_what_is_passed_over_is_told_and_kept(own_zoo, tmp_path, capsys):
    """openvinotoolkit/anomalib#3058, GaParmar/clean-fid#37: upper-case endings are read, others are told."""
    shutil.move(own_zoo / "weights" / "image_000001.pt", own_zoo / "weights" / "IMAGE_1.PT")
    shutil.copy(own_zoo / "weights" / "image_000002.pt", own_zoo / "weights" / "last.ckpt")
    (own_zoo / "README").touch()
    (own_zoo / ".hidden").touch()
    (own_zoo / "linked").symlink_to(own_zoo / "weights")
    assert import_zoo(own_zoo, tmp_path / "store") == 0
    told = "2 other files were passed over: .ckpt, no ending; 1 folder that is a link was not entered"
    assert told in capsys.readouterr().out
    with WeightStore.open(tmp_path / "store") as store:
        assert "weights/IMAGE_1" in store.ids and len(store) == 6
        assert store.manifest["passed_over"] == {".ckpt": 1, "folders that are links": 1, "no ending": 1}
    assert told in (tmp_path / "store" / "README.md").read_text()


def test_labels_that_fit_nothing_are_told(own_zoo, tmp_path, capsys, refused):
    """AvivNavon/DWSNets: with --unmatched ignore its splits were dropped without a word."""
    labels = tmp_path / "splits.json"
    labels.write_text(json.dumps({"train": {"path": ["other/a.pth"], "label": ["1"]}}))
    argv = ("import", "--state-dicts", own_zoo, "--labels", labels, "--out", tmp_path / "store")
    assert "other/a.pth (no file)" in refused(*argv) and not (tmp_path / "store").exists()
    assert import_zoo(own_zoo, tmp_path / "store", "--labels", labels, "--unmatched", "ignore") == 0
    assert "no label was used" in capsys.readouterr().out


def test_bytes_that_are_no_utf8_never_reach_the_manifest(own_zoo, tmp_path, refused):
    """pandas-dev/pandas#22610, h5py/h5py#135: a refused file leaves no store; names of files may be any bytes."""
    labels = tmp_path / "labels.csv"
    labels.write_bytes("id,label\nimage_000000,café\n".encode("latin-1"))
    argv = ("import", "--state-dicts", own_zoo, "--out", tmp_path / "store", "--labels", labels)
    assert "line 2" in refused(*argv) and not (tmp_path / "store").exists()
    assert import_zoo(own_zoo, tmp_path / "store", "--labels", labels, "--encoding", "latin-1") == 0
    odd = tmp_path / os.fsdecode(b"zoo\xe9")
    shutil.copytree(own_zoo, odd)
    shutil.move(odd / "weights" / "image_000001.pt", odd / os.fsdecode(b"caf\xe9.pt"))
    assert import_zoo(odd, tmp_path / "odd") == 0
    for name in ("manifest.json", "README.md"):
        (tmp_path / "odd" / name).read_text(encoding="utf-8")
    with WeightStore.open(tmp_path / "odd") as store:
        assert store.manifest["source"]["name"] == os.fsdecode(b"imported/zoo\xe9")
        assert os.fsdecode(b"caf\xe9") in store.ids
    assert import_zoo(odd, tmp_path / "odd") == 0 and verify(tmp_path / "odd").ok


@pytest.mark.parametrize(("features", "channels"), [(1, 1), (3, 4), (4, 1)])
def test_fields_that_are_neither_pictures_nor_shapes(tmp_path, refused, features, channels):
    """Fields of sounds, radiance fields and videos are kept and exported as weights; they have no picture."""
    zoo, store = tmp_path / "zoo", tmp_path / "store"
    zoo.mkdir()
    described = f"in_features: {features}\nout_features: {channels}\nfield: {{width: 4, depth: 1, activation: relu}}\n"
    (zoo / "network.yaml").write_text(described)
    shapes = {"0.weight": (4, features), "0.bias": (4,), "2.weight": (channels, 4), "2.bias": (channels,)}
    for i in range(3):
        torch.save({name: torch.randn(shape) for name, shape in shapes.items()}, zoo / f"f{i}.pt")
    assert import_zoo(zoo, store) == 0
    for format in ((), ("--format", "images"), ("--format", "meshes"), ("--format", "turntables")):
        message = refused("export", store, "--out", tmp_path / "none", *format)
        assert f"from {features} coordinates to {channels} values" in message and "state_dict" in message
    assert not (tmp_path / "none").exists()
    out = tmp_path / "near.png"
    assert (
        f"from {features} coordinates" in refused("info", store, "--nearest", "f0", "--out", out) and not out.exists()
    )
    for format in ("state_dict", "safetensors", "numpy"):
        assert main(["export", str(store), "--format", format, "--out", str(tmp_path / format)]) == 0
